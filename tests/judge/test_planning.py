"""`hounsfield power DIR`: a judged study as the pilot of the next."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from hounsfield.cli import app
from hounsfield.errors import InputError
from hounsfield.judge import planning
from hounsfield.judge.planning import lines, plans
from hounsfield.judge.results import judge


@pytest.mark.parametrize("folds", [0, 3])
def test_plans_for_the_pilots_own_size_are_what_its_results_say(tmp_path, fake_study, folds):
    folder = fake_study(folds=folds).write(tmp_path / "s")
    table = judge(folder).table.filter(level="slice", metric="auc", arm="spark", fraction=0.1)
    contrast, drops = plans(folder, patients=[24], repeats=[3])
    assert (contrast.comparisons, drops.comparisons) == (2, 1)
    for plan, kind, baseline in (
        (contrast, "difference", "scratch"),
        (drops, "drop_difference", "moco_v2"),
    ):
        told = table.filter(kind=kind, baseline=baseline)["smallest_effect"].item()
        assert plan.rows[0].smallest_effect == pytest.approx(told)
        assert plan.rows[0].low < told < plan.rows[0].high


def test_there_is_a_plan_for_the_contrast_and_for_each_hypothesis(tmp_path, fake_study):
    questions = [plan.question for plan in plans(fake_study().write(tmp_path / "s"))]
    assert questions == [
        "difference, spark against scratch, at 0.1",
        "difference of drops, spark against moco_v2, at 0.1",
    ]


def test_the_command_says_how_many_patients_an_effect_needs(tmp_path, fake_study):
    folder = fake_study().write(tmp_path / "s")
    ran = CliRunner().invoke(app, ["power", str(folder), "--effect", "0.1", "--repeats", "5"])
    needed = plans(folder, effect=0.1, repeats=[5])[0].needed[5]
    assert ran.exit_code == 0
    assert f"To see 0.1 with 5 repeats: {needed} test patients." in ran.output


def test_a_pilot_whose_patients_show_no_variance_promises_nothing(
    tmp_path, fake_study, monkeypatch
):
    pilot = planning.power.pilot

    def without_patients(*parts, **folds):
        return replace(pilot(*parts, **folds), patients=np.array(0.0))

    monkeypatch.setattr(planning.power, "pilot", without_patients)
    plan = plans(fake_study().write(tmp_path / "s"), effect=0.1)[0]
    assert (plan.rows, plan.floor, plan.needed) == ((), None, {})
    _, of_pilot, *rest = lines(plan, effect=0.1)
    assert of_pilot.startswith("  pilot: 24 test patients, 3 repeats")
    assert rest == ["  The pilot is too small to tell what its patients add: no plan can be made."]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"effect": -0.1}, "an effect of -0.1 cannot be planned for"),
        ({"repeats": [0]}, "2 test patients and 1 repeat at least"),
        ({"patients": [1]}, "2 test patients and 1 repeat at least"),
    ],
)
def test_sizes_that_no_study_has_are_refused(tmp_path, asked, says):
    with pytest.raises(InputError, match=says):
        plans(tmp_path, **asked)


def test_too_few_patients_make_no_pilot(tmp_path, fake_study):
    with pytest.raises(InputError, match="not enough patients"):
        plans(fake_study(patients=6).write(tmp_path / "s"))


def test_a_study_without_scores_makes_no_pilot(tmp_path, fake_study):
    folder = fake_study(arms=("scratch", "spark"), fractions=(1.0,), repeats=1)
    folder.without = {("scratch", 1.0, 0), ("spark", 1.0, 0)}
    folder.primary = {"hypotheses": []}
    with pytest.raises(InputError, match="no finished cell of bleed / fair"):
        plans(folder.write(tmp_path / "s"))

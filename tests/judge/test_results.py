"""From a study folder to numbers, on studies whose answers are known."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from hounsfield.errors import InputError, LeakError
from hounsfield.judge import metrics, results
from hounsfield.judge.declared import declared
from hounsfield.judge.jackknife import contrast
from hounsfield.judge.questions import questions
from hounsfield.judge.results import is_judged, judge
from hounsfield.judge.scores import boards, read_cells, read_facts
from hounsfield.judge.view import measure, patient_df


def cells_of(folder):
    for path in sorted((folder / "cells").glob("*/cell.json")):
        yield path.parent, json.loads(path.read_text())


def scores_of(folder, **wanted):
    for path, facts in cells_of(folder):
        if all(facts[key] == value for key, value in wanted.items()):
            yield pl.read_parquet(path / "scores.parquet").filter(pl.col("split") == "test")


def rows(table, **wanted):
    for column, value in wanted.items():
        table = table.filter(pl.col(column) == value)
    return table


@pytest.fixture(scope="module")
def plain(tmp_path_factory, fake_study):
    """A study without a fault, and its results."""
    folder = fake_study().write(tmp_path_factory.mktemp("plain") / "s")
    return folder, judge(folder)


def test_a_level_is_the_mean_auc_of_its_repeats_never_of_an_ensemble(plain):
    folder, results = plain
    table = results.table
    expected = np.mean(
        [
            roc_auc_score(cell["label"], cell["logit_1"] - cell["logit_0"])
            for cell in scores_of(folder, arm="spark", fraction=0.1)
        ]
    )
    row = rows(table, kind="level", level="slice", metric="auc", arm="spark", fraction=0.1)
    assert row["estimate"].item() == pytest.approx(expected, abs=1e-12)
    assert row["low"].item() < expected < row["high"].item()
    assert row["repeats"].item() == 3
    assert row["train_patients"].item() == 4


def test_a_patient_is_judged_by_its_mean_logit(plain):
    folder, results = plain
    pooled = [
        cell.group_by("patient").agg(
            pl.col("label").max(), (pl.col("logit_1") - pl.col("logit_0")).cast(float).mean()
        )
        for cell in scores_of(folder, arm="scratch", fraction=1.0)
    ]
    expected = np.mean([roc_auc_score(cell["label"], cell["logit_1"]) for cell in pooled])
    row = rows(
        results.table,
        kind="level", level="patient", metric="auc", arm="scratch", fraction=1.0,
    )  # fmt: skip
    assert row["estimate"].item() == pytest.approx(expected, abs=1e-12)


def test_differences_drops_and_areas_are_made_of_levels(plain):
    table = rows(plain[1].table, level="slice", metric="auc")
    level = {
        (row["arm"], row["fraction"]): row["estimate"]
        for row in rows(table, kind="level").iter_rows(named=True)
    }

    def one(**wanted):
        return rows(table, **wanted)["estimate"].item()

    drop = {arm: level[arm, 1.0] - level[arm, 0.1] for arm in ("spark", "moco_v2")}
    assert one(kind="difference", arm="spark", baseline="scratch", fraction=0.25) == pytest.approx(
        level["spark", 0.25] - level["scratch", 0.25]
    )
    assert one(kind="drop", arm="spark", fraction=0.1) == pytest.approx(drop["spark"])
    assert one(
        kind="drop_difference", arm="spark", baseline="moco_v2", fraction=0.1
    ) == pytest.approx(drop["spark"] - drop["moco_v2"])
    x = np.log([1.0, 0.25, 0.1])
    curve = [level["spark", fraction] for fraction in (1.0, 0.25, 0.1)]
    area = np.trapezoid(curve[::-1], x[::-1]) / (x[0] - x[2])
    assert one(kind="curve_area", arm="spark") == pytest.approx(area)


def test_only_the_primary_metric_has_p_values_and_only_the_family_has_holms(plain):
    table = plain[1].table
    secondary = rows(table, metric="balanced_accuracy", kind="difference", level="slice")
    assert secondary["low"].null_count() == 0
    assert table.filter(pl.col("metric") != "auc")["p"].null_count() == len(
        table.filter(pl.col("metric") != "auc")
    )
    family = table.filter(pl.col("p_holm").is_not_null())
    found = set(family.select("kind", "arm", "baseline", "fraction", "level").iter_rows())
    assert found == {
        ("difference", "moco_v2", "scratch", 0.1, "slice"),
        ("difference", "spark", "scratch", 0.1, "slice"),
        ("drop_difference", "spark", "moco_v2", 0.1, "slice"),
    }
    p = sorted(rows(family, kind="difference")["p"].to_list())
    assert sorted(rows(family, kind="difference")["p_holm"].to_list()) == pytest.approx(
        [min(2 * p[0], 1), min(max(2 * p[0], p[1]), 1)]
    )


def test_plain_metrics_come_without_intervals(plain):
    table = plain[1].table
    for metric in ("average_precision", "f1", "brier", "ece"):
        found = rows(table, metric=metric)
        assert found["estimate"].null_count() == 0
        assert found["low"].null_count() == found["high"].null_count() == len(found)


def test_a_failed_cell_costs_its_repeat_in_every_question_that_needs_it(tmp_path, fake_study):
    folder = fake_study(without={("spark", 0.1, 1)}).write(tmp_path / "s")
    results = judge(folder)
    table = rows(results.table, level="slice", metric="auc")
    needs = rows(table, kind="difference", arm="spark", baseline="scratch", fraction=0.1)
    assert needs["repeats"].item() == 2
    assert "1 of 3 repeats left out" in needs["flag"].item()
    assert "two repeats" in needs["flag"].item()
    kept = [
        roc_auc_score(a["label"], a["logit_1"] - a["logit_0"])
        - roc_auc_score(b["label"], b["logit_1"] - b["logit_0"])
        for repeat in (0, 2)
        for a in scores_of(folder, arm="spark", fraction=0.1, repeat=repeat)
        for b in scores_of(folder, arm="scratch", fraction=0.1, repeat=repeat)
    ]
    assert needs["estimate"].item() == pytest.approx(np.mean(kept))
    spared = rows(table, kind="difference", arm="moco_v2", baseline="scratch", fraction=0.1)
    assert spared["repeats"].item() == 3
    assert rows(table, kind="curve_area", arm="spark")["repeats"].item() == 2
    assert [(cell.arm, cell.reason) for cell in results.left_out] == [
        ("spark", "the loss was not finite")
    ]


def test_an_arm_without_a_fraction_has_no_area_and_is_not_reweighted(tmp_path, fake_study):
    gone = {("spark", 0.25, repeat) for repeat in range(3)}
    table = judge(fake_study(without=gone).write(tmp_path / "s")).table
    area = rows(table, kind="curve_area", level="slice", metric="auc", arm="spark")
    assert area["estimate"].item() is None
    assert area["reason"].item() == "no repeat is complete"


def test_too_few_patients_give_the_value_and_the_reason_but_no_interval(tmp_path, fake_study):
    table = judge(fake_study(patients=6).write(tmp_path / "s")).table
    found = rows(table, metric="auc", kind="difference")
    assert found["estimate"].null_count() == 0
    assert found["low"].null_count() == found["p"].null_count() == len(found)
    assert found["reason"].str.starts_with("not enough patients: ").all()


def test_one_repeat_says_what_it_does_not_measure(tmp_path, fake_study):
    table = judge(fake_study(repeats=1).write(tmp_path / "s")).table
    found = rows(table, metric="auc", kind="difference", level="slice")
    assert found["flag"].str.contains("training variation not measured").all()
    assert found["low"].null_count() == 0


def test_a_study_of_one_fraction_is_judged_by_its_level_alone(tmp_path, fake_study):
    found = judge(fake_study(fractions=(0.1,)).write(tmp_path / "s"))
    assert set(found.table["kind"]) == {"level", "difference"}
    assert [verdict.kind for verdict in found.verdicts] == ["better"]


def test_nothing_drops_from_the_largest_fraction(tmp_path, fake_study):
    folder = fake_study(primary={"fraction": 1.0}).write(tmp_path / "s")
    assert [verdict.kind for verdict in judge(folder).verdicts] == ["better"]


def test_a_task_of_series_is_judged_by_series(tmp_path, fake_study, plain):
    folder = fake_study(primary={"level": "series"}).write(tmp_path / "s")
    facts = json.loads((folder / "study.json").read_text())
    facts["tasks"]["bleed"]["level"] = "series"
    (folder / "study.json").write_text(json.dumps(facts))
    found, (_, by_slice) = judge(folder), plain
    named = pl.col("level").replace({"slice": "series"})  # the numbers are of the same rows
    assert found.table.equals(by_slice.table.with_columns(named))
    assert [one.verdict for one in found.verdicts] == [one.verdict for one in by_slice.verdicts]


def test_a_task_of_patients_has_no_numbers_by_slice(tmp_path, fake_study):
    study = fake_study(slices=(1, 2), primary={"level": "patient"})
    by_both = judge(study.write(tmp_path / "slices"))
    folder = study.write(tmp_path / "patients")
    facts = json.loads((folder / "study.json").read_text())
    facts["tasks"]["bleed"]["level"] = "patient"
    (folder / "study.json").write_text(json.dumps(facts))
    found = judge(folder)
    assert set(found.table["level"]) == {"patient"}
    by_patient = by_both.table.filter(pl.col("level") == "patient")
    keys = ["kind", "metric", "arm", "baseline", "fraction"]
    for number in ("estimate", "low", "high"):
        theirs, ours = (one.sort(keys)[number] for one in (by_patient, found.table))
        np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), rtol=1e-9)
    assert [one.verdict for one in found.verdicts] == [one.verdict for one in by_both.verdicts]


def test_a_perfect_arm_gets_the_rule_of_three_and_never_an_interval_of_ones(tmp_path, fake_study):
    skill = {("spark", fraction): 100.0 for fraction in (1.0, 0.25, 0.1)}
    table = judge(fake_study(skill=skill).write(tmp_path / "s")).table
    row = rows(table, kind="level", level="slice", metric="auc", arm="spark", fraction=1.0)
    assert row["estimate"].item() == 1.0
    assert row["low"].item() is None
    assert "rule of three" in row["reason"].item()


def test_identical_arms_have_p_one(tmp_path, fake_study):
    folder = fake_study(
        arms=("scratch", "twin"),
        fractions=(1.0,),
        primary={"family": [], "hypotheses": [["twin", "scratch"]]},
    ).write(tmp_path / "s")
    for (path, facts), (other, _) in zip(
        [cell for cell in cells_of(folder) if cell[1]["arm"] == "scratch"],
        [cell for cell in cells_of(folder) if cell[1]["arm"] == "twin"],
        strict=True,
    ):
        copy = json.loads((other / "cell.json").read_text()) | {"repeat": facts["repeat"]}
        (other / "cell.json").write_text(json.dumps(copy))
        (other / "scores.parquet").write_bytes((path / "scores.parquet").read_bytes())
    row = rows(judge(folder).table, kind="difference", level="slice", metric="auc", fraction=1.0)
    assert (row["estimate"].item(), row["p"].item(), row["low"].item()) == (0.0, 1.0, None)
    assert row["reason"].item().startswith("identical")


def test_other_test_images_or_scores_that_are_not_finite_are_left_out(tmp_path, fake_study):
    folder = fake_study().write(tmp_path / "s")
    paths = [path for path, _ in cells_of(folder)]
    table = pl.read_parquet(paths[0] / "scores.parquet")
    table.with_columns(logit_0=pl.lit(np.nan, pl.Float32)).write_parquet(
        paths[0] / "scores.parquet"
    )
    table = pl.read_parquet(paths[1] / "scores.parquet")
    table.slice(0, len(table) - 1).write_parquet(paths[1] / "scores.parquet")
    table = pl.read_parquet(paths[2] / "scores.parquet")
    table.with_columns(logit_2=pl.col("logit_0")).write_parquet(paths[2] / "scores.parquet")
    (paths[3] / "cell.json").write_text("{")
    judge(folder)
    reasons = [cell["reason"] for cell in json.loads((folder / "left_out.json").read_text())]
    other = "its test images or classes are not those of the other cells of this task and fold"
    broken = f"{paths[3].name}/cell.json is broken"
    assert reasons == ["a score is not finite", broken, other, other]


def test_the_order_of_files_and_rows_changes_nothing(tmp_path, fake_study):
    folder = fake_study().write(tmp_path / "s")
    before = judge(folder).table
    for path, _ in cells_of(folder):
        table = pl.read_parquet(path / "scores.parquet")
        table.sample(fraction=1.0, shuffle=True, seed=3).write_parquet(path / "scores.parquet")
    assert judge(folder).table.equals(before)


def test_folds_are_ranked_within_and_judged_together(tmp_path, fake_study):
    folder = fake_study(folds=3, repeats=3).write(tmp_path / "s")
    row = rows(
        judge(folder).table, kind="level", level="slice", metric="auc", arm="spark", fraction=1.0
    )
    parts, weights = [], []
    for fold in range(3):
        for cell in scores_of(folder, arm="spark", fraction=1.0, fold=fold):
            parts.append(roc_auc_score(cell["label"], cell["logit_1"] - cell["logit_0"]))
            weights.append(cell["label"].sum() * (1 - cell["label"]).sum())
    assert row["estimate"].item() == pytest.approx(np.average(parts, weights=weights))
    assert (row["folds"].item(), row["n_patients"].item()) == (3, 24)


def test_drops_are_spared_what_folds_do_to_differences(tmp_path, fake_study):
    folder = fake_study(folds=3, fractions=(1.0, 0.1)).write(tmp_path / "s")
    facts = read_facts(folder)
    known = declared(facts)
    (board,) = boards(read_cells(folder, facts, known)[0], known)
    measured = measure(metrics.auc, board)
    table = rows(judge(folder).table, level="slice", metric="auc", arm="spark", baseline="scratch")
    for kind, folds in (("difference", 3), ("drop_difference", 1), ("curve_area_difference", 3)):
        question = next(
            one
            for one in questions(board.arms, board.fractions)
            if (one.kind, one.arm, one.baseline) == (kind, "spark", "scratch")
        )
        weights = question.weights[None]
        expected = contrast(
            np.tensordot(weights, measured.value, 2),
            np.tensordot(weights, measured.without, 2),
            patient_df(measured, weights),
            folds=folds,
        )
        row = rows(table, kind=kind)[0]
        assert (row["low"].item(), row["high"].item()) == pytest.approx(
            (expected.low.item(), expected.high.item())
        )


def test_few_repeats_of_folds_give_intervals_of_arms_but_none_of_differences(tmp_path, fake_study):
    folder = fake_study(arms=("scratch", "spark"), folds=2, repeats=2).write(tmp_path / "s")
    table = rows(judge(folder).table, metric="auc", level="slice")
    found = rows(table, kind="difference")
    assert rows(table, kind="level")["low"].null_count() == 0
    assert found["low"].null_count() == found["p"].null_count() == len(found)
    assert found["reason"].str.starts_with("not enough repeats: 2 of a cross-validation").all()


def test_a_fold_that_is_missing_leaves_no_complete_repeat(tmp_path, fake_study):
    folder = fake_study(folds=3, repeats=1).write(tmp_path / "s")
    for path, facts in cells_of(folder):
        if facts["fold"] == 2:
            (path / "cell.json").write_text(json.dumps(facts | {"status": "failed"}))
    results = judge(folder)
    assert results.table["estimate"].null_count() == len(results.table)
    assert {cell.status for cell in results.left_out} == {"failed"}


def test_unfinished_training_is_judged_and_flagged_wherever_it_counts(tmp_path, fake_study):
    folder = fake_study().write(tmp_path / "s")
    for path, facts in cells_of(folder):
        if (facts["arm"], facts["fraction"]) == ("spark", 0.25):
            (path / "cell.json").write_text(json.dumps(facts | {"status": "unfinished"}))
    results = judge(folder)
    flagged = results.table.filter(pl.col("flag").str.contains("3 cells with unfinished training"))
    assert not results.left_out
    assert set(flagged["fraction"].drop_nulls()) == {0.25}
    assert "curve_area_difference" in set(flagged["kind"])
    assert rows(flagged, kind="level")["arm"].unique().to_list() == ["spark"]


def test_a_patient_in_two_folds_is_refused(tmp_path, fake_study):
    folder = fake_study(folds=2).write(tmp_path / "s")
    for path, facts in cells_of(folder):
        if facts["fold"] == 1:
            table = pl.read_parquet(path / "scores.parquet")
            table.with_columns(patient=pl.lit("p000")).write_parquet(path / "scores.parquet")
    with pytest.raises(LeakError, match="a patient is tested in two folds"):
        judge(folder)


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no study\.json"):
        judge(tmp_path)


def test_three_classes_are_judged_by_the_macro_auc(tmp_path, fake_study):
    folder = fake_study(classes=3).write(tmp_path / "s")
    row = rows(
        judge(folder).table, kind="level", level="slice", metric="auc", arm="spark", fraction=1.0
    )

    def shares(cell):
        logits = np.exp(cell.select("logit_0", "logit_1", "logit_2").to_numpy().astype(float))
        return logits / logits.sum(-1, keepdims=True)

    expected = [
        roc_auc_score(cell["label"], shares(cell), multi_class="ovr")
        for cell in scores_of(folder, arm="spark", fraction=1.0)
    ]
    assert row["estimate"].item() == pytest.approx(np.mean(expected), abs=1e-9)
    assert row["low"].item() < row["estimate"].item() < row["high"].item()


def test_what_was_written_is_what_was_returned(plain):
    folder, results = plain
    assert pl.read_parquet(folder / "results.parquet").equals(results.table)
    written = json.loads((folder / "verdicts.json").read_text())
    assert [one["verdict"] for one in written] == [one.verdict for one in results.verdicts]


def test_labels_saved_is_where_scratch_reaches_the_arm(tmp_path, fake_study):
    skill = {("spark", fraction): 0.6 for fraction in (1.0, 0.25, 0.1)}
    skill |= {("scratch", 1.0): 1.2, ("scratch", 0.25): 0.6, ("scratch", 0.1): 0.1}
    folder = fake_study(patients=60, skill=skill).write(tmp_path / "s")
    saved = rows(judge(folder).table, kind="labels_saved", level="slice", arm="spark", fraction=0.1)
    assert saved["baseline"].item() == "scratch"
    assert saved["low"].item() < saved["estimate"].item() < saved["high"].item()
    assert 0.15 < saved["estimate"].item() < 0.5


@pytest.mark.parametrize("lost", ["results.parquet", "verdicts.json", "left_out.json"])
def test_a_study_that_lost_a_result_is_not_judged(tmp_path, fake_study, lost):
    folder = fake_study(arms=("scratch", "spark"), fractions=(1.0,)).write(tmp_path / "s")
    judge(folder)
    assert is_judged(folder)
    (folder / lost).unlink()
    assert not is_judged(folder)


def test_a_study_judged_by_another_rule_is_not_judged(tmp_path, fake_study, monkeypatch):
    folder = fake_study(arms=("scratch", "spark"), fractions=(1.0,)).write(tmp_path / "s")
    judge(folder)
    monkeypatch.setattr(results, "RULE", results.RULE + 1)
    assert not is_judged(folder)


def test_a_study_whose_scores_changed_under_the_same_facts_is_not_judged(tmp_path, fake_study):
    folder = fake_study(arms=("scratch", "spark"), fractions=(1.0,)).write(tmp_path / "s")
    judge(folder)
    path = next(folder.glob("cells/*/scores.parquet"))
    scores = pl.read_parquet(path)
    scores.with_columns(logit_0="logit_1", logit_1="logit_0").write_parquet(path)
    assert not is_judged(folder)

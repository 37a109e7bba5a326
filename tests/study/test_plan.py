import numpy as np
import polars as pl
import pytest

from hounsfield.data.store_writer import write_store
from hounsfield.errors import ConfigError, LabelError, LeakError
from hounsfield.study import pretraining
from hounsfield.study.config import load_study
from hounsfield.study.plan import plan
from hounsfield.study.task import TaskConfig, load

SPARK = {
    "spark": {
        "budget": {"steps": 2},
        "batch_size": 4,
        "image_size": 64,
        "options": {"decoder_width": 32},
    }
}


def hashes(planned, **wanted):
    return {
        cell.hash
        for cell in planned.cells
        if all(getattr(cell, name) == value for name, value in wanted.items())
    }


def test_every_arm_learns_from_the_same_labels_in_the_same_order(study):
    planned = plan(study(arms=["scratch", "spark"], pretrain=SPARK))
    assert len(planned.cells) == 2 * 2 * 2
    twins = {}
    for cell in planned.cells:
        twins.setdefault((cell.fraction, cell.repeat), []).append(cell)
    for one, two in twins.values():
        assert (one.rung, one.test, one.seed) == (two.rung, two.test, two.seed)
        assert one.hash != two.hash


def test_a_changed_setting_renames_only_the_cells_that_it_touches(study):
    before = plan(study(arms=["scratch", "spark"], pretrain=SPARK))
    other_spark = {"spark": {**SPARK["spark"], "budget": {"steps": 3}}}
    after = plan(study(arms=["scratch", "spark"], pretrain=other_spark))
    assert hashes(before, arm="scratch") == hashes(after, arm="scratch")
    assert not hashes(before, arm="spark") & hashes(after, arm="spark")

    wider = plan(study(fractions=[1.0, 0.5, 0.3], repeats=3))
    assert hashes(before, arm="scratch") < hashes(wider, arm="scratch")

    kinder = {"steps": 20, "batch": 8, "lr": 0.01, "layer_decay": 0.5}
    decayed = plan(study(arms=["scratch", "spark"], pretrain=SPARK, budget=kinder))
    assert hashes(before, arm="scratch") == hashes(decayed, arm="scratch")
    assert not hashes(before, arm="spark") & hashes(decayed, arm="spark")

    seldom = {"spark": {**SPARK["spark"], "loop": {"tensorboard": False, "checkpoint_every": 7}}}
    free = plan(study(arms=["scratch", "spark"], pretrain=seldom))
    assert free.pretrainings.keys() == before.pretrainings.keys()
    assert hashes(free) == hashes(before)

    some = {"spark": {**SPARK["spark"], "drop_path": 0.1}}
    assert not hashes(before, arm="spark") & hashes(
        plan(study(arms=["scratch", "spark"], pretrain=some)), arm="spark"
    )

    longer = plan(study(budget={"steps": 21, "batch": 8, "lr": 0.01}))
    assert not hashes(before) & hashes(longer)


def test_a_setting_that_came_later_is_in_the_name_only_of_pretrainings_that_use_it(
    study, monkeypatch
):
    named = []
    monkeypatch.setattr(pretraining, "hash_of", lambda facts: named.append(facts[1]) or "name")
    for drop_path in (0.0, 0.1):
        spark = {"spark": {**SPARK["spark"], "drop_path": drop_path}}
        plan(study(arms=["scratch", "spark"], pretrain=spark))
    before, after = named[0], named[-1]
    assert "drop_path" not in before
    assert after == {**before, "drop_path": 0.1}


@pytest.mark.parametrize("keep_out", ["val_and_test", "test"])
def test_no_pretraining_sees_a_patient_that_judges_or_unless_allowed_one_that_chooses(
    study, keep_out
):
    config = study(arms=["scratch", "spark"], pretrain=SPARK, folds=4, keep_out=keep_out)
    planned = plan(config)
    assert len(planned.pretrainings) == 4
    for cell in planned.cells:
        if cell.pretraining:
            unseen = set(planned.pretrainings[cell.pretraining].without)
            split = planned.splits[cell.task, cell.fold]
            assert split.val
            chooses = split.val if keep_out == "val_and_test" else ()
            assert unseen == {*split.test, *chooses}


def test_pretraining_without_any_labelled_patient_serves_all_folds(study, store, tmp_path):
    images = np.zeros((4, 32, 32), np.int16)
    index = pl.DataFrame({"patient": list("abcd"), "series": list("abcd")})
    more = write_store(tmp_path / "more", images, index).path
    stores = {"ct": str(store), "more": str(more)}
    planned = plan(
        study(arms=["spark"], pretrain=SPARK, folds=4, keep_out="labelled", stores=stores)
    )
    (run,) = planned.pretrainings.values()
    assert len(run.without) == 20


def test_repeats_may_have_a_pretraining_each(study):
    own = study(arms=["scratch", "spark"], pretrain=SPARK, pretrain_seeds="per_repeat")
    planned = plan(own)
    assert len(planned.pretrainings) == 2
    assert not any("share one checkpoint" in warning for warning in planned.warnings)
    shared = plan(study(arms=["scratch", "spark"], pretrain=SPARK))
    assert any("share one checkpoint" in warning for warning in shared.warnings)


@pytest.mark.parametrize(("seeds", "built"), [("shared", 1), ("per_repeat", 3)])
def test_a_plan_builds_the_networks_of_a_pretraining_once_for_all_folds(
    study, monkeypatch, seeds, built
):
    build, asked = pretraining.build, []
    monkeypatch.setattr(
        pretraining, "build", lambda config, **k: asked.append(config) or build(config, **k)
    )
    planned = plan(study(arms=["spark"], pretrain=SPARK, folds=4, repeats=3, pretrain_seeds=seeds))
    assert len(asked) == built
    assert len(planned.pretrainings) == 4 * built


@pytest.mark.parametrize(("folds", "repeats", "told"), [(4, 2, True), (4, 3, False), (0, 2, False)])
def test_too_few_repeats_of_a_cross_validation_are_told_before_they_run(
    study, folds, repeats, told
):
    planned = plan(study(folds=folds, repeats=repeats))
    hints = [one for one in planned.warnings if "no interval of a difference" in one]
    assert len(hints) == told


def test_folds_judge_every_patient_once_in_every_repeat(study):
    planned = plan(study(folds=5))
    for repeat in range(2):
        tested = [
            patient
            for cell in planned.cells
            if cell.repeat == repeat and cell.fraction == 1.0
            for patient in cell.test
        ]
        assert sorted(tested) == sorted(f"p{number:02d}" for number in range(20))


def test_a_filter_keeps_the_images_that_pass_it(study):
    task = {"store": "ct", "label": "lesion", "where": {"share": {"min": 0.2, "max": 0.6}}}
    planned = plan(study(tasks={"lesion": task}))
    kept = planned.tasks["lesion"].images
    assert (kept["slice"] % 6).unique().sort().to_list() == [2, 3]
    some = ["p00", "p01", "p03", "p08"]
    tasks = {"lesion": {**task, "where": {"patient": some}}}
    named = plan(study(tasks=tasks, fractions=[1.0], val_share=0))
    assert sorted(named.tasks["lesion"].images["patient"].unique()) == some


def test_a_task_by_patient_judges_patients(study):
    planned = plan(study(tasks={"kind": {"store": "ct", "label": "kind", "level": "patient"}}))
    task = planned.tasks["kind"]
    assert task.classes == ("sick", "well")
    assert task.images["unit"].n_unique() == 20


def test_an_external_store_judges_instead_of_the_own_test_patients(study, store, tmp_path):
    images = np.zeros((6, 32, 32), np.int16)
    index = pl.DataFrame(
        {"patient": list("aabbcc"), "series": list("aabbcc"), "lesion": [0, 1, 0, 0, 1, 0]}
    )
    outside = write_store(tmp_path / "outside", images, index).path
    planned = plan(
        study(
            stores={"ct": str(store), "away": str(outside)},
            tasks={"lesion": {"store": "ct", "label": "lesion", "external": "away"}},
        )
    )
    assert {cell.test for cell in planned.cells} == {("a", "b", "c")}
    trained = {patient for cell in planned.cells for patient in cell.rung.train}
    assert not trained & {"p03", "p04", "p08", "p09"}  # the own test patients take no part


def test_patients_whose_series_bear_one_name_are_judged_apart(tmp_path):
    index = {
        "patient": list("aaabb"),
        "series": ["1.2.3"] * 5,
        "z": [0, 1, 2, 0, 1],
        "z_mm": [0.0, 5.0, 10.0, 0.0, 5.0],
        "lesion": [1, 1, 1, 0, 0],
    }
    write_store(tmp_path / "s", np.zeros((5, 8, 8), np.int16), pl.DataFrame(index))
    config = TaskConfig(store="s", label="lesion", level="series")
    images = load("lesion", config, {"s": tmp_path / "s"}).images
    assert images["unit"].to_list() == [1, 1, 1, 2, 2]
    assert images["rank"].to_list() == [0, 0.5, 1, 0, 1]


def test_controls_alone_raise_no_question_and_no_budget_touches_them(study):
    one = plan(study(arms=["scratch", "histogram"]))
    two = plan(study(arms=["scratch", "histogram"], budget={"steps": 9, "batch": 8, "lr": 0.1}))
    assert one.primary is None
    assert hashes(one, arm="histogram") == hashes(two, arm="histogram")
    assert not hashes(one, arm="scratch") & hashes(two, arm="scratch")


@pytest.mark.parametrize(
    ("task", "told"),
    [({"label": "kind"}, True), ({"label": "kind", "level": "patient"}, False), ({}, False)],
)
def test_a_task_of_patients_labels_that_is_judged_by_slice_is_told(study, task, told):
    planned = plan(study(tasks={"x": {"store": "ct", "label": "lesion", **task}}))
    hints = [one for one in planned.warnings if "all slices of each patient bear one label" in one]
    assert len(hints) == told


@pytest.mark.parametrize(
    ("task", "level"),
    [({}, "slice"), ({"level": "series"}, "series"), ({"level": "patient"}, "patient")],
)
@pytest.mark.parametrize("said", [{}, {"level": "patient"}])
def test_the_question_is_asked_as_its_task_is_judged(study, task, level, said):
    tasks = {"kind": {"store": "ct", "label": "kind", **task}}
    primary = {"arm": "histogram", "baseline": "scratch", **said}
    asked = study(tasks=tasks, arms=["scratch", "histogram"], primary=primary)
    assert plan(asked).primary.level == said.get("level", level)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"folds": 11, "tasks": {"x": {"store": "ct", "label": "kind"}}},
            LabelError,
            "^task 'x': class 'sick' has 10 patients, and 11 folds need one each. Set `folds` to "
            "10, or use a fixed split.$",
        ),
        ({"image_size": 40}, ConfigError, r"40 is not a multiple of 32, .* Use 32 or 64\."),
        ({"backbone": "resnet10_tin"}, ConfigError, "Did you mean 'resnet10_tiny'"),
        (
            {"arms": ["theirs"], "predictions": {"theirs": "/none.csv"}},
            LabelError,
            r"^there is no file of scores at /none\.csv\. Give a CSV\.$",
        ),
        ({"fractions": [1.0, 0.03]}, LabelError, "fraction 0.03 is 0 of 13 training patients"),
        ({"tasks": {"x": {"store": "mr", "label": "lesion"}}}, ConfigError, "unknown store 'mr'"),
        ({"tasks": {"x": {"store": "ct", "label": "leson"}}}, ConfigError, "mean 'lesion'"),
        (
            {"tasks": {"x": {"store": "ct", "label": "kind", "where": {"kind": "sick"}}}},
            LabelError,
            "^task 'x': label 'kind' has 1 distinct value among the images that take part; a task "
            "has 2 to 100 classes. Widen `where`, or take another label.$",
        ),
        (
            {"tasks": {"x": {"store": "ct", "label": "lesion", "level": "patient"}}},
            LabelError,
            "10 patients with more than one value of 'lesion'",
        ),
        (
            {"tasks": {"x": {"store": "ct", "label": "lesion", "where": {"shar": 1}}}},
            ConfigError,
            "unknown column 'shar'. Did you mean 'share'",
        ),
        (
            {"tasks": {"x": {"store": "ct", "label": "lesion", "where": {"share": {"mn": 2}}}}},
            ConfigError,
            r"unknown key 'mn' in tasks\.x\.where\.share\. Did you mean 'min'\? Allowed: max, min",
        ),
        (
            {"tasks": {"x": {"store": "ct", "label": "lesion", "where": {"share": {"min": 2}}}}},
            LabelError,
            "no image .* passes `where`",
        ),
        (
            {"tasks": {"x": {"store": "ct", "label": "lesion", "window": "brian"}}},
            ConfigError,
            "task 'x': unknown window 'brian'. Did you mean 'brain'",
        ),
        (
            {"tasks": {"x": {"store": "ct", "label": "share", "pool": "max_odds"}}},
            ConfigError,
            "'max_odds' takes the highest odds of the second of two classes, and 'share' has 6",
        ),
        (
            {"arms": ["spark"], "pretrain": {"spark": {"stps": 1}}},
            ConfigError,
            r"^pretrain\.spark: unknown key 'stps'\. Did you mean 'stores' or 'settings'\? "
            r"Allowed: backbone, batch_size, .*, init, loop, method, ",  # and no leave_out
        ),
        (
            {"arms": ["spark"], "pretrain": {"spark": {}}},
            ConfigError,
            r"pretrain\.spark: .* 0 of .* 1 patches",
        ),
        (
            {"arms": ["x"], "pretrain": {"x": {"method": "sparc"}}},
            ConfigError,
            "unknown method 'sparc'. Did you mean 'spark'",
        ),
        (
            {"arms": ["spark"], "pretrain": {"spark": {"backbone": "resnet18"}}},
            ConfigError,
            "backbone 'resnet18' is not the study's, 'resnet10_tiny'",
        ),
        (
            {"arms": ["spark"], "pretrain": {"spark": {"leave_out": ["test"]}}},
            ConfigError,
            r"leave_out = \['test'\] has no say .* keep_out \(val_and_test\)",
        ),
        (
            {"backbone": "vit_tiny_patch16_224"},
            ConfigError,
            r"images of 32 px do not go through vit_tiny_patch16_224: .* made for 224 px",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(study, changes, error, message):
    with pytest.raises(error, match=message):
        plan(study(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arms": ["sparc"]},
            "^test: unknown arm 'sparc'. Allowed: histogram, imagenet, position, scratch. Another "
            r"needs a table \[pretrain.NAME\], or a line in \[weights\] or \[predictions\].$",
        ),
        ({"arms": ["scratch", "scratch"]}, "a name stands twice"),
        ({"fractions": [0.0, 1.0]}, "fractions lie above 0"),
        ({"folds": 1}, "one fold judges nobody"),
        ({"primary": {"arm": "spark"}}, "unknown arm 'spark'"),
        ({"primary": {"arm": "scratch", "fraction": 0.7}}, "0.7 is not one of"),
        (
            {"primary": {"arm": "scratch", "level": "series"}},
            "primary.level 'series' is not how task 'lesion' is judged: by slice or by patient",
        ),
        (
            {
                "arms": ["scratch", "histogram"],
                "fractions": [0.5],
                "primary": {"arm": "histogram", "hypotheses": [["histogram", "scratch"]]},
            },
            "primary.hypotheses are about what is lost with fewer labels, and primary.fraction 0.5 "
            "is the largest of the study. Set a smaller one, or leave them out",
        ),
        ({"pretrain": {"scratch": {}}}, "name two things"),
        ({"tasks": {"a/b": {"store": "ct", "label": "lesion"}}}, "'a/b' is no name"),
        ({"protocols": ["fare"]}, "'fair', 'paper', 'linear' or 'knn'"),
        ({"repeat": 3}, "unknown key 'repeat'. Did you mean 'repeats'"),
    ],
)
def test_a_study_file_that_says_what_is_not_allowed_is_refused(study, changes, message):
    with pytest.raises(ConfigError, match=message):
        study(**changes)


def written(path, **columns):
    """A store of a row a patient: four of train and two of test, for these label columns."""
    names = [f"p{number}" for number in range(6)]
    split = ["train"] * 4 + ["test"] * 2
    table = pl.DataFrame({"patient": names, "series": names, "split": split, **columns})
    return str(write_store(path, np.zeros((6, 32, 32), np.int16), table).path)


def test_values_that_a_reader_takes_for_one_class_are_refused(study, tmp_path):
    path = written(tmp_path / "s", bleed=["yes", "No", "no", "yes", "no ", "yes"])
    with pytest.raises(
        LabelError,
        match=r"^task 'x': label 'bleed' has the values 'No' and 'no' and 'no ', which differ by "
        r"capitals or spaces alone\. Ingest labels with one spelling of each class\.$",
    ):
        plan(study(stores={"ct": path}, tasks={"x": {"store": "ct", "label": "bleed"}}))


@pytest.mark.parametrize(
    ("bleed", "part", "role"), [([0, 0, 0, 0, 0, 1], "train", "learnt from"),
                                ([0, 1, 0, 1, 0, 0], "test", "judged")]
)  # fmt: skip
def test_a_class_that_a_part_lacks_is_named(study, tmp_path, bleed, part, role):
    path = written(tmp_path / "s", bleed=bleed)
    with pytest.raises(
        LabelError,
        match=rf"^task 'x': no {part} patient carries class '1'; every class must be {role}. Move "
        f"patients to {part}, or set `folds`.$",
    ):
        plan(study(stores={"ct": path}, tasks={"x": {"store": "ct", "label": "bleed"}}))


def test_a_patient_in_both_train_and_test_is_refused(study, tmp_path):
    images = np.zeros((4, 32, 32), np.int16)
    index = pl.DataFrame(
        {
            "patient": list("abca"),
            "series": list("abca"),
            "split": ["train", "train", "test", "test"],
            "lesion": [0, 1, 0, 1],
        }
    )
    torn = write_store(tmp_path / "torn", images, index).path
    with pytest.raises(LeakError, match="1 patient in both train and test: a"):
        plan(study(stores={"ct": str(torn)}, val_share=0))


def test_paths_are_taken_from_the_study_files_own_folder(store, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        f'arms = ["scratch"]\nbackbone = "resnet10_tiny"\nimage_size = 32\n'
        f'[stores]\nct = "../{store.name}"\n[tasks.lesion]\nstore = "ct"\nlabel = "lesion"\n'
    )
    config = load_study(file)
    assert config.name == "mine"
    assert config.stores["ct"] == str(tmp_path / f"../{store.name}")

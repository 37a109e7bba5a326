import copy
import json
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from hounsfield.array_file import kept
from hounsfield.augment.views import recipe
from hounsfield.data.split import Split, strata
from hounsfield.errors import ConfigError, InputError
from hounsfield.models.backbone import create
from hounsfield.seeding import seed_of
from hounsfield.study import frozen, worker
from hounsfield.study.config import Paper
from hounsfield.study.controls import BINS
from hounsfield.study.features import drop_others, place, size_bytes
from hounsfield.study.images import read
from hounsfield.study.paper import Epochs, Falling, _Thawing, paper
from hounsfield.study.plan import plan
from hounsfield.study.scores import macro_auc
from hounsfield.study.trained import Labels, labels_of
from hounsfield.study.worker import Worker
from hounsfield.train.device import fabric


def run_all(planned, folder):
    one = Worker(planned, folder)
    return [(cell, one.run(cell)) for cell in planned.cells]


def scores_of_test(folder, cell):
    table = pl.read_parquet(folder / "cells" / cell.hash / "scores.parquet").filter(split="test")
    return table["label"].to_numpy(), table.select("^logit_.*$").to_numpy().astype(np.float64)


def clouds(seed=0, n=90, classes=3):
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, classes, size=n)
    points = chance.normal(size=(n, 6)) + 1.5 * np.eye(6)[truth]
    third = n // 3
    places = np.arange(n)
    labels = Labels(
        train=places[:third],
        val=places[third : 2 * third],
        test=places[2 * third :],
        val_score=lambda logits: (
            macro_auc(logits.astype(np.float64), truth[third : 2 * third]),
            0.0,
        ),
        enough=True,
        some=True,
    )
    return points.astype(np.float32), truth, labels


def test_the_linear_protocol_is_the_best_of_scikit_learns_regressions():
    points, truth, labels = clouds()
    scaled = StandardScaler().fit(points[labels.train]).transform(points).astype(np.float64)
    fitted = [
        LogisticRegression(C=c, class_weight="balanced", max_iter=2000).fit(
            scaled[labels.train], truth[labels.train]
        )
        for c in frozen.PENALTIES
    ]
    best = max(fitted, key=lambda m: macro_auc(m.decision_function(scaled[labels.val]),
                                         truth[labels.val]))  # fmt: skip
    got = frozen.linear(points, truth, labels, classes=3)
    np.testing.assert_allclose(got.test, best.decision_function(scaled[labels.test]), rtol=1e-5)
    assert got.facts["trials"] == len(frozen.PENALTIES)


def test_the_knn_protocol_votes_as_scikit_learn_does_with_the_same_weights():
    points, truth, labels = clouds(classes=2)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)

    def weight(distances):
        return np.exp((1 - distances) / frozen.TEMPERATURE)

    oracle = KNeighborsClassifier(frozen.NEIGHBOURS, metric="cosine", weights=weight)
    oracle.fit(unit[labels.train], truth[labels.train])
    expected = oracle.predict_proba(unit[labels.test])
    got = np.exp(frozen.knn(points, truth, labels, classes=2).test.astype(np.float64))
    share = np.bincount(truth[labels.train]) / len(labels.train)
    np.testing.assert_allclose(got * share, expected + frozen.NO_VOTE, rtol=1e-4)


def test_features_are_computed_once_for_all_fractions(study, tmp_path, monkeypatch):
    weights = tmp_path / "start.pt"
    torch.save(create("resnet10_tiny", seed=3).net.state_dict(), weights)
    planned = plan(study(arms=["mine"], weights={"mine": str(weights)}, fractions=[1.0, 0.5, 0.3],
                         protocols=["linear", "knn"]))  # fmt: skip
    calls = []
    embed = worker.embed
    monkeypatch.setattr(worker, "embed", lambda *a, **k: calls.append(1) or embed(*a, **k))
    for half in (planned.cells[::2], planned.cells[1::2]):  # as two processes would
        one = Worker(planned, tmp_path)
        assert {one.run(cell).status for cell in half} == {"done"}
    assert len(calls) == 1


def test_features_that_no_cell_needs_are_dropped_and_all_others_counted(study, tmp_path):
    planned = plan(study(arms=["scratch", "histogram"], protocols=["linear"], repeats=2))
    images = len(planned.tasks["lesion"].images)
    length = create("resnet10_tiny").embed_dim
    assert size_bytes(planned, tmp_path) == 4 * images * (2 * length + BINS)  # chance, twice
    mine = place(next(cell for cell in planned.cells if cell.arm == "histogram"), tmp_path)
    other = mine.with_name("of_an_older_plan.npz")
    for path in (mine, other):
        kept(path, lambda: np.zeros((images, BINS), dtype=np.float32))
    drop_others(planned, tmp_path)
    assert mine.exists()
    assert not other.exists()
    assert size_bytes(planned, tmp_path) == 4 * images * 2 * length


def test_damaged_features_are_computed_anew(tmp_path):
    path = tmp_path / "features" / "a.npz"
    truth = np.arange(6, dtype=np.float32).reshape(3, 2)
    kept(path, lambda: truth)
    assert (kept(path, lambda: None) == truth).all()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(truth.tobytes(), (truth + 1).tobytes()))
    assert (kept(path, lambda: truth) == truth).all()
    assert path.read_bytes() == whole


def test_controls_find_the_shortcut_and_only_theirs(study, tmp_path):
    planned = plan(study(arms=["histogram", "position", "scratch"], fractions=[1.0], repeats=1,
                         budget={"steps": 5, "batch": 4, "lr": 1e-3}))  # fmt: skip
    assert not any(cell.arm == "position" for cell in planned.cells)
    assert any("place in their volume is not known" in warning for warning in planned.warnings)
    ended = run_all(planned, tmp_path)
    (cell,) = (cell for cell, _ in ended if cell.arm == "histogram")
    labels, logits = scores_of_test(tmp_path, cell)
    assert macro_auc(logits, labels) > 0.99  # a lesion is bright


def test_position_knows_where_a_slice_lies(study, tmp_path):
    from tests.study.conftest import make_store

    store = make_store(tmp_path / "ordered", z_mm=True)
    planned = plan(study(stores={"ct": str(store.path)}, arms=["position"], fractions=[1.0],
                         repeats=1))  # fmt: skip
    ((cell, _),) = run_all(planned, tmp_path)
    labels, logits = scores_of_test(tmp_path, cell)
    # lesions lie in the lower half of even patients, and position cannot tell the patients apart
    ranks = np.tile(np.arange(6), len(labels) // 6)
    assert macro_auc(logits, (ranks < 3).astype(int)) == 1.0
    assert macro_auc(logits, labels) < 1.0


def test_the_papers_schedule_is_the_papers(study):
    falling = Falling(steps=70 * 7, late=11 / 70, factor_late=0.2)
    factors = [falling.factor(step / (70 * 7)) for step in range(70 * 7)]
    assert factors == [1.0] * (11 * 7) + [0.2] * (59 * 7)

    model = _Thawing(create("resnet10_tiny"), 2, Paper(), seed=0)
    model.before_step(69 / 490)  # the last step of epoch 9
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {
        name for name, _ in model.named_parameters() if "bn" in name or "head" in name
        or "downsample.1" in name
    }  # fmt: skip
    model.before_step(70 / 490)
    assert all(p.requires_grad for p in model.parameters())


def test_the_paper_trains_as_plain_torch_does_with_everything_in_one_adam(study):
    """Written out: freeze, thaw, one fall of the rate, L2 on all that learns, a random head."""
    task = plan(study()).tasks["lesion"]
    images, labels = read(task), labels_of(task, Split(("p00", "p01"), (), ("p02",)))
    settings = Paper(epochs=3, head_epochs=1, batch=12, lr=1e-3, lr_after=1e-4, weight_decay=0.1)
    start = partial(create, "resnet10_tiny", seed=1)
    ours = paper(start, images, labels, classes=2, size=32, settings=settings, flip=False, seed=2,
                 on=fabric("cpu"))  # fmt: skip

    plain = copy.deepcopy(_Thawing(start(), 2, settings, seed=2))  # a copy has no hooks
    assert plain.head.weight.std() > 0
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3, weight_decay=0.1)
    order = Epochs(images, labels.train, batch=12, seed=seed_of(2, "batches"))
    show = recipe("plain", size=32, window=images.window_hu)
    norms = {p for part in plain.modules() if isinstance(part, torch.nn.BatchNorm2d)
             for p in part.parameters()}  # fmt: skip
    plain.train()
    for epoch in range(3):
        for parameter in plain.backbone.parameters():
            parameter.requires_grad_(epoch >= 1 or parameter in norms)
        adam.param_groups[0]["lr"] = 1e-3 if epoch <= 1 else 1e-4
        for step in range(epoch * order.per_epoch, (epoch + 1) * order.per_epoch):
            at = torch.from_numpy(order.places(step))
            (view,) = show(images.pixels[at], images.is_hu[at], torch.Generator())
            adam.zero_grad()
            torch.nn.functional.cross_entropy(plain.logits(view), images.labels[at]).backward()
            adam.step()
    first = _Thawing(start(), 2, settings, seed=2)
    for vectors, near in ((False, 1e-3), (True, 0.1)):  # 0.8 without the penalty on vectors
        # a bias whose gradient is rounding steps either way: Adam's first steps are signs

        @torch.no_grad()
        def far(model, vectors=vectors):
            pairs = zip(model.parameters(), plain.parameters(), strict=True)
            return sum(float(((a - b) ** 2).sum()) for a, b in pairs if (a.ndim < 2) == vectors)

        assert far(ours.model) < near**2 * far(first)


def test_a_task_of_the_paper_without_flips_is_other_cells(study):
    hashes = [
        {cell.hash for cell in plan(study(protocols=["paper"], paper=told)).cells}
        for told in ({}, {"no_flip": ["lesion"]})
    ]
    assert not hashes[0] & hashes[1]
    with pytest.raises(ConfigError, match="unknown task 'lesoin'"):
        study(paper={"no_flip": ["lesoin"]})


def test_the_papers_epochs_show_every_image_once(study):
    images = read(plan(study()).tasks["lesion"])
    epochs = Epochs(images, np.arange(20, 37), batch=8, seed=1)
    assert epochs.per_epoch == 3
    drawn = [epochs.places(step) for step in range(6)]
    assert [len(batch) for batch in drawn] == [8, 8, 1] * 2
    assert (
        sorted(np.concatenate(drawn[:3])) == sorted(np.concatenate(drawn[3:])) == [*range(20, 37)]
    )
    assert not np.array_equal(drawn[0], drawn[3])


def test_the_papers_validation_does_not_shrink_and_its_steps_do(study, tmp_path):
    settings = {"epochs": 3, "head_epochs": 1, "batch": 16}
    planned = plan(study(protocols=["paper"], paper=settings, repeats=1))
    ended = run_all(planned, tmp_path)
    facts = [
        json.loads((tmp_path / "cells" / cell.hash / "cell.json").read_text()) for cell, _ in ended
    ]
    assert [one["n_val_patients"] for one in facts] == [3, 3]
    assert [one["steps"] for one in facts] == [3 * 5, 3 * 3]  # 13 and 7 patients of 6 slices
    assert all(one["status"] in ("done", "unfinished") for one in facts)


@pytest.fixture
def csv(study, tmp_path):
    task = plan(study()).tasks["lesion"]
    chance = np.random.default_rng(0)
    table = task.images.select(
        "slice", score=pl.col("label") + chance.normal(size=len(task.images))
    )
    return table, tmp_path / "theirs.csv"


def test_somebody_elses_scores_are_judged_on_the_same_images(study, tmp_path, csv):
    table, path = csv
    table.write_csv(path)
    planned = plan(study(arms=["theirs"], predictions={"theirs": str(path)}, repeats=1))
    ended = run_all(planned, tmp_path / "out")
    assert {one.status for _, one in ended} == {"done"}
    for cell, _ in ended:
        _, logits = scores_of_test(tmp_path / "out", cell)
        theirs = dict(table.iter_rows())
        slices = planned.tasks["lesion"].images[planned.tasks["lesion"].rows(cell.test).tolist()]
        expected = np.array([theirs[number] for number in slices["slice"]])
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, rtol=1e-5)


def test_somebody_elses_scores_may_be_of_one_fraction(study, tmp_path, csv):
    table, path = csv
    pl.concat(
        [
            table.with_columns(pl.lit(0.5).alias("fraction"), score=pl.col("score") * factor)
            if factor == 2 else table.with_columns(pl.lit(1.0).alias("fraction"))
            for factor in (1, 2)
        ]
    ).write_csv(path)  # fmt: skip
    planned = plan(study(arms=["theirs"], predictions={"theirs": str(path)}, repeats=1))
    ended = run_all(planned, tmp_path / "out")
    scores = {cell.fraction: scores_of_test(tmp_path / "out", cell)[1] for cell, _ in ended}
    np.testing.assert_allclose(scores[0.5], 2 * scores[1.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t.filter(pl.col("slice") > 30), r"of 24 test images of lesion have no score"),
        (lambda t: pl.concat([t, t.head(1)]), "a slice has two scores"),
        (lambda t: t.rename({"score": "logit_0"}), "give logit_0 to logit_1"),
        (lambda t: t.with_columns(score=pl.lit(float("inf"))), "Give finite numbers"),
        (lambda t: t.with_columns(task=pl.lit("lesions")), r"no score for any cell.*\(lesion\)"),
        (lambda t: t.with_columns(task=pl.lit(1)), "no score for any cell"),
        (lambda t: t.with_columns(fraction=pl.lit(0.3)), r"no score for any cell.*\(1, 0\.5\)"),
    ],
)
def test_somebody_elses_scores_that_cannot_be_judged_are_refused_beforehand(
    study, csv, spoil, reason
):
    table, path = csv
    spoil(table).write_csv(path)
    with pytest.raises(InputError, match=reason):
        plan(study(arms=["theirs"], predictions={"theirs": str(path)}))


def test_somebody_elses_scores_of_some_cells_leave_the_others_out(study, csv):
    table, path = csv
    table.with_columns(fraction=1.0).write_csv(path)
    planned = plan(study(arms=["scratch", "theirs"], predictions={"theirs": str(path)}, repeats=1))
    places = [(cell.arm, cell.fraction) for cell in planned.cells]
    assert places == [("scratch", 1.0), ("theirs", 1.0), ("scratch", 0.5)]
    assert any("'theirs' has scores for 1 of 2 cells" in said for said in planned.warnings)


def test_strata_of_the_fixture_are_what_the_tests_say(study):
    images = plan(study()).tasks["lesion"].images
    carried = strata(images["patient"].to_list(), images["label"].to_list())
    assert carried["p00"] == frozenset({0, 1})
    assert carried["p01"] == frozenset({0})

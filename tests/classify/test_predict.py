import csv
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from hounsfield.classify.finetune import Finetuned
from hounsfield.classify.heatmap import evidence
from hounsfield.classify.kept import Kept
from hounsfield.classify.predict import predict, why_not
from hounsfield.classify.scans import Scan
from hounsfield.classify.scored import keep_logits
from hounsfield.cli import app
from hounsfield.errors import OutputError, ReadError

Make = Callable[..., Path]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_scans_are_scored_by_slice_and_by_patient(
    classifier: Finetuned, scan: Make, tmp_path: Path
) -> None:
    for patient in (0, 1, 2, 3):
        scan(patient)
    out = tmp_path / "out" / "predictions.csv"
    tally = predict(classifier.folder, [tmp_path / "scans"], out, keep_ids=True)
    assert (tally.slices, tally.patients, tally.refused) == (24, 4, [])
    table = rows(out)
    slices = [row for row in table if row["level"] == "slice"]
    patients = {row["patient"]: row for row in table if row["level"] == "patient"}
    sick = [float(row["probability_1"]) for row in slices if _lesion(row)]
    well = [float(row["probability_1"]) for row in slices if not _lesion(row)]
    assert len(sick) == 6
    assert np.mean(sick) > 3 * np.mean(well)
    assert all(
        float(row["probability_0"]) + float(row["probability_1"]) == pytest.approx(1, abs=2e-6)
        for row in table
    )
    assert patients["new00"]["slices"] == "6"
    likely = {name: float(row["probability_1"]) for name, row in patients.items()}
    assert min(likely["new00"], likely["new03"]) > max(likely["new01"], likely["new02"])


def _lesion(row: dict[str, str]) -> bool:
    """As `body` in conftest.py puts them."""
    return row["patient"] in ("new00", "new03") and float(row["z_mm"]) < 15


def test_a_scan_is_scored_as_the_stored_slices_would_be(
    classifier: Finetuned, scan: Make, tmp_path: Path
) -> None:
    from hounsfield.data.ingest import ingest
    from hounsfield.data.store import Store

    folder = scan(0)
    ingest([folder], tmp_path / "store", size=32, keep_ids=True)
    store = Store.open(tmp_path / "store")
    predict(classifier.folder, [folder], tmp_path / "p.csv", keep_ids=True)
    logits = classifier.kept.logits(store.read(np.arange(6)), store.is_hu).astype(np.float64)
    table = rows(tmp_path / "p.csv")
    expected = classifier.kept.probabilities(logits, "slice")[:, 1]
    found = {row["z_mm"]: float(row["probability_1"]) for row in table[:6]}
    assert [found[str(z)] for z in store.index["z_mm"]] == pytest.approx(expected, abs=1e-5)
    pooled = classifier.kept.probabilities(logits.mean(axis=0)[None], "patient")[0, 1]
    assert float(table[6]["probability_1"]) == pytest.approx(pooled, abs=1e-5)


def test_names_of_files_stay_beside_the_key(
    classifier: Finetuned, scan: Callable[..., Path], tmp_path: Path
) -> None:
    folder, key, out = scan(3), tmp_path / "keys" / "key", tmp_path / "p.csv"
    (folder / "notes.txt").write_text("hello")
    (tmp_path / "keys" / "key.refused").mkdir(parents=True)
    tally = predict(classifier.folder, [tmp_path / "scans"], out, key=key)
    scored = {row["file"] for row in rows(out) if row["level"] == "slice"}
    refused = {row["file"] for row in rows(tmp_path / "p.refused.csv")}
    assert tally.names is not None
    assert tally.names.is_relative_to(key.parent)
    assert tally.names.parent.stat().st_mode & 0o077 == 0
    told = {row["file"]: row["name"] for row in rows(tally.names)}
    assert {told[file] for file in scored} == {f"new03/{z:03d}.dcm" for z in range(6)}
    assert {told[file] for file in refused} == {"new03/notes.txt"}
    assert f"Names of the files: {tally.names}" in tally.lines(out)


def test_identities_leave_as_keyed_hashes(
    classifier: Finetuned, scan: Make, tmp_path: Path
) -> None:
    scan(0)
    key = tmp_path / "key"
    predict(classifier.folder, [tmp_path / "scans"], tmp_path / "a.csv", key=key)
    predict(classifier.folder, [tmp_path / "scans"], tmp_path / "b.csv", key=key)
    one, two = (rows(tmp_path / name)[-1]["patient"] for name in ("a.csv", "b.csv"))
    assert one == two
    assert len(one) == 16
    assert one != "new00"


def test_what_cannot_be_read_and_what_it_was_not_made_for_is_listed(
    classifier: Finetuned, scan: Make, picture: Make, tmp_path: Path
) -> None:
    scan(0)
    scan(1, spacing_mm=4.0)
    picture("screenshot.png")
    (tmp_path / "scans" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    (tmp_path / "scans" / "notes.txt").write_text("hello")
    out = tmp_path / "p.csv"
    tally = predict(classifier.folder, [tmp_path / "scans"], out, keep_ids=True)
    assert tally.slices == 6
    refused = {row["file"]: row for row in rows(tmp_path / "p.refused.csv")}
    assert "display values" in refused["screenshot.png"]["reason"]
    assert refused["notes.txt"]["status"] == "skipped"
    assert refused["broken.dcm"]["status"] != "read"
    assert (
        "4 to 4 mm; this classifier was trained on 1.5 to 1.5"
        in (refused["new01/000.dcm"]["reason"])
    )
    assert len(refused) == 3 + 6


def test_nothing_that_can_be_scored_is_an_error_and_leaves_the_list(
    classifier: Finetuned, picture: Make, tmp_path: Path
) -> None:
    picture("a.png")
    with pytest.raises(ReadError, match=r"no slice .*; refused: 1 file, .*remove it before"):
        predict(classifier.folder, [tmp_path / "scans"], tmp_path / "p.csv", keep_ids=True)
    assert not (tmp_path / "p.csv").exists()
    assert len(rows(tmp_path / "p.refused.csv")) == 1


def test_an_output_that_exists_is_kept(classifier: Finetuned, scan: Make, tmp_path: Path) -> None:
    scan(0)
    (tmp_path / "p.csv").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        predict(classifier.folder, [tmp_path / "scans"], tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("units", "spacing_mm", "says"),
    [
        ("hu", (1.5, 1.5), ""),
        ("hu", (1.3, 1.8), ""),
        ("hu", (1.1, 1.5), "its stored pixels are 1.1 to 1.5 mm"),
        ("hu", (1.5, 2.0), "its stored pixels are 1.5 to 2 mm"),
        ("hu", None, "its pixel spacing is not known"),
        ("display", (1.5, 1.5), "it holds display values"),
    ],
)
def test_a_classifier_refuses_what_it_was_not_made_for(
    classifier: Finetuned, units: str, spacing_mm: tuple[float, float] | None, says: str
) -> None:
    images = np.zeros((1, 32, 32), np.int16)
    scan = Scan("p", "s", units, spacing_mm, ("a",), (None,), images)
    reason = why_not(classifier.kept, scan)
    assert reason.startswith(says)
    assert bool(reason) == bool(says)


def test_the_map_adds_up_to_the_evidence(classifier: Finetuned) -> None:
    kept = classifier.kept
    views = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    maps, classes = evidence(kept, views)
    with torch.no_grad():
        logits = kept.head(kept.encoder.backbone(views)) - kept.head.bias
    torch.testing.assert_close(maps.sum((1, 2)), logits[:, 1] - logits[:, 0], rtol=1e-4, atol=1e-4)
    assert classes.tolist() == [1, 1, 1]


def test_heatmaps_show_every_slice_with_its_evidence(
    classifier: Finetuned, scan: Make, tmp_path: Path
) -> None:
    scan(0)
    maps = tmp_path / "maps"
    predict(
        classifier.folder, [tmp_path / "scans"], tmp_path / "p.csv", heatmaps=maps, keep_ids=True
    )
    pictures = sorted(maps.glob("*/*.png"))
    assert [path.name for path in pictures] == [f"{z:04d}_1.png" for z in range(6)]
    with Image.open(pictures[0]) as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (32, 32, 3)
    assert (pixels.max(axis=2) > pixels.min(axis=2)).any()  # colour over grey


def test_what_was_scored_before_an_interruption_is_not_scored_again(
    classifier: Finetuned, scan: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patient in (0, 1, 2):
        scan(patient)
    source, out = tmp_path / "scans", tmp_path / "out" / "p.csv"
    predict(classifier.folder, [source], tmp_path / "at_once.csv", keep_ids=True)
    score = Kept.logits
    calls: list[int] = []

    def stop_at_the_last(*arguments: Any) -> NDArray[np.float32]:
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(Kept, "logits", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        predict(classifier.folder, [source], out, keep_ids=True)
    assert [path.name for path in out.parent.iterdir()] == [".p.csv.scored"]
    predict(classifier.folder, [source], out, keep_ids=True)
    assert len(calls) == 4  # the third scan's alone
    assert out.read_bytes() == (tmp_path / "at_once.csv").read_bytes()
    assert {path.name for path in out.parent.iterdir()} == {"p.csv", "p.refused.csv"}


def test_kept_scores_are_of_the_same_slices_and_the_same_scorer(tmp_path: Path) -> None:
    def scan(first: int) -> Scan:
        images = np.full((2, 4, 4), first, np.int16)
        return Scan("p", "s", "hu", (1.0, 1.0), ("a", "b"), (None, None), images)

    seen: list[int] = []

    def score(of: Scan) -> NDArray[np.float64]:
        seen.append(int(of.images[0, 0, 0]))
        return of.images[:, 0, :2].astype(np.float64)

    one, other = (keep_logits(tmp_path, score, scorer=name) for name in ("one", "other"))
    for logits in (one(scan(1)), one(scan(1)), one(scan(2)), other(scan(1))):
        assert logits.shape == (2, 2)
    assert seen == [1, 2, 1]
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-1])  # the disk has lost the end
    assert one(scan(2)).tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert seen == [1, 2, 1, 2]


def test_memory_does_not_grow_with_the_number_of_scans(
    classifier: Finetuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peak_bytes(series: int) -> int:
        def some(*_: object, **__: object) -> Iterator[Scan]:
            for k in range(series):
                images = np.zeros((100, 32, 32), np.int16)
                files = tuple(f"{k}/{z}" for z in range(100))
                yield Scan(f"p{k % 3}", f"s{k}", "hu", (1.5, 1.5), files, (None,) * 100, images)

        monkeypatch.setattr("hounsfield.classify.predict.scans", some)
        tracemalloc.start()
        predict(classifier.folder, [], tmp_path / f"{series}.csv", keep_ids=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    pixels_of_a_series = 100 * 32 * 32 * 2
    peak_bytes(1)  # what is loaded once
    assert peak_bytes(12) - peak_bytes(3) < pixels_of_a_series


def test_the_verbs_train_and_score(store: Path, scan: Make, tmp_path: Path) -> None:
    scan(0)
    settings = [
        "backbone=resnet10_tiny", "window=[-100, 400]", "val_share=0.5", "device=cpu",
        "budget={ steps = 60, batch = 16, lr = 3e-3, looks = 1 }",
    ]  # fmt: skip
    run, out = tmp_path / "run", tmp_path / "p.csv"
    command = ["finetune", "--weights", "scratch", "--store", str(store), "--task", "lesion"]
    chosen = [part for setting in settings for part in ("--set", setting)]
    done = CliRunner().invoke(app, [*command, "--out", str(run), *chosen])
    assert done.exit_code == 0, done.output
    assert "test, by slice: auc" in done.output
    scans = str(tmp_path / "scans")
    done = CliRunner().invoke(app, ["predict", str(run), scans, "--out", str(out), "--keep-ids"])
    assert done.exit_code == 0, done.output
    assert "(6 slices of 1 patient)" in done.output
    assert len(rows(out)) == 7

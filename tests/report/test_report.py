import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from fake_study import FakeTask, fake_study
from rich.console import Console

from hounsfield.errors import InputError
from hounsfield.lock import held
from hounsfield.report import latex, make, words
from hounsfield.report.checklist import ITEMS, checklist
from hounsfield.report.make import page_of, report
from hounsfield.report.methods import methods
from hounsfield.report.parts import differences
from hounsfield.report.parts.answer import answer
from hounsfield.report.parts.curves import curve
from hounsfield.report.parts.data import leaks
from hounsfield.report.parts.limits import limits
from hounsfield.report.parts.protocol import sentences
from hounsfield.report.parts.provenance import facts
from hounsfield.report.points import both_ways, points
from hounsfield.report.study_folder import Study, read
from hounsfield.report.style import file_style, page_style
from hounsfield.report.table import show

REPORT = """
import sys
from pathlib import Path
from hounsfield.report.make import report
report(Path(sys.argv[1]))
heavy = {"torch", "timm", "torchvision", "lightning_fabric"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_study(tmp_path_factory.mktemp("a") / "study", fractions=(1.0, 0.1))


@pytest.fixture(scope="module")
def out(study: Path) -> Path:
    return report(study).page.parent


def test_a_report_needs_neither_torch_nor_its_friends(study: Path, out: Path) -> None:
    del out  # one report at a time
    done = subprocess.run([sys.executable, "-c", REPORT, study], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_is_small_and_forbids_itself_to_ask(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert len(page.encode()) < 8_000_000
    assert "default-src 'none'" in page
    body = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # Vega's own code
    assert re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", body) == []


def test_every_figure_lies_beside_the_page_in_three_kinds(out: Path) -> None:
    page = (out / "report.html").read_text()
    drawings = re.findall(r'data-drawing="([^"]+)"', page)
    assert len(drawings) > 10
    starts = {"svg": b"<svg", "pdf": b"%PDF", "png": b"\x89PNG"}
    for name in drawings:
        for kind, start in starts.items():
            assert (out / "figures" / f"{name}.{kind}").read_bytes().startswith(start)


def test_figures_for_print_name_their_arms_and_use_fixed_colours(out: Path) -> None:
    svg = (out / "figures" / "curve-bleed-fair-slice.svg").read_text()
    assert "SparK" in svg
    assert "Histogram (control)" in svg
    assert "chance" in svg
    assert "var(--" not in svg


def test_arms_stand_side_by_side_around_their_fraction(study: Path) -> None:
    found = points(read(study), kind="level", task="bleed", level="slice", metric="auc")
    arms = read(study).arms
    rows = curve(found, arms=arms, style=file_style(arms))["datasets"]["rows"]
    for fraction in {point.fraction for point in found}:
        places = [
            row["place"]
            for row, point in zip(rows, found, strict=True)
            if point.fraction == fraction
        ]
        assert len(set(places)) == len(arms)
        assert math.prod(places) ** (1 / len(arms)) == pytest.approx(fraction)
        assert max(places) / min(places) < 1.2**2  # within the axis


def test_tables_hold_every_number(study: Path, out: Path) -> None:
    results = pl.read_parquet(study / "results.parquet")
    assert pl.read_parquet(out / "results.parquet").equals(
        results.select(pl.read_parquet(out / "results.parquet").columns)
    )
    rows = 0
    for path in sorted((out / "tables").glob("*.parquet")):
        table = pl.read_parquet(path)
        assert len(pl.read_csv(path.with_suffix(".csv"), infer_schema_length=None)) == len(table)
        rows += len(table)
    assert rows == len(results)


@pytest.fixture(scope="module")
def nasty_tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("nasty") / "study"
    task = FakeTask("a_b & 50% #1 \\input{x} ~^$ <é>", ("n", "y"))
    tables = report(fake_study(folder, tasks=(task,), rich=False)).page.parent / "tables"
    return sorted(tables.glob("*.tex"))


def test_latex_tables_are_balanced_and_escaped(nasty_tables: list[Path]) -> None:
    for path in nasty_tables:
        text = path.read_text()
        kind = "tabular" if path.stem == "label_curves" else "longtable"
        assert text.count(f"\\begin{{{kind}}}") == text.count(f"\\end{{{kind}}}") >= 1
        assert "\\toprule" in text
        assert "\\input{" not in text
        plain = re.sub(r"\\[&%$#_{}]", "", text)
        for line in plain.splitlines():
            if line.endswith(r"\\"):
                assert line.count("&") == plain.split("}{l", 1)[1].split("}", 1)[0].count("l")
        assert not re.search(r"[#_]", plain)


def test_the_answer_quotes_the_judge(study: Path) -> None:
    first, second = answer(read(study))
    rows = pl.read_parquet(study / "results.parquet").filter(
        pl.col("task") == "bleed",
        pl.col("level") == "slice",
        pl.col("metric") == "auc",
        pl.col("fraction") == 0.1,
    )
    gap = rows.filter(kind="difference", arm="spark", baseline="scratch").row(0, named=True)
    assert f"{gap['estimate']:+.3f} [{gap['low']:+.3f}," in first
    assert "10\N{NARROW NO-BREAK SPACE}%" in first
    assert "SparK is better" in first if gap["p_holm"] < 0.05 else "SparK is better" not in first
    verdict = next(
        v for v in json.loads((study / "verdicts.json").read_text()) if v["kind"] == "robust"
    )
    assert {"undecided": "leaves undecided", "supported": "supports"}[verdict["verdict"]] in second


def test_a_difference_seen_from_the_other_side_is_its_mirror(study: Path) -> None:
    found = both_ways(points(read(study), kind="difference", task="bleed", metric="auc"))
    there = {(p.arm, p.baseline, p.level, p.fraction): p for p in found}
    assert len(there) == len(found) == 2 * 6 * 2 * 2  # directions, pairs, levels, fractions
    for (arm, baseline, level, fraction), point in there.items():
        other = there[baseline, arm, level, fraction]
        assert point.estimate == -other.estimate
        assert (point.low, point.high) == (-other.high, -other.low)


def test_an_arm_that_does_not_beat_a_control_is_named(tmp_path: Path) -> None:
    arms = ("scratch", "histogram", "weak")  # "weak" has no more skill than a guess at noise
    study = fake_study(tmp_path / "study", arms=arms, fractions=(1.0, 0.1), rich=False)
    assert any("is not shown to beat the control histogram" in one for one in limits(read(study)))


def test_who_was_kept_out_is_said_once_an_arm_for_all_its_folds(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", rich=False)
    told = json.loads((folder / "study.json").read_text())
    told["pretrainings"] = {
        **{f"s{n}": {"name": "spark", "patients_kept_out": 29 + (n == 0)} for n in range(5)},
        "m0": {"name": "moco_v2", "patients_kept_out": 1},
    }
    (folder / "study.json").write_text(json.dumps(told))
    kept = [one for one in leaks(read(folder)) if one.startswith("Kept out")]
    assert kept == [
        f"Kept out of each of the 5 pre-trainings of SparK: 29{words.DASH}30 patients of the "
        "labelled tasks.",
        "Kept out of the pre-training of MoCo v2: 1 patient of the labelled tasks.",
    ]


def test_a_report_says_the_answer_of_its_page(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", rich=False)
    made = report(folder)
    assert list(made.answer) == answer(read(folder))


def test_the_page_counts_the_networks_of_an_earlier_step_than_the_last(tmp_path: Path) -> None:
    study = read(fake_study(tmp_path / "s", judged=False))
    taken = {"scratch": 200, "spark": 120, "moco_v2": 199}  # of 200; a control has no steps
    cells = [
        replace(cell, facts={**cell.facts, "chosen_step": taken.get(cell.arm)})
        for cell in study.cells
    ]
    each = 2 * 3 * 3  # tasks, fractions, repeats
    said = f"an earlier step than the last in {2 * each} of {3 * each} trainings. Whether a "
    assert said in " ".join(sentences(replace(study, cells=cells)))
    assert "earlier step" not in " ".join(sentences(study))


def told_by(study: Study) -> Iterator[str]:
    """All that a report of a study says in words, a text a place."""
    yield " ".join(answer(study))
    yield re.sub(r"<script.*?</script>", "", page_of(study), flags=re.DOTALL)
    yield methods(study, [])
    yield latex.wide(study)
    yield latex.long(study, "level")
    console = Console(file=StringIO(), width=300)
    show(study, console)
    yield console.file.getvalue()  # type: ignore[attr-defined]


def test_a_study_of_one_fraction_speaks_of_no_drop(tmp_path: Path) -> None:
    one = read(fake_study(tmp_path / "s", fractions=(1.0,)))
    assert len(answer(one)) == 1
    for told in told_by(one):
        assert re.findall("robust|Drops|drop in|of drops|Label curves|Nested", told) == []
    assert "so nothing is said of what is lost with fewer" in page_of(one)


def test_a_task_of_series_is_told_by_series(tmp_path: Path) -> None:
    task = FakeTask("bleed", ("no bleed", "bleed"), level="series")
    folder = fake_study(tmp_path / "s", tasks=(task,))
    for told in told_by(read(folder)):
        assert "by slice" not in told
    first, *_, last = told_by(read(folder))
    assert "by series on bleed" in first
    rows = pl.read_parquet(next(folder.glob("cells/*/scores.parquet"))).filter(split="test")
    assert f"16 test patients (8 with the rarest class), {len(rows)} series, 3 repeats" in last


def test_limits_name_what_failed_is_unfinished_or_absent(tmp_path: Path) -> None:
    broken = {
        ("bleed", "spark", 0.1, 0): "unfinished",
        ("bleed", "moco_v2", 0.1, 1): "failed",
        ("region", "scratch", 1.0, 2): "absent",
    }
    told = " ".join(limits(read(fake_study(tmp_path / "study", broken=broken, rich=False))))
    assert "1 of 72 planned cells is not there" in told
    assert "1 cell took no part: the loss is not finite at step 30" in told
    assert "In 1 cell of SparK the training loss did not clearly fall" in told


def test_the_paragraph_on_statistics_says_what_a_cross_validation_widens(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", rich=False)
    assert "Nadeau" not in methods(read(folder), [])
    told = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(told | {"folds": 5}))
    assert "after Nadeau and Bengio (2003); drops" in methods(read(folder), [])


def test_the_checklist_leaves_to_the_author_what_no_study_can_know(out: Path) -> None:
    text = (out / "methods.md").read_text()
    items = re.findall(r"^- \[([x ])\] \*\*(\d+)\. (.+?)\.\*\*", text, flags=re.MULTILINE)
    assert [int(number) for _, number, _ in items] == list(range(1, len(ITEMS) + 1))
    ticks = {name: tick for tick, _, name in items}
    assert ticks["Reference standard, readers and their agreement"] == " "
    assert ticks["Partition by patient, leaks, overlap with pre-training"] == "x"
    assert ticks["Intervals"] == "x"


def test_new_cells_are_judged_before_they_are_reported(tmp_path: Path) -> None:
    study = fake_study(tmp_path / "study", judged=False, rich=False, fractions=(1.0, 0.5))
    report(study)
    assert (study / "results.parquet").is_file()


def test_a_study_at_work_is_reported_as_far_as_it_is_and_its_folder_left_to_it(
    tmp_path: Path,
) -> None:
    folder = fake_study(tmp_path / "study", judged=False, rich=False, fractions=(1.0, 0.5))
    (folder / "report").mkdir()
    (folder / "report/.report.html.1234abcd.part").write_text("torn")
    with held(folder):
        before = sorted(folder.iterdir())
        report(folder)
        assert sorted(folder.iterdir()) == before
    numbers = pl.read_parquet(folder / "report/results.parquet")
    assert not list(folder.rglob("*.part"))
    report(folder)
    assert numbers.equals(pl.read_parquet(folder / "results.parquet"))


def test_cells_that_came_back_are_judged_and_those_that_did_not_change_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fake_study(tmp_path / "study", rich=False, fractions=(1.0, 0.5))
    first = next(study.glob("cells/*spark*"))
    kept = first.rename(tmp_path / first.name)
    report(study)
    fewer = pl.read_parquet(study / "results.parquet")
    kept.rename(first)  # as old as it was: the clock tells nothing
    report(study)
    assert not pl.read_parquet(study / "results.parquet").equals(fewer)
    monkeypatch.setattr(make, "judge", None)  # whoever calls it now fails
    report(study)


def test_time_is_told_by_device_and_gpus_by_the_hour(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", fractions=(1.0, 0.5), judged=False)
    told = dict(facts(read(folder)))
    assert told["Wall time, NVIDIA H100"] == "60 min of pre-training"
    assert told["Wall time, cpu"] == "17 min of fine-tuning"  # 48 cells of 21.5 s
    assert told["GPU hours"] == "2.00"  # two runs of half an hour on two GPUs
    cell = next(folder.glob("cells/*/cell.json"))
    cell.write_text(cell.read_text().replace('"device": "cpu"', '"device": ""'))
    assert "not stored" in dict(facts(read(folder)))["GPU hours"]
    cell.write_text(cell.read_text().replace('"wall_s": 21.5', '"wall_s": 0.0'))  # given up
    assert dict(facts(read(folder)))["GPU hours"] == "2.00"


def test_a_cell_that_the_judge_does_not_count_is_told_with_its_reason(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", fractions=(1.0, 0.5), rich=False, judged=False)
    next(folder.glob("cells/*/scores.parquet")).write_bytes(b"torn")
    report(folder)
    (told,) = (one for one in limits(read(folder)) if "took no part" in one)
    assert told.startswith("1 cell took no part: ")
    assert "scores.parquet" in told


def test_weights_from_outside_are_told_with_their_origin(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", arms=("scratch", "imagenet"), fractions=(1.0, 0.5))
    told = json.loads((folder / "study.json").read_text())
    told["arms"]["imagenet"]["card"] = {
        "file": "model.safetensors", "sha256": "ab" * 32, "origin": "timm", "licence": "apache-2.0",
        "corpus": "ImageNet-1k", "matched": 161, "unused": 2, "notes": ["first layer summed"],
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(told))
    page = report(folder).page.read_text()
    for word in ("model.safetensors", "ab" * 32, "apache-2.0", "ImageNet-1k", "2 not used"):
        assert word in page
    assert (
        "licence apache-2.0, trained on ImageNet-1k" in (folder / "report/methods.md").read_text()
    )


def test_latex_sets_every_table(tmp_path: Path, out: Path, nasty_tables: list[Path]) -> None:
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("no pdflatex here: apt-get install texlive-latex-recommended")
    tables = [*out.glob("tables/*.tex"), *nasty_tables]
    inputs = "\n".join(f"\\input{{{path}}}\n" for path in tables)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,longtable}\\begin{document}\n"
        f"{inputs}\\end{{document}}\n"
    )
    done = subprocess.run(
        [latex, "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert len(tables) > 10


def test_labels_saved_are_shares_whose_interval_may_be_open(study: Path) -> None:
    point = points(read(study), kind="labels_saved")[0]
    told = {
        (0.5, 0.2, 0.8): "50 % [20 %, 80 %]",
        (0.5, None, 0.8): "50 % (below 80 %)",
        (None, 0.2, None): f"{words.DASH} (above 20 %)",
        (0.5, None, None): "50 % (no interval)",
    }
    for (estimate, low, high), text in told.items():
        one = replace(point, estimate=estimate, low=low, high=high)
        assert re.sub(r"\s", " ", one.text) == text


def test_where_the_baseline_has_not_run_another_stands_in_its_place(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", rich=False, fractions=(1.0, 0.5), judged=False)
    for cell in folder.glob("cells/*-scratch-*"):
        shutil.rmtree(cell)
    report(folder)
    found = read(folder)
    for style in (page_style(found.arms), file_style(found.arms)):
        part = differences.section(found, style)
        assert "<option selected>SparK</option>" in part.body
        for figure in part.figures:
            (shown,) = (one["value"] for one in figure.spec["params"] if one["name"] == "baseline")
            assert shown == "SparK"
            assert shown in {row["baseline"] for row in figure.spec["datasets"]["rows"]}


def test_the_checklist_claims_no_more_than_was_stored(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", rich=False, fractions=(1.0, 0.5))
    told = json.loads((folder / "study.json").read_text())
    told["config"]["tasks"] = {
        "bleed": {
            "label": "blood",
            "where": {"brain": {"min": 0.2, "max": None}, "view": ["axial", "coronal"]},
        }
    }
    (folder / "study.json").write_text(json.dumps(told))
    cell = next(folder.glob("cells/*-histogram-*/cell.json"))
    cell.write_text(cell.read_text().replace('"trials": 2', '"trials": 7'))
    told = dict(checklist(read(folder)))
    flow = told["Eligibility and flow from files to slices"]
    assert "images with a label blood, with brain from 0.2 and view = axial and coronal" in flow
    assert re.sub(r"\W", " ", told["Tuning: space, trials, data"]).startswith(
        "Trials a cell  Scratch 2  SparK 2  MoCo v2 2  Histogram  control  2 7"
    )
    assert told["Reference standard, readers and their agreement"] == ""
    assert told["Failure analysis"] == ""  # it kept no pictures


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no study\\.json"):
        report(tmp_path)
    (tmp_path / "study.json").write_text("[1]")
    with pytest.raises(InputError, match="it is no JSON object"):
        report(tmp_path)


def test_a_picture_outside_the_study_is_not_shown(tmp_path: Path) -> None:
    study = fake_study(tmp_path / "study", fractions=(1.0, 0.5))
    (tmp_path / "secret.png").write_bytes((study / "pictures" / "0.png").read_bytes() + b"secret")
    listed = {"montage": [{"file": "../../secret.png"}, {"file": "0.png", "title": "mine"}]}
    (study / "pictures" / "pictures.json").write_text(json.dumps(listed))
    page = report(study).page.read_text()
    assert page.count("data:image/png;base64,") == 1


def test_the_page_names_no_folder_of_the_machine_that_ran_the_study(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", rich=False, fractions=(1.0, 0.5))
    told = json.loads((folder / "study.json").read_text())
    told["config"] |= {
        "stores": {"ct": "/home/quirinus/stores/heads"},
        "weights": {"mine": "C:\\Users\\quirinus\\encoder.pt", "hub": "timm/resnet50.a1_in1k"},
        "pretrain": {"spark": {"stores": ["/home/quirinus/stores/chests"]}},
    }
    (folder / "study.json").write_text(json.dumps(told))
    page = report(folder).page.read_text()
    assert "quirinus" not in page
    for kept in ("heads", "encoder.pt", "timm/resnet50.a1_in1k", "chests"):
        assert f"&#34;{kept}&#34;" in page


def test_scores_that_were_made_elsewhere_are_named_as_such(tmp_path: Path) -> None:
    folder = fake_study(tmp_path / "study", rich=False, fractions=(1.0, 0.5))
    assert not any("log odds" in one for one in limits(read(folder)))
    told = json.loads((folder / "study.json").read_text())
    told["arms"]["moco_v2"]["kind"] = "predictions"
    (folder / "study.json").write_text(json.dumps(told))
    (limit,) = (one for one in limits(read(folder)) if "log odds" in one)
    assert limit.startswith("The scores of MoCo v2 were made elsewhere")

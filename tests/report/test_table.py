from pathlib import Path

import polars as pl
from fake_study import FakeTask, fake_study
from rich.console import Console

from hounsfield.report.study_folder import read
from hounsfield.report.table import table


def shown(folder: Path, width: int = 100) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(table(read(folder)))
    return capture.get()


def test_every_auc_stands_with_its_interval_and_its_n(tmp_path: Path) -> None:
    study = fake_study(tmp_path / "study")
    text = shown(study)
    rows = pl.read_parquet(study / "results.parquet")
    levels = rows.filter((pl.col("kind") == "level") & (pl.col("metric") == "auc"))
    assert len(levels) == 3 * 4 * 3  # both tasks by slice, bleed by patient; arms; fractions
    for row in levels.iter_rows(named=True):
        assert f"{row['estimate']:.3f}" in text
        assert f"[{row['low']:.3f}, {row['high']:.3f}]" in text
    assert "Judged on 16 test patients (8 with the rarest class), " in text
    assert "48 patients" in text


def test_a_task_of_patients_is_told_by_patient_alone(tmp_path: Path) -> None:
    task = FakeTask("bleed", ("no bleed", "bleed"), level="patient")
    text = shown(fake_study(tmp_path / "study", tasks=(task,)))
    assert "bleed: AUC by patient" in text
    assert "by slice" not in text


def test_an_unfinished_cell_marks_its_number_and_only_its_number(tmp_path: Path) -> None:
    study = fake_study(tmp_path / "study", broken={("bleed", "spark", 0.1, 0): "unfinished"})
    text = shown(study)
    by_slice, by_patient, region = text.split("Judged on")[:3]
    assert by_slice.count("]*") == by_patient.count("]*") == 1
    assert "]*" not in region
    assert "* unfinished: the training loss of 1 cell did not clearly fall." in text


def test_too_few_patients_are_said_instead_of_an_interval(tmp_path: Path) -> None:
    text = shown(fake_study(tmp_path / "study", test_patients=6))
    assert "not enough patients" in text
    assert "[" not in text


def test_failed_and_absent_cells_are_counted(tmp_path: Path) -> None:
    broken = {("bleed", "spark", 0.1, 0): "failed", ("bleed", "moco_v2", 0.1, 1): "absent"}
    assert "2 cells failed or did not run" in shown(fake_study(tmp_path / "study", broken=broken))


def test_a_name_that_looks_like_markup_is_text(tmp_path: Path) -> None:
    study = fake_study(tmp_path / "study", arms=("scratch", "[red]mine[/red]"))
    assert "[red]mine[/red]" in shown(study)


def test_a_study_without_numbers_says_so(tmp_path: Path) -> None:
    assert "There are no numbers yet." in shown(fake_study(tmp_path / "study", judged=False))

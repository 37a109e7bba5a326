from pathlib import Path

import polars as pl
import pytest

from hounsfield.data import labels as labels_module
from hounsfield.data.keys import Keys
from hounsfield.data.labels import join, match_files, read_labels
from hounsfield.errors import LabelError, LeakError

KEYS = Keys(b"k" * 32)


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "labels.csv").write_text(text, encoding=encoding)
    return folder / "labels.csv"


def slices(row: list[int | None] | None = None) -> pl.DataFrame:
    """Two series of one patient and one of another, three slices each, 5 mm apart."""
    made = pl.DataFrame(
        {
            "patient": [KEYS("patient", one) for one in ("007", "007", "8") for _ in range(3)],
            "series": [KEYS("series", one) for one in ("s1", "s2", "s3") for _ in range(3)],
            "z": [0, 1, 2] * 3,
            "z_mm": [-10.0, -5.0, 0.0] * 3,
            "spacing_z_mm": [5.0] * 9,
            "number": [3, 2, 1] * 3,
        },
        schema_overrides={"z": pl.Int32},
    )
    return made.with_columns(pl.Series("row", row or [None] * 9, dtype=pl.Int64))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("patient,bleed\n007,1\n", [1, 1, 1, 1, 1, 1, None, None, None]),
        ("series,bleed\ns2,1\n", [None] * 3 + [1, 1, 1] + [None] * 3),
        ("series,z,bleed\ns1,0,1\ns3,2,0\n", [1] + [None] * 7 + [0]),
        ("series,z_mm,bleed\ns1,-9,1\ns1,0.4,0\n", [1, None, 0] + [None] * 6),
        ("series,z_mm,bleed\ns1,-7.5,1\n", [1] + [None] * 8),
        ("patient,slice,bleed\n8,1,1\n", [None] * 8 + [1]),
        ("patient,z,bleed\n007,1,1\n", [None, 1, None, None, 1] + [None] * 4),
    ],
)
def test_every_form_finds_its_slices(tmp_path: Path, text: str, expected: list[int | None]) -> None:
    joined, missed = join(read_labels(table(tmp_path, text)), slices(), KEYS)
    assert joined["bleed"].to_list() == expected
    assert len(missed) == 0


def test_parquet_is_a_table_too(tmp_path: Path) -> None:
    pl.DataFrame({"patient": ["8"], "grade": [2.5]}).write_parquet(tmp_path / "labels")
    joined, _ = join(read_labels(tmp_path / "labels"), slices(), KEYS)
    assert joined["grade"].to_list() == [None] * 6 + [2.5] * 3


def test_rows_that_match_nothing_are_listed(tmp_path: Path) -> None:
    _, missed = join(read_labels(table(tmp_path, "patient,bleed\n8,1\n9,0\n")), slices(), KEYS)
    assert missed["patient"].to_list() == ["9"]
    with pytest.raises(LabelError, match=r"no slice by patient \(its first row is like aaaa-00;"):
        join(read_labels(table(tmp_path, "patient,bleed\nCarl-07,1\n")), slices(), KEYS)


def test_a_z_between_slices_finds_the_nearer_one_and_a_far_one_none(tmp_path: Path) -> None:
    labels = read_labels(table(tmp_path, "series,z_mm,bleed\ns1,-7.4,1\ns1,4,0\n"))
    joined, missed = join(labels, slices(), KEYS)
    assert joined["bleed"].to_list()[:3] == [None, 1, None]
    assert missed["z_mm"].to_list() == ["4"]


def test_files_match_by_the_end_of_their_path(tmp_path: Path) -> None:
    labels = read_labels(table(tmp_path, "file,bleed\na/1.dcm,0\ndicom/b/1.dcm,1\n2.dcm,0\n"))
    files = {
        "a/1.dcm": Path("/data/dicom/a/1.dcm"),
        "b/1.dcm": Path("/data/dicom/b/1.dcm"),
        "b/2.dcm": Path("/data/dicom/b/2.dcm"),
        "b/3.dcm": Path("/data/dicom/b/3.dcm"),
    }
    assert match_files(labels, files) == {"a/1.dcm": 0, "b/1.dcm": 1, "b/2.dcm": 2}


def test_a_name_that_fits_two_files_asks_for_more_of_the_path(tmp_path: Path) -> None:
    labels = read_labels(table(tmp_path, "file,bleed\n1.dcm,0\n"))
    files = {"a/1.dcm": Path("/d/a/1.dcm"), "b/1.dcm": Path("/d/b/1.dcm")}
    with pytest.raises(LabelError, match="row 1 fits 2 files of the sources"):
        match_files(labels, files)


def test_columns_become_numbers_where_all_of_their_cells_are(tmp_path: Path) -> None:
    text = "patient,whole,real,words,gaps\n007,1,0.5,a,\n8,2,3,4,7\n"
    labels = read_labels(table(tmp_path, text))
    assert labels.table["patient"].to_list() == ["007", "8"]
    assert labels.table["whole"].to_list() == [1, 2]
    assert labels.table["real"].to_list() == [0.5, 3.0]
    assert labels.table["words"].to_list() == ["a", "4"]
    assert labels.table["gaps"].to_list() == [None, 7]


def test_a_table_of_excel_may_have_semicolons_decimal_commas_and_blank_rows(tmp_path: Path) -> None:
    text = "patient;z_mm;Größe;Befund\r\n1,5;-2,25;0,5;klein, alt\r\n;;;\r\n8;3;12;\r\n;;;\r\n"
    labels = read_labels(table(tmp_path, text, "utf-8-sig"))
    assert labels.table.to_dict(as_series=False) == {
        "row": [0, 2],
        "patient": ["1,5", "8"],
        "z_mm": ["-2.25", "3"],
        "Größe": [0.5, 12.0],
        "Befund": ["klein, alt", None],
    }


def test_a_table_with_commas_keeps_those_within_its_cells(tmp_path: Path) -> None:
    labels = read_labels(table(tmp_path, 'patient,size\n8,"1,5"\n'))
    assert labels.table["size"].to_list() == ["1,5"]


@pytest.mark.parametrize("text", ["patient,läsion\n8,1\n", "patient,lesion\n8,größer\n"])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_table_in_another_encoding_is_refused(tmp_path: Path, text: str, encoding: str) -> None:
    with pytest.raises(LabelError, match="is not UTF-8"):
        read_labels(table(tmp_path, text, encoding))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,bleed\na,1\n", "slices are named by one of: file; series"),
        ("patient\na\n", "no label column"),
        ("patient,bleed\na,1\na,0\n", "one patient more than once, in the rows 1, 2. Keep"),
        ("patient,slice,bleed\na,3,1\na,03,0\n", r"one patient \+ slice more than once"),
        ("patient,units\na,1\n", "units is a column of every store"),
        (
            "patient,split\na,Smith-07\n",
            r"the split is like aaaaa-00 in the row 1 .*; give train, val, test",
        ),
        ("patient,bleed, bleed\na,1,0\n", "cannot be read as a table: "),
        ("patient,bleed\n", "has no rows"),
    ],
)
def test_a_table_that_is_not_right_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LabelError, match=said):
        read_labels(table(tmp_path, text))


def test_a_patient_on_two_sides_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    text = "patient,z,bleed,split\na,1,0,train\na,2,0,test\n"
    with pytest.raises(LeakError, match="the one of rows 1, 2 in train and test"):
        read_labels(table(tmp_path, text))
    with pytest.raises(LabelError, match="there is no label file"):
        read_labels(tmp_path / "none.csv")


def test_a_file_is_named_twice_however_its_path_is_written(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"one file more than once, in the rows 1, 3"):
        read_labels(table(tmp_path, "file,bleed\na/b.png,1\nc.png,0\na\\b.png,0\n"))


def test_a_blank_cell_is_nobody_and_on_no_side(tmp_path: Path) -> None:
    text = 'file,patient,bleed,split\n1.png,"",1,train\n2.png," ",0,test\n3.png,,"",""\n'
    labels = read_labels(table(tmp_path, text))
    assert labels.table["patient"].to_list() == [None] * 3
    assert labels.table["bleed"].to_list() == [1, 0, None]
    assert labels.table["split"].to_list() == ["train", "test", None]


def test_a_table_that_swells_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "MAX_ROWS", 20_000)
    monkeypatch.delattr(pl, "read_parquet")
    pl.DataFrame({"patient": ["a"] * 20_001}).write_parquet(tmp_path / "labels.parquet")
    assert (tmp_path / "labels.parquet").stat().st_size < 2**11
    with pytest.raises(LabelError, match="unpacks to 20,001 rows; at most 20,000 are read"):
        read_labels(tmp_path / "labels.parquet")

import errno
import os
import shutil
from pathlib import Path

import pytest

from hounsfield.errors import DiskError, OutputError
from hounsfield.files import check_space, disk_errors, folder_whole, sweep, write_json, write_whole


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["a.bin"]  # noqa: PTH208


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError) as failure:
        write_whole(path, b"new")
    assert str(failure.value) == (
        f"cannot write {path}: No space left on device. Free space there or choose another "
        "folder, then run the same command again."
    )
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_json_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "store"
    with folder_whole(target) as folder:
        (folder / "a").write_text("x")
        assert not target.exists()
    assert (target / "a").read_text() == "x"
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with folder_whole(tmp_path / "store") as folder:
            (folder / "a").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_blamed_for_what_cannot_be_read_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="a store"), folder_whole(tmp_path / "new"):
        raise PermissionError(errno.EACCES, "Permission denied", "a store")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_already_is_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "store"
    target.mkdir()
    with pytest.raises(FileExistsError), folder_whole(target):
        pass
    assert list(tmp_path.iterdir()) == [target]


def test_errors_that_are_not_the_disks_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no such file")


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".store.1234abcd.part" / "shards").mkdir(parents=True)
    (tmp_path / ".run.json.1234abcd.part").write_text("{")
    others = [".other.1234abcd.part", ".store.v2.1234abcd.part"]
    for name in others:
        (tmp_path / name).write_text("somebody else's")
    (tmp_path / "run.json").write_text("{}")
    sweep(tmp_path, "store")
    sweep(tmp_path, "run.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == [*others, "run.json"]


def test_what_killed_writers_left_goes_from_every_folder_below(tmp_path: Path) -> None:
    (tmp_path / "pictures/.whole.1234abcd.part").mkdir(parents=True)
    (tmp_path / "pictures/.a.png.1234abcd.part").write_bytes(b"torn")
    (tmp_path / "pictures/.a.png.part").write_bytes(b"somebody else's")
    (tmp_path / "report").mkdir()
    (tmp_path / "report/.a.png.1234abcd.part").write_bytes(b"at work")
    sweep(tmp_path, but="report")
    kept = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.part")}
    assert kept == {"pictures/.a.png.part", "report/.a.png.1234abcd.part"}


def test_a_place_below_a_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    path = tmp_path / "thesis.txt" / "a.bin"
    with pytest.raises(OutputError, match=r"cannot write .*a\.bin: Not a directory"):
        write_whole(path, b"x")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(("n_bytes", "said"), [(3 * 2**30, "3.0 GiB"), (3 * 2**20, "3 MiB")])
def test_a_place_without_room_is_told_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int, said: str
) -> None:
    asked = []

    def usage(place: Path) -> tuple[int, int, int]:
        asked.append(place)
        return shutil._ntuple_diskusage(2**40, 2**40, 2**20)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    out = tmp_path / "not" / "there"
    check_space(out, 2**20)
    with pytest.raises(DiskError, match=f"there needs about {said} and its disk has 1 MiB free"):
        check_space(out, n_bytes)
    assert asked == [tmp_path, tmp_path]

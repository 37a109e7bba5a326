import argparse
import os
import pathlib
import pickle
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hounsfield.errors import WeightsError
from hounsfield.models.weights_file import MAPPINGS, SHELLS, read_weights
from hounsfield.models.weights_written import write_weights

WEIGHT = torch.arange(6.0).reshape(2, 3)


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def foreign(monkeypatch: pytest.MonkeyPatch, full_name: str, base: type = object) -> type:
    """A class that pickles under a foreign library's name, for as long as the test saves."""
    module_name, _, name = full_name.rpartition(".")
    parts = module_name.split(".")
    for end in range(1, len(parts) + 1):
        inner = ".".join(parts[:end])
        if inner not in sys.modules:
            monkeypatch.setitem(sys.modules, inner, types.ModuleType(inner))
    kind = type(name, (base,), {"__module__": module_name})
    monkeypatch.setattr(sys.modules[module_name], name, kind, raising=False)
    return kind


def test_a_safetensors_file_gives_its_tensors_and_its_notes(tmp_path: Path) -> None:
    path = tmp_path / "any.name"
    save_file({"conv.weight": WEIGHT}, path, metadata={"method": "byol"})
    file = read_weights(path)
    assert file.kind == "safetensors"
    assert file.metadata == {"method": "byol"}
    assert torch.equal(file.tensors["conv.weight"], WEIGHT)


def test_equal_weights_are_equal_files_and_safetensors_reads_them(tmp_path: Path) -> None:
    notes = {f"note {number}": "\N{GREEK SMALL LETTER MU}" * number for number in range(8)}
    tensors = {"conv.weight": WEIGHT, "steps": torch.tensor(7), "turned": WEIGHT.T}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    write_weights(one, tensors, notes)
    write_weights(two, dict(reversed(tensors.items())), dict(reversed(notes.items())))
    assert one.read_bytes() == two.read_bytes()
    loaded = load_file(one)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    with safe_open(one, framework="pt") as file:
        assert file.metadata() == notes


@pytest.mark.parametrize("zipped", [True, False])
def test_both_of_torchs_formats_are_read(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path / "a.pth", {"w": WEIGHT}, _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_weights(path).tensors["w"], WEIGHT)


def test_nested_tables_and_lists_are_joined_by_dots(tmp_path: Path) -> None:
    nested = {"classy_state_dict": {"base_model": {"model": {"trunk": {"conv1.weight": WEIGHT}}}}}
    path = saved(tmp_path / "a.torch", {**nested, "optimizer": [{"exp_avg": WEIGHT}], "epoch": 7})
    assert list(read_weights(path).tensors) == [
        "classy_state_dict.base_model.model.trunk.conv1.weight",
        "optimizer.0.exp_avg",
    ]


def test_a_table_that_contains_itself_ends(tmp_path: Path) -> None:
    table: dict[str, Any] = {"w": WEIGHT}
    table["again"] = table
    assert list(read_weights(saved(tmp_path / "a.pt", table)).tensors) == ["w"]


@pytest.mark.parametrize(
    "name", [name for name in SHELLS if name.split(".")[0] not in ("builtins", "numpy", "typing")]
)
def test_every_listed_class_becomes_an_empty_shell(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kind = foreign(patch, name)
        thing = kind()
        thing.secret = [1, 2]
        path = saved(tmp_path / "a.ckpt", {"state_dict": {"w": WEIGHT}, "x": thing, kind: 1})
    assert list(read_weights(path).tensors) == ["state_dict.w"]


@pytest.mark.parametrize("name", [name for name in MAPPINGS if not name.startswith("coll")])
def test_every_listed_mapping_becomes_a_plain_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        table = foreign(patch, name, dict)(lr=0.1, inner=WEIGHT)
        path = saved(tmp_path / "a.ckpt", {"hyper_parameters": table})
    assert list(read_weights(path).tensors) == ["hyper_parameters.inner"]


def test_what_trainers_really_save_beside_weights_does_no_harm(tmp_path: Path) -> None:
    extras = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/data")),
        "path": tmp_path,
        "best": np.float64(0.8),
        "history": np.arange(3.0),
        "groups": defaultdict(list, a=[1]),
        "types": [dict, list, int, str, Any],
    }
    path = saved(tmp_path / "a.ckpt", {"state_dict": OrderedDict(w=WEIGHT), **extras})
    assert list(read_weights(path).tensors) == ["state_dict.w"]


class Attack:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


def attacks(marker: Path) -> dict[str, Attack]:
    write = f"open({str(marker)!r}, 'w').close()"
    return {
        "posix.system": Attack(os.system, f"touch {marker}"),
        "builtins.exec": Attack(exec, write),
        "builtins.eval": Attack(eval, write),
        "builtins.getattr": Attack(getattr, pathlib.Path(marker), "touch"),
        "_pickle.loads": Attack(pickle.loads, pickle.dumps(Attack(exec, write))),
        "pathlib.Path.touch": Attack(pathlib.Path.touch, marker),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("call", list(attacks(Path("marker"))))
def test_a_malicious_file_is_refused_and_not_run(tmp_path: Path, call: str, zipped: bool) -> None:
    marker = tmp_path / "was_here"
    attack = attacks(marker)[call]
    path = saved(
        tmp_path / "a.pth",
        {"state_dict": {"conv1.weight": WEIGHT}, "x": attack},
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(WeightsError, match=r"refused: loading it would run|cannot be read as"):
        read_weights(path)
    assert not marker.exists()


def test_a_bare_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "was_here"
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(attacks(marker)["posix.system"], protocol=2))
    with pytest.raises(WeightsError):
        read_weights(path)
    assert not marker.exists()


def test_a_whole_pickled_network_is_refused_with_its_classes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", torch.nn.Linear(2, 2))
    with pytest.raises(WeightsError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict\(\)"):
        read_weights(path)


def test_the_stand_ins_are_gone_after_reading(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read_weights(saved(tmp_path / "a.pth", {"w": WEIGHT}))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x00\x01\x02\x03", "neither a safetensors file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{broken", "damaged safetensors file"),
        (b"PK\x03\x04 not a zip", "cannot be read as a checkpoint"),
        (b"\x80\x02.", "cannot be read as a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=says):
        read_weights(path)


def test_an_archive_that_swells_is_refused_unread(tmp_path: Path) -> None:
    honest = saved(tmp_path / "a.pth", {"w": torch.zeros(100_000)})
    bomb = tmp_path / "b.pth"
    with (
        zipfile.ZipFile(honest) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert bomb.stat().st_size < honest.stat().st_size / 10
    with pytest.raises(WeightsError, match="compressed archive"):
        read_weights(bomb)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.bin"
    big = {"w": torch.zeros(1000)}
    if kind == "safetensors":
        save_file(big, path)
    else:
        saved(path, big, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(path)


def test_a_file_without_tensors_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no tensor"):
        read_weights(saved(tmp_path / "a.pth", {"epoch": 3}))
    with pytest.raises(WeightsError, match="No such file"):
        read_weights(tmp_path / "nothing.pth")

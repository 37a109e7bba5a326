import shutil
from collections import namedtuple

import psutil
import pytest
import torch
from pydicom.pixels.decoders import base
from typer.testing import CliRunner

from hounsfield import doctor
from hounsfield.cli import app
from hounsfield.errors import MachineError


def seen(place):
    return {one.name: one for one in doctor.examine(place)}


def test_a_machine_that_has_all_is_told_so():
    told = CliRunner().invoke(app, ["doctor"])
    assert told.exit_code == 0
    assert f"torch                {torch.__version__}" in told.output
    for codec in doctor.CODECS:
        assert f"DICOM {codec}" in told.output


def test_a_missing_codec_is_named_with_the_command_that_mends_it(monkeypatch):
    nothing = namedtuple("Nothing", "is_available")(is_available=False)
    monkeypatch.setattr(base, "get_decoder", lambda syntax: nothing)
    told = CliRunner().invoke(app, ["doctor"])
    assert "! DICOM JPEG 2000" in told.output
    assert "-> pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg" in told.output
    assert isinstance(told.exception, MachineError)
    assert told.exception.exit_code == 4


def test_a_missing_package_is_told_before_it_is_missed(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=1", "no-such-package>=2"])
    (only,) = doctor.examine(tmp_path)
    assert (only.found, only.mend) == ("without no-such-package", "pip install hounsfield")
    assert only.needed


def test_a_missing_extra_is_offered_and_not_needed(monkeypatch, tmp_path):
    wanted = ['no-such-onnx>=1; extra == "onnx"', 'no-such-linter; extra == "test"']
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    found = seen(tmp_path)
    assert found["extra onnx"].mend == "pip install 'hounsfield[onnx]'"
    assert not found["extra onnx"].needed
    assert "extra test" not in found


@pytest.mark.parametrize("what", ["disk", "memory"])
def test_little_room_is_named_with_what_helps(monkeypatch, tmp_path, what):
    little = namedtuple("Little", "total available free")(2**34, 2**30, 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: little)
    assert "1.0" in seen(tmp_path)[what].found
    assert seen(tmp_path)[what].mend


def test_a_gpu_that_torch_cannot_use_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "DRIVER", tmp_path)
    assert seen(tmp_path)["GPU"].mend.startswith("pip install --force-reinstall torch")

import json
import re
import shutil

import pytest

from hounsfield.errors import InputError, OutputError
from hounsfield.report.parts.provenance import facts
from hounsfield.report.study_folder import read
from hounsfield.study import worker
from hounsfield.study.estimate import estimate
from hounsfield.study.plan import plan
from hounsfield.study.run import run
from hounsfield.study.takeover import found
from hounsfield.train.run_folder import CONFIG, ENCODER, RUN

PRETRAINED = {
    "arms": ["moco_v2"],
    "pretrain": {
        "moco_v2": {
            "budget": {"steps": 2},
            "batch_size": 8,
            "loop": {"tensorboard": False},
            "options": {"queue_size": 16},
        }
    },
    "repeats": 1,
    "fractions": [1.0],
    "budget": {"steps": 1, "batch": 8, "lr": 0.01},
}


@pytest.fixture(scope="module")
def old(study, tmp_path_factory):
    """A study that has ended, of the name "old"."""
    place = tmp_path_factory.mktemp("studies") / "first"
    run(plan(study(**PRETRAINED, name="old")), place)
    return place


@pytest.fixture
def new(study):
    """The plan of another study with the same pre-training."""
    return plan(study(**{**PRETRAINED, "name": "new", "protocols": ["linear"]}))


def never(*_, **__):
    raise AssertionError("it was trained again")


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_study_takes_over_what_another_has_trained_and_says_so(
    old, new, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(worker, "pretrain", never)
    (one,) = new.pretrainings.values()
    begun = one.place(tmp_path / "out")
    begun.mkdir(parents=True)
    (begun / "half").touch()
    planned = json.loads((old / "study.json").read_text())
    (tmp_path / "out" / "study.json").write_text(json.dumps({**planned, "name": "new"}))
    assert run(new, tmp_path / "out", pretrained=[old]).failed == ()
    assert "Taken over: 1 of 1 pre-training left." in capsys.readouterr().err
    taken = files(one.place(tmp_path / "out"))
    assert taken.pop("taken.json") == b'{\n  "study": "old"\n}\n'
    assert taken == files(one.place(old))
    told = dict(facts(read(tmp_path / "out")))
    assert told["Taken over"] == "1 of 1 pre-training, trained in the study old"
    run(new, tmp_path / "third", pretrained=[tmp_path / "out"])
    assert files(one.place(tmp_path / "third"))["taken.json"] == b'{\n  "study": "old"\n}\n'


def test_what_would_be_taken_over_is_counted_and_nothing_is_written(old, new, tmp_path):
    lines = list(estimate(new, tmp_path / "out", pretrained=[old]).lines())
    assert {"pre-trainings left: 0", "pre-trainings to take over: 1"} <= set(lines)
    assert not any(tmp_path.iterdir())


def unended(place):
    (place / RUN).unlink()


def torn(place):
    (place / ENCODER).write_bytes((place / ENCODER).read_bytes()[:-100])


def rotten(place):
    content = bytearray((place / ENCODER).read_bytes())
    content[-7] ^= 1
    (place / ENCODER).write_bytes(content)


def of_another_seed(place):
    told = json.loads((place / CONFIG).read_text())
    told["identity"]["seed"] = 7
    (place / CONFIG).write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (unended, "has not ended"),
        (torn, "damaged"),
        (rotten, "is not the file that the training wrote"),
        (of_another_seed, r"it differs in seed \(7 there"),
    ],
)
def test_what_is_not_whole_or_not_the_same_is_told_and_stays(old, new, tmp_path, harm, why):
    shutil.copytree(old, tmp_path / "old")
    (one,) = new.pretrainings.values()
    harm(one.place(tmp_path / "old"))
    said = []
    assert found(one, [tmp_path / "old"], say=said.append) is None
    (line,) = said
    assert line.startswith("Not taken over: ")
    assert re.search(why, line), line
    assert found(one, [tmp_path / "old", old], say=said.append) == one.place(old)


def test_a_folder_without_pretrainings_is_refused_before_anything_is_written(new, tmp_path):
    with pytest.raises(InputError, match="is no study's folder"):
        run(new, tmp_path / "out", pretrained=[tmp_path])
    assert not (tmp_path / "out").exists()


def test_a_folder_of_pretrainings_alone_is_no_study_and_the_refusal_says_how_to_use_it(
    old, new, tmp_path, monkeypatch
):
    monkeypatch.setattr(worker, "pretrain", never)
    alone = tmp_path / "alone"
    shutil.copytree(old / "pretrain", alone / "pretrain")
    with pytest.raises(OutputError, match=f"--pretrained {re.escape(str(alone))}[.]$"):
        run(new, alone)
    assert run(new, tmp_path / "out", pretrained=[alone]).failed == ()
    (one,) = new.pretrainings.values()
    assert files(one.place(tmp_path / "out"))["taken.json"] == b'{\n  "study": "alone"\n}\n'

import json
import os
import shutil
import signal
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.errors import (
    ConfigError,
    DiskError,
    InterruptedRun,
    MemoryShortError,
    OutputError,
    StoreError,
    WorkerError,
)
from hounsfield.study import parallel, worker
from hounsfield.study import run as running
from hounsfield.study.cell_folder import Ended
from hounsfield.study.plan import plan
from hounsfield.study.record import CHANGED, write_plan
from hounsfield.study.run import run
from hounsfield.study.worker import Worker
from hounsfield.train.log import bar_over
from hounsfield.train.reconstruct import HIDDEN

SPARK = {
    "spark": {
        "budget": {"steps": 3},
        "batch_size": 8,
        "image_size": 64,
        "options": {"decoder_width": 32},
    }
}
ONE_PRETRAINED = {
    "arms": ["spark"],
    "pretrain": SPARK,
    "repeats": 1,
    "fractions": [1.0],
    "budget": {"steps": 1, "batch": 8, "lr": 0.01},
}


def cell_files(out):
    return {path.parent.name: path for path in out.glob("cells/*/cell.json")}


def test_a_study_pretrains_fine_tunes_and_judges(study, tmp_path):
    planned = plan(study(arms=["scratch", "spark"], pretrain=SPARK, tasks={
        "lesion": {"store": "ct", "label": "lesion"},
        "kind": {"store": "ct", "label": "kind", "level": "patient"},
    }))  # fmt: skip
    outcome = run(planned, tmp_path)
    assert (outcome.cells, outcome.ran, outcome.failed) == (16, 16, ())
    facts = json.loads((tmp_path / "study.json").read_text())
    assert set(facts["cells"]) == set(cell_files(tmp_path))
    assert set(facts["tasks"]) == {"lesion", "kind"}
    results = pl.read_parquet(tmp_path / "results.parquet")
    assert set(results["task"]) <= {"lesion", "kind"}
    (encoder,) = tmp_path.glob("pretrain/*/encoder.safetensors")
    starts = {
        json.loads(path.read_text())["pretrain_hash"] for path in cell_files(tmp_path).values()
    }
    assert starts == {None, encoder.parent.name}
    ladders = pl.read_parquet(tmp_path / "ladders.parquet")
    small = ladders.filter(task="lesion", repeat=1, fraction=0.5, split="train")["patient"]
    cell = next(
        cell
        for cell in planned.cells
        if (cell.task, cell.repeat, cell.fraction) == ("lesion", 1, 0.5)
    )
    assert tuple(small) == cell.rung.train


def test_the_folder_says_what_was_seen_and_shows_the_surest_mistakes(study, tmp_path):
    planned = plan(study(repeats=1, fractions=[1.0]))
    run(planned, tmp_path)
    facts = json.loads((tmp_path / "study.json").read_text())
    assert facts["stores"]["ct"]["slices"] == 120
    assert facts["stores"]["ct"]["units"] == {"hu": 120}
    (counts,) = facts["tasks"]["lesion"]["counts"]
    assert counts["test"]["1"] == {"patients": 2, "images": 6}
    assert counts["test"]["0"] == {"patients": 4, "images": 18}
    pictures = json.loads((tmp_path / "pictures" / "pictures.json").read_text())
    assert len(pictures["montage"]) == 8  # two classes of four
    scores = pl.read_parquet(next(tmp_path.glob("cells/*/scores.parquet"))).filter(split="test")
    margin = (scores["logit_1"] - scores["logit_0"]) * (1 - 2 * scores["label"])
    wrong = scores.filter(margin > 0)
    surest = wrong[margin.filter(margin > 0).arg_sort(descending=True).to_list()]["slice"].to_list()
    shown = [entry["slice"] for entry in pictures["mistakes"]]
    assert shown == surest[:4]
    for entry in pictures["montage"] + pictures["mistakes"]:
        assert (tmp_path / "pictures" / entry["file"]).read_bytes().startswith(b"\x89PNG")


def test_a_cell_whose_scores_the_disk_has_torn_is_done_again(study, tmp_path):
    planned = plan(study(repeats=1, fractions=[1.0, 0.5]))
    run(planned, tmp_path)
    numbers = pl.read_parquet(tmp_path / "results.parquet")
    scores = next(tmp_path.glob("cells/*/scores.parquet"))
    scores.write_bytes(scores.read_bytes()[:-20])
    assert run(planned, tmp_path).ran == 1
    assert pl.read_parquet(tmp_path / "results.parquet").equals(numbers)


def test_the_folder_shows_what_a_pretraining_drew_of_slices_that_it_was_shown(study, tmp_path):
    planned = plan(study(**ONE_PRETRAINED))
    run(planned, tmp_path)
    folder = tmp_path / "pictures"
    (ended,) = (json.loads(path.read_text()) for path in tmp_path.glob("pretrain/*/run.json"))
    assert (ended["device"], ended["processes"]) == ("cpu", 1)
    assert {json.loads(path.read_text())["device"] for path in cell_files(tmp_path).values()} == {
        "cpu"
    }
    listed = json.loads((folder / "pictures.json").read_text())["reconstructions"]
    assert len(listed) == 4
    splits = pl.read_parquet(tmp_path / "splits.parquet")
    assert {one["patient"] for one in listed} <= set(splits.filter(split="train")["patient"])
    images = Store.open(planned.tasks["lesion"].store)
    for one in listed:
        whole, visible, drawn = (
            np.asarray(Image.open(folder / one[key])).astype(int)
            for key in ("file", "visible", "drawn")
        )
        assert images.index["patient"][one["slice"]] == one["patient"]
        (pixels,) = images.read(np.array([one["slice"]]))
        assert abs(whole.mean() - (pixels.mean() + 1000) / 2000 * 255) < 0.5  # the wide window
        hidden = (visible == HIDDEN).all(axis=-1)
        assert hidden.mean() == 0.5  # two patches of four
        assert (visible[~hidden] == whole[~hidden][:, None]).all()
        assert (drawn[~hidden] == whole[~hidden]).all()
        assert (drawn[hidden] != whole[hidden]).any()


def test_an_ended_study_needs_the_checkpoints_of_its_pretrainings_no_more(study, tmp_path):
    planned = plan(study(**ONE_PRETRAINED))
    run(planned, tmp_path)
    listed = (tmp_path / "pictures" / "pictures.json").read_text()
    shutil.rmtree(next(tmp_path.glob("pretrain/*/checkpoints")))
    run(planned, tmp_path)
    assert (tmp_path / "pictures" / "pictures.json").read_text() == listed
    shutil.rmtree(tmp_path / "pictures")
    run(planned, tmp_path)
    left = json.loads((tmp_path / "pictures" / "pictures.json").read_text())
    assert left["reconstructions"] == []


def test_finished_cells_are_never_redone_and_failed_ones_are(study, tmp_path):
    planned = plan(study())
    run(planned, tmp_path)
    files = cell_files(tmp_path)
    before = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert run(planned, tmp_path).ran == 0
    name, path = next(iter(files.items()))
    path.write_text(
        path.read_text().replace('"unfinished"', '"failed"').replace('"done"', '"failed"')
    )
    assert run(planned, tmp_path).ran == 1
    after = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert {key for key in before if before[key] != after[key]} == {name}


def test_a_setting_that_comes_back_finds_its_cells_again(study, tmp_path):
    run(plan(study(repeats=1)), tmp_path)
    other = run(plan(study(repeats=1, fractions=[1.0])), tmp_path)
    assert (other.ran, len(cell_files(tmp_path))) == (0, 1)
    again = run(plan(study(repeats=1)), tmp_path)
    assert (again.ran, len(cell_files(tmp_path))) == (0, 2)


def test_a_failed_cell_is_told_and_does_not_stop_the_others(study, tmp_path, monkeypatch):
    planned = plan(study(repeats=1))
    first = planned.cells[0]
    train = Worker.train

    def broken(self, cell):
        if cell.hash == first.hash:
            raise RuntimeError("a cosmic ray")
        return train(self, cell)

    monkeypatch.setattr(Worker, "train", broken)
    outcome = run(planned, tmp_path)
    assert outcome.failed == ((first.place, "RuntimeError: a cosmic ray"),)
    assert not outcome.machine_failed
    assert len(cell_files(tmp_path)) == 2


def test_a_failed_pretraining_costs_its_own_cells_alone(study, tmp_path):
    broken = {"spark": {**SPARK["spark"], "optim": {"lr": 1e30}, "budget": {"steps": 30}}}
    planned = plan(study(arms=["spark", "scratch"], pretrain=broken, repeats=1, fractions=[1.0]))
    outcome = run(planned, tmp_path)
    ((place, reason),) = outcome.failed
    assert place.startswith("spark on lesion")
    assert reason.startswith("the pre-training spark failed: ")
    assert len(list(tmp_path.glob("cells/*/scores.parquet"))) == 1


@pytest.fixture
def one_thread():
    """Each of two jobs has half of the threads, and their number decides how sums are rounded."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_cells_side_by_side_score_what_they_score_alone(study, tmp_path):
    planned = plan(study(repeats=1))
    run(planned, tmp_path / "alone")
    run(planned, tmp_path / "beside", jobs=2)
    for cell in planned.cells:
        one, two = (
            pl.read_parquet(tmp_path / name / "cells" / cell.hash / "scores.parquet")
            for name in ("alone", "beside")
        )
        assert one.equals(two)


@pytest.mark.usefixtures("one_thread")
def test_pretrainings_side_by_side_are_those_made_alone(study, tmp_path):
    planned = plan(study(arms=["spark"], pretrain=SPARK, repeats=1, fractions=[1.0], folds=2))
    run(planned, tmp_path / "alone")
    run(planned, tmp_path / "beside", jobs=2)
    assert len(planned.pretrainings) == 2
    for name in planned.pretrainings:
        one, two = (
            (tmp_path / place / "pretrain" / name / "metrics.jsonl").read_bytes()
            for place in ("alone", "beside")
        )
        assert one == two


def test_a_pretraining_whose_process_dies_costs_its_own_cells_alone(study, tmp_path, monkeypatch):
    planned = plan(study(arms=["spark"], pretrain=SPARK, repeats=1, fractions=[1.0], folds=2))
    monkeypatch.setattr(parallel, "_serve", _dies_in_the_first_pretraining)
    outcome = run(planned, tmp_path, jobs=2)
    ((_, reason),) = outcome.failed
    assert reason.startswith("the pre-training spark failed: its process died (signal SIGKILL)")
    assert outcome.machine_failed
    assert len(list(tmp_path.glob("cells/*/scores.parquet"))) == 1


@pytest.mark.parametrize(
    ("error", "told", "machine"),
    [
        (MemoryShortError("out of memory."), "out of memory.", True),
        (StoreError("it changed."), "it changed.", False),
        (RuntimeError("a cosmic ray"), "RuntimeError: a cosmic ray", False),
    ],
)
def test_whatever_ends_a_pretraining_costs_its_own_cells_alone(
    study, tmp_path, monkeypatch, error, told, machine
):
    def broken(*_anything, **_more):
        raise error

    monkeypatch.setattr(worker, "pretrain", broken)
    monkeypatch.setattr(Worker, "_run", lambda self, cell: Ended(cell.hash, "done", "", 0.0))
    planned = plan(study(arms=["spark", "scratch"], pretrain=SPARK, repeats=1, fractions=[1.0]))
    outcome = run(planned, tmp_path)
    ((place, reason),) = outcome.failed
    assert place.startswith("spark on lesion")
    assert reason == f"the pre-training spark failed: {told}"
    assert outcome.machine_failed == machine


def test_one_part_has_the_threads_of_all_jobs(study, tmp_path, monkeypatch):
    given = []

    def hand(plan, folder, *, threads):
        given.append(threads)
        raise InterruptedRun

    monkeypatch.setattr(parallel, "_Hand", hand)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 12)
    planned = plan(study(repeats=1))
    for parts in (planned.cells[:1], planned.cells):
        with pytest.raises(InterruptedRun), bar_over(None, total=1, done=0) as bar:
            next(parallel.side_by_side(planned, tmp_path, parts, jobs=4, bar=bar))
    assert given == [12, 6]


def test_all_processes_are_told_to_end_before_one_is_waited_for():
    calls = []

    def hand(number):
        process = SimpleNamespace(
            terminate=lambda: calls.append(("end", number)),
            join=lambda: calls.append(("wait", number)),
        )
        return SimpleNamespace(process=process, pipe=SimpleNamespace(close=lambda: None))

    parallel._dismiss([hand(1), hand(2)])
    assert calls == [("end", 1), ("end", 2), ("wait", 1), ("wait", 2)]


def test_a_process_that_dies_over_work_that_it_has_not_read_has_died_like_any_other():
    """Its end of the pipe is reset then, not closed."""
    hand = object.__new__(parallel._Hand)
    hand.pipe, far = Pipe()
    hand.process = SimpleNamespace(join=lambda: None, exitcode=-signal.SIGKILL)
    hand.give(SimpleNamespace(hash="a cell"))
    far.close()
    hand.give(None)
    said = "its process died (signal SIGKILL); if memory ran out, use fewer --jobs"
    assert hand.listen() == parallel.Died(said)
    hand.pipe.close()


@pytest.mark.parametrize(("device", "beside"), [("cpu", 4), ("cuda", 1)])
def test_pretrainings_on_a_gpu_run_one_after_another(study, tmp_path, monkeypatch, device, beside):
    given = []

    def ran(*_anything, jobs, **_more):
        given.append(jobs)
        return iter(())

    monkeypatch.setattr(running, "_run", ran)
    theirs = {"spark": {**SPARK["spark"], "device": device}}
    planned = plan(study(arms=["spark"], pretrain=theirs, device="cpu"))
    running._pretrain(planned, tmp_path, jobs=4)
    assert given == [beside]


def test_a_question_that_is_changed_once_scores_are_there_is_said_for_good(study, tmp_path):
    def told(level):
        asked = {"arm": "spark", "baseline": "scratch", "task": "lesion", "level": level}
        planned = plan(study(arms=["scratch", "spark"], pretrain=SPARK, primary=asked))
        write_plan(planned, tmp_path, leaks=[])
        return CHANGED in json.loads((tmp_path / "study.json").read_text())["warnings"]

    assert [told("slice"), told("patient")] == [False, False]
    (tmp_path / "cells/one").mkdir(parents=True)
    (tmp_path / "cells/one/scores.parquet").touch()
    assert [told("patient"), told("slice"), told("slice")] == [False, True, True]


def test_a_picture_that_cannot_be_drawn_does_not_end_a_judged_study(study, tmp_path, monkeypatch):
    def broken(*_anything):
        raise StoreError("it changed.")

    monkeypatch.setattr(running, "write_pictures", broken)
    monkeypatch.setattr(Worker, "_run", lambda self, cell: Ended(cell.hash, "done", "", 0.0))
    assert run(plan(study(repeats=1)), tmp_path).ran == 2
    assert (tmp_path / "results.parquet").exists()


def test_ctrl_c_keeps_what_is_finished(study, tmp_path, monkeypatch):
    planned = plan(study(repeats=1))
    ran = Worker.run

    def interrupted(self, cell):
        if cell.hash == planned.cells[1].hash:
            raise KeyboardInterrupt
        return ran(self, cell)

    monkeypatch.setattr(Worker, "run", interrupted)
    with pytest.raises(InterruptedRun, match=r"stopped; kept in .*: 1 of 2 cells"):
        run(planned, tmp_path)
    monkeypatch.setattr(Worker, "run", ran)
    assert run(planned, tmp_path).ran == 1


def test_another_studys_folder_is_refused_and_left_alone(study, tmp_path):
    run(plan(study(repeats=1, fractions=[1.0])), tmp_path)
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(OutputError, match="holds the study 'test', not 'other'"):
        run(plan(study(name="other")), tmp_path)
    assert (tmp_path / "study.json").read_bytes() == before


def test_a_study_of_the_same_name_on_other_data_is_refused(study, tmp_path):
    small = {"repeats": 1, "fractions": [1.0]}
    run(plan(study(**small)), tmp_path / "out")
    known = Store.open(study().stores["ct"])
    index = known.index.select("patient", "series", "z", "split", "lesion")
    images = known.read(np.arange(len(known)))
    stranger = write_store(tmp_path / "stranger", images + 1, index).path
    with pytest.raises(OutputError, match=r"none of its stores \(ct\) is one of this study's"):
        run(plan(study(stores={"ct": str(stranger)}, **small)), tmp_path / "out")
    moved = tmp_path / "moved"
    shutil.copytree(known.path, moved)
    assert run(plan(study(stores={"ct": str(moved)}, **small)), tmp_path / "out").ran == 0


def test_a_folder_of_something_else_is_refused(study, tmp_path):
    (tmp_path / "thesis.doc").write_text("chapter 1")
    with pytest.raises(OutputError, match="holds something that is no study"):
        run(plan(study()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_disk_without_space_is_refused_before_anything_is_written(study, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SPARE_BYTES", 2**60)
    with pytest.raises(DiskError, match=r"out needs about 1073741824\.0 GiB and its disk has"):
        run(plan(study()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cell_without_memory_is_the_machines_failure(study, tmp_path, monkeypatch):
    def starved(self, cell):
        raise MemoryShortError("out of memory.")

    monkeypatch.setattr(Worker, "train", starved)
    outcome = run(plan(study(arms=["scratch"], repeats=1, fractions=[1.0])), tmp_path)
    assert [reason for _place, reason in outcome.failed] == ["out of memory."]
    assert outcome.machine_failed


@pytest.mark.parametrize("setting", [{"window": "brian"}, {"recipe": "singel"}])
def test_a_pretraining_that_cannot_be_is_refused_before_anything_is_written(
    study, tmp_path, setting
):
    with pytest.raises(ConfigError, match="Did you mean"):
        plan(study(arms=["spark"], pretrain={"spark": {**SPARK["spark"], **setting}}))


def _dies_at_once(*_anything):
    os._exit(1)


def _dies_in_the_first_pretraining(plan, folder, pipe, threads):
    class Watched:
        send = pipe.send

        def recv(self):
            name = pipe.recv()
            if name == next(iter(plan.pretrainings)):
                os.kill(os.getpid(), signal.SIGKILL)
            return name

    parallel._serve(plan, folder, Watched(), threads)


def test_cells_are_not_lost_in_silence_when_no_process_comes_up(study, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "_serve", _dies_at_once)
    with pytest.raises(WorkerError, match="not run: 2 parts of the study"):
        run(plan(study(arms=["scratch"], repeats=1)), tmp_path, jobs=2)

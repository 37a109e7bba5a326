import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from hounsfield.config import parse
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.errors import (
    BusyError,
    ConfigError,
    DiskError,
    DivergedError,
    InterruptedRun,
    OutputError,
    StoreError,
)
from hounsfield.lock import held
from hounsfield.methods.base import Step
from hounsfield.methods.moco_v2 import MoCoV2
from hounsfield.models.backbone import create
from hounsfield.models.pretrained import load_into
from hounsfield.seeding import stream
from hounsfield.train.pretrain import PretrainConfig, load_pretrain, pretrain


class Poisoned(MoCoV2):
    """Has no loss from the fourth step on."""

    name = "poisoned"

    def forward(self, views):
        self.calls = getattr(self, "calls", 0) + 1
        step = super().forward(views)
        return Step(step.loss * float("nan")) if self.calls > 3 else step


@pytest.fixture
def store(tmp_path):
    noise = stream(0, "images").normal(0, 300, size=(24, 32, 32)).astype(np.int16)
    return write_store(
        tmp_path / "store",
        noise,
        pl.DataFrame(
            {
                "patient": [f"p{row // 4}" for row in range(24)],
                "series": [f"s{row // 4}" for row in range(24)],
                "split": ["train"] * 12 + [None] * 4 + ["val"] * 4 + ["test"] * 4,
            }
        ),
    )


def config(store, **values):
    plain = {
        "method": "moco_v2",
        "stores": [str(store.path)],
        "backbone": "resnet10_tiny",
        "image_size": 32,
        "batch_size": 8,
        "budget": {"steps": 4},
        "loop": {"log_every": 1, "checkpoint_every": 2, "tensorboard": False},
        "device": "cpu",
    }
    return parse(PretrainConfig, {**plain, **values}, where="test")


def test_paths_of_a_file_count_from_its_folder_and_those_of_overrides_from_here(
    tmp_path, monkeypatch
):
    home = tmp_path / "home"
    home.mkdir()
    (home / "weights.pt").touch()
    (home / "run.toml").write_text('stores = ["ct", "../mr"]\ninit = "weights.pt"')
    monkeypatch.chdir(tmp_path)
    given = load_pretrain(Path("home/run.toml"))
    assert given.stores == (f"{home}/ct", f"{home}/../mr")
    assert given.init == f"{home}/weights.pt"
    other = load_pretrain(Path("home/run.toml"), overrides=['stores=["ct"]', "init=weights.pt"])
    assert (other.stores, other.init) == (("ct",), "weights.pt")
    (home / "run.toml").write_text('stores = ["/data/ct"]\ninit = "owner/name"')
    given = load_pretrain(Path("home/run.toml"))
    assert (given.stores, given.init) == (("/data/ct",), "owner/name")
    (home / "run.toml").write_text("stores = 3")
    with pytest.raises(ConfigError, match=r"home/run\.toml: stores = 3 is not allowed"):
        load_pretrain(Path("home/run.toml"))


def test_a_run_leaves_an_encoder_that_loads_as_a_backbone(store, tmp_path):
    run = pretrain(config(store), tmp_path / "run")
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["done"] is True
    assert facts["steps"] == run.steps == 4
    backbone = create("resnet10_tiny")
    load_into(backbone, tmp_path / "run/encoder.safetensors")
    for name, value in load_file(tmp_path / "run/encoder.safetensors").items():
        np.testing.assert_array_equal(backbone.net.state_dict()[name].numpy(), value)
    with safe_open(tmp_path / "run/encoder.safetensors", "np") as file:
        assert file.metadata()["method"] == "moco_v2"


def test_a_finished_run_is_not_trained_again(store, tmp_path):
    pretrain(config(store), tmp_path / "run")
    before = (tmp_path / "run/run.json").stat().st_mtime_ns
    pretrain(config(store), tmp_path / "run")
    assert (tmp_path / "run/run.json").stat().st_mtime_ns == before


def test_a_folder_of_another_configuration_is_refused_and_the_difference_named(store, tmp_path):
    pretrain(config(store), tmp_path / "run")
    with pytest.raises(OutputError, match=r"differs in seed \(0 there, 7 now\)"):
        pretrain(config(store, seed=7), tmp_path / "run")
    with pytest.raises(OutputError, match=r"differs in data"):
        pretrain(config(store, leave_out=["test"]), tmp_path / "run")


def test_a_folder_of_something_else_is_refused_and_left_alone(store, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("dear")
    (tmp_path / "home/.draft.txt.part").write_text("dear too")
    with pytest.raises(OutputError, match="holds something that is no run"):
        pretrain(config(store), tmp_path / "home")
    assert (tmp_path / "home/thesis.txt").read_text() == "dear"
    assert (tmp_path / "home/.draft.txt.part").read_text() == "dear too"


def test_slices_of_left_out_splits_are_never_read(store, tmp_path, monkeypatch):
    seen = set()
    read = Store.read
    monkeypatch.setattr(
        Store, "read", lambda self, rows: (seen.update(rows.tolist()), read(self, rows))[1]
    )
    pretrain(config(store), tmp_path / "run")
    assert seen == set(range(16))


def test_rows_that_are_given_are_the_rows_that_are_read(store, tmp_path, monkeypatch):
    seen = set()
    read = Store.read
    monkeypatch.setattr(
        Store, "read", lambda self, rows: (seen.update(rows.tolist()), read(self, rows))[1]
    )
    rows = {str(store.path): np.array([3, 5, 20])}
    pretrain(config(store, budget={"steps": 1}), tmp_path / "run", rows=rows)
    assert seen == {3, 5, 20}


def test_going_on_from_a_run_starts_with_its_weights(store, tmp_path):
    pretrain(config(store), tmp_path / "first")
    still = {"lr": 1e-30, "weight_decay": 0.0}
    pretrain(
        config(store, init=str(tmp_path / "first"), optim=still, budget={"steps": 1}),
        tmp_path / "second",
    )
    first = load_file(tmp_path / "first/encoder.safetensors")
    second = load_file(tmp_path / "second/encoder.safetensors")
    np.testing.assert_array_equal(first["layer1.0.conv1.weight"], second["layer1.0.conv1.weight"])


def test_the_weights_that_a_run_goes_on_from_are_known_by_what_is_in_them(store, tmp_path):
    for seed in (0, 7):
        pretrain(config(store, seed=seed, budget={"steps": 1}), tmp_path / f"first{seed}")
    going_on = config(store, init=str(tmp_path / "first0"), budget={"steps": 1})
    pretrain(going_on, tmp_path / "second")
    moved = (tmp_path / "first0").rename(tmp_path / "moved")
    pretrain(going_on.model_copy(update={"init": str(moved)}), tmp_path / "second")
    (tmp_path / "first7").rename(tmp_path / "first0")
    with pytest.raises(OutputError, match="differs in init"):
        pretrain(going_on, tmp_path / "second")


def test_the_weights_of_a_run_that_went_wrong_are_where_its_error_says(store, tmp_path):
    poisoned = config(store, method=f"{__name__}:Poisoned", budget={"steps": 9})
    with pytest.raises(DivergedError) as error:
        pretrain(poisoned, tmp_path / "run")
    kept = re.search(r"--set init=(\S+)$", str(error.value))[1]
    calm = config(store, init=kept, budget={"steps": 1})
    assert pretrain(calm, tmp_path / "next").steps == 1


def test_a_second_process_is_refused(store, tmp_path):
    with held(tmp_path / "run"), pytest.raises(BusyError, match=f"process {os.getpid()} "):
        pretrain(config(store), tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "name", "peak", "epochs"),
    [
        ("spark", "lamb", 3.2e-3, 1600),
        ("moco_v2", "sgd", 0.03, 800),
        ("swav", "lars", 4.8, 800),
        ("byol", "lars", 3.2, 1000),
    ],
)
def test_each_papers_settings_give_its_peak_rate(store, method, name, peak, epochs):
    values = {"method": method, "stores": [str(store.path)], "settings": "paper"}
    paper = parse(PretrainConfig, values, where="test")
    assert paper.optim.name == name
    assert paper.optim.peak(paper.batch_size) == pytest.approx(peak)
    assert paper.budget.epochs == epochs
    assert paper.drop_path == (0.05 if method == "spark" else 0.0)


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("spark", {"decoder_width": 768, "decoder_stride": 1, "empty_std": 0.0, "mask_ratio": 0.6}),
        ("moco_v2", {"queue_size": 65_536, "momentum": 0.999, "temperature": 0.2}),
        ("swav", {"prototypes": 3000, "epsilon": 0.05, "queue_size": 0}),
        ("byol", {"momentum": 0.996, "hidden_dim": 4096, "projection_dim": 256}),
    ],
)
def test_each_papers_settings_are_the_methods_own_too(store, method, own):
    values = {"method": method, "stores": [str(store.path)], "settings": "paper"}
    paper = parse(PretrainConfig, values, where="test")
    assert own.items() <= paper.options.items()
    again = parse(PretrainConfig, paper.model_dump(mode="json"), where="config.json")
    assert again == paper


def test_a_batch_of_more_slices_than_there_are_is_told(store, tmp_path, capsys):
    for batch in (16, 17):
        once = config(store, batch_size=batch, budget={"steps": 1})
        pretrain(once, tmp_path / str(batch))
        told = "note: a batch of 17 is more than the 16 slices that there are, so they stand in it "
        assert (told in capsys.readouterr().err) is (batch == 17)


def test_a_run_without_stochastic_depth_is_one_from_before_there_was_any(store, tmp_path):
    finished = pretrain(config(store), tmp_path / "run")
    before = json.loads((finished.folder / "config.json").read_bytes())
    assert before["config"].pop("drop_path") == before["identity"].pop("drop_path") == 0.0
    (finished.folder / "config.json").write_text(json.dumps(before))
    assert pretrain(config(store), tmp_path / "run") == finished
    assert parse(PretrainConfig, before["config"], where="config.json") == config(store)
    with pytest.raises(OutputError, match=r"drop_path \(0\.0 there, 0\.1 now\)"):
        pretrain(config(store, drop_path=0.1), tmp_path / "run")


def test_what_was_trained_with_stochastic_depth_is_saved_without_a_trace_of_it(store, tmp_path):
    run = pretrain(config(store, drop_path=0.5), tmp_path / "dropped")
    plain = pretrain(config(store), tmp_path / "plain")
    dropped, kept = (load_file(one.folder / "encoder.safetensors") for one in (run, plain))
    assert dropped.keys() == kept.keys()
    assert any(not np.array_equal(dropped[name], kept[name]) for name in kept)  # it was at work


def test_what_is_given_beside_a_papers_settings_counts(store):
    values = {"stores": [str(store.path)], "settings": "paper", "spark": {"decoder_width": 64}}
    paper = parse(PretrainConfig, values, where="test")
    assert (paper.options["decoder_width"], paper.options["decoder_stride"]) == (64, 1)
    with pytest.raises(ConfigError, match=r"\[spark\]"):
        parse(PretrainConfig, {**values, "spark": 64}, where="test")


def test_what_is_left_out_of_a_config_is_the_papers_or_ours(store):
    paper = config(store, settings="paper", batch_size=256)
    assert (paper.optim.name, paper.optim.peak(256)) == ("sgd", 0.03)
    assert config(store, method="swav").options["epsilon"] == 0.02
    ours = config(store, optim={"lr": 0.5})
    assert (ours.optim.name, ours.optim.lr, ours.optim.weight_decay) == ("adamw", 0.5, 0.05)


def test_a_store_that_changes_under_a_run_ends_it_and_keeps_the_checkpoint(
    store, tmp_path, monkeypatch
):
    read = Store.read

    def disturbing(self, rows):
        if (tmp_path / "run/checkpoints").exists():
            os.utime(store.path / "shards/00000.npy", ns=(0, 0))
        return read(self, rows)

    monkeypatch.setattr(Store, "read", disturbing)
    loop = {"log_every": 1, "checkpoint_every": 2, "watch_every": 10, "tensorboard": False}
    with pytest.raises(StoreError, match=r"changed while it was read \(shards/00000\.npy\)"):
        pretrain(config(store, loop=loop, budget={"steps": 9}), tmp_path / "run")
    assert list((tmp_path / "run/checkpoints").glob("step-*.pt"))
    assert not (tmp_path / "run/encoder.safetensors").exists()


def test_a_run_whose_store_was_changed_or_lost_a_shard_does_not_go_on(store, tmp_path):
    given = config(store)
    pretrain(given, tmp_path / "run")
    (tmp_path / "run/run.json").unlink()  # as if it had been killed before the end
    index = store.path / "index.parquet"
    pl.read_parquet(index).with_columns(split=pl.lit("train")).write_parquet(index)
    with pytest.raises(OutputError, match="another configuration; it differs in data"):
        pretrain(given, tmp_path / "run")
    (store.path / "shards/00000.npy").unlink()
    with pytest.raises(StoreError, match=r"shards/00000\.npy cannot be read"):
        pretrain(given, tmp_path / "run")


def test_a_budget_in_hours_ends_and_a_second_start_does_not_begin_it_anew(store, tmp_path):
    given = config(store, budget={"hours": 1 / 3600})
    first = pretrain(given, tmp_path / "run")
    assert 1.0 <= first.wall_s < 30.0
    assert first.steps > 1
    (tmp_path / "run/run.json").unlink()
    again = pretrain(given, tmp_path / "run")
    assert again.steps == first.steps


def test_a_wrong_config_is_refused_before_anything_is_written(store, tmp_path):
    with pytest.raises(ConfigError, match="unknown method 'moco'"):
        config(store, method="moco")
    with pytest.raises(ConfigError, match=r"\[moco_v2\].*unknown key.*queu"):
        config(store, moco_v2={"queu": 1})
    with pytest.raises(ConfigError, match="give exactly one of epochs, steps, hours"):
        config(store, budget={"steps": 1, "epochs": 2})
    with pytest.raises(StoreError):
        pretrain(config(store, stores=[str(tmp_path / "none")]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="mask_ratio"):
        pretrain(config(store, method="spark"), tmp_path / "run")
    vit = config(store, method="swav", backbone="vit_tiny_patch16_224", image_size=224)
    with pytest.raises(ConfigError, match="images of 96 px do not go through vit_tiny"):
        pretrain(vit, tmp_path / "run")  # the small crops
    assert not (tmp_path / "run/config.json").exists()


def ctrl_c_once_there_is(folder):
    """As a terminal does it: a signal to this process and to its children, from a thread."""

    def strike():
        while not any(folder.glob("step-*.pt")):
            time.sleep(0.001)
        for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
            os.kill(process.pid, signal.SIGINT)

    threading.Thread(target=strike, daemon=True).start()


def test_two_processes_that_are_stopped_go_on_to_one_run_as_if_nothing_had_been(store, tmp_path):
    given = config(store, processes=2, budget={"steps": 20})
    ctrl_c_once_there_is(tmp_path / "run/checkpoints")
    with pytest.raises(InterruptedRun, match=r"stopped after step \d+ of 20; the state is saved"):
        pretrain(given, tmp_path / "run")
    assert pretrain(given, tmp_path / "run").steps == 20
    pretrain(given, tmp_path / "whole")
    run, whole = (load_file(tmp_path / name / "encoder.safetensors") for name in ("run", "whole"))
    assert run.keys() == whole.keys()
    assert all(np.array_equal(value, whole[name]) for name, value in run.items())
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "whole")]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == [*range(1, 21)]


def test_a_disk_without_room_for_checkpoints_is_refused_before_anything_is_written(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 2**20))
    with pytest.raises(DiskError, match=r"run needs about \d+ MiB and its disk has 1 MiB free"):
        pretrain(config(store), tmp_path / "run")
    assert not (tmp_path / "run").exists()

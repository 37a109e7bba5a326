"""Every alarm, provoked by a training that really goes wrong; healthy ones are left alone."""

import numpy as np
import polars as pl
import pytest
from pydantic import Field

from hounsfield.cli import main
from hounsfield.config import Config
from hounsfield.data.store_writer import write_store
from hounsfield.errors import CollapsedError, DivergedError
from hounsfield.methods.base import Method, Plateau, Step
from hounsfield.methods.byol import BYOL
from hounsfield.methods.swav import SwAV
from hounsfield.models.backbone import create
from hounsfield.models.pretrained import load_into
from hounsfield.seeding import stream
from hounsfield.train import sentinel
from hounsfield.train.pretrain import pretrain
from train.tiny_run import SMALL, config, store

PATIENCE = 20  # steps


class SinkConfig(Config):
    pull: float = Field(default=1.0)


class Sink(Method):
    """Wants every feature to be one: the plainest collapse there is."""

    name = "sink"
    config_class = SinkConfig
    recipe = "single"

    def __init__(self, backbone, config, *, image_size, corpus_size):
        super().__init__()
        self.backbone, self.config = backbone, config

    def forward(self, views):
        return Step(self.config.pull * (self.backbone(views[0]) - 1).square().mean())


class Unguarded(BYOL):
    """BYOL without its predictor."""

    name = "unguarded"

    def predict(self, view):
        return self.projector(self.backbone(view))


class Lopsided(SwAV):
    """Embeds every image at the first prototype."""

    name = "lopsided"

    def embed(self, views):
        first = self.prototypes.weight[:1].detach()
        return [10 * first + 0 * part for part in super().embed(views)]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(sentinel, "PATIENT_STEPS", PATIENCE)


def train(folder, method, *, options=None, steps=60, **values):
    """A pre-training of 24 blobs, or of what lies in the store, looked at every 10 steps."""
    if not (folder / "store").exists():
        store(folder / "store")
    name = method.__name__.lower() if isinstance(method, type) else method
    given = {
        "image_size": 64 if method == "spark" else 32,
        "budget": {"steps": steps},
        "loop": dict.fromkeys(("log_every", "watch_every", "checkpoint_every"), 10)
        | {"tensorboard": False},
        name: SMALL.get(name, {}) | (options or {}),
    }
    path = f"{__name__}:{method.__name__}" if isinstance(method, type) else method
    return pretrain(config(folder / "store", path, **given, **values), folder / "run")


def assert_a_good_checkpoint_is_kept(folder, message):
    load_into(create("resnet10_tiny"), message.rpartition("--set init=")[2])
    assert not (folder / "run/encoder.safetensors").exists()


@pytest.mark.parametrize("method", SMALL)
def test_no_alarm_disturbs_a_healthy_training(method, tmp_path, impatient):
    run = train(tmp_path, method)
    assert run.steps == 60


@pytest.mark.parametrize("method", SMALL)
def test_a_learning_rate_far_too_high_is_named(method, tmp_path):
    with pytest.raises(
        DivergedError, match=r"the loss is nan at step 10\. Likely cause: the learning rate"
    ):
        train(tmp_path, method, optim={"name": "sgd", "lr": 1e9, "clip": None})


def test_byol_whose_weights_decay_away_has_one_feature_for_all(tmp_path):
    with pytest.raises(CollapsedError, match=r"feature std .*all images have one feature.*decay"):
        train(tmp_path, "byol", optim={"weight_decay": 30.0, "lr": 0.01})


def test_slices_that_look_all_alike_have_one_feature_for_all(tmp_path):
    flat = np.full((24, 32, 32), -1000, dtype=np.int16)
    names = [f"p{row}" for row in range(24)]
    write_store(tmp_path / "store", flat, pl.DataFrame({"patient": names, "series": names}))
    with pytest.raises(CollapsedError, match=r"feature std .*alike through this window.*window"):
        train(tmp_path, "moco_v2", window="bone", recipe="paper_two_views")


def test_features_that_become_one_end_the_run_and_keep_the_last_good_checkpoint(tmp_path):
    with pytest.raises(CollapsedError, match="feature std") as error:
        train(tmp_path, Sink, steps=400, optim={"lr": 0.3, "clip": None})
    assert_a_good_checkpoint_is_kept(tmp_path, str(error.value))


def test_byol_without_its_predictor_has_one_projection_for_all(tmp_path, impatient):
    with pytest.raises(
        CollapsedError, match=r"least possible = 0 at step .*same projection.*byol\.momentum"
    ) as error:
        train(
            tmp_path,
            Unguarded,
            options=SMALL["byol"] | {"momentum": 0.0},
            optim={"lr": 0.03, "weight_decay": 0.5},
        )
    assert_a_good_checkpoint_is_kept(tmp_path, str(error.value))


def test_moco_that_cannot_tell_keys_apart_rests_at_chance(tmp_path, impatient):
    with pytest.raises(
        CollapsedError, match=r"ln\(1 \+ queue\) = 3\.219 at step 20: .*moco_v2\.temperature"
    ) as error:
        train(tmp_path, "moco_v2", options={"temperature": 500.0})
    assert_a_good_checkpoint_is_kept(tmp_path, str(error.value))


def test_swav_with_even_assignments_rests_at_its_formula(tmp_path, impatient):
    with pytest.raises(
        CollapsedError, match=r"ln\(prototypes\) = 2\.773 at step .*swav\.epsilon"
    ) as error:
        train(tmp_path, "swav", options={"epsilon": 50.0}, optim={"lr": 0.01})
    assert_a_good_checkpoint_is_kept(tmp_path, str(error.value))


def test_swav_with_all_images_on_one_prototype_is_named(tmp_path):
    with pytest.raises(CollapsedError, match=r"prototype entropy .*one prototype.*swav\.epsilon"):
        train(tmp_path, Lopsided, options=SMALL["swav"])


def test_spark_on_noise_draws_every_patch_as_one_grey(tmp_path, impatient):
    noise = stream(0, "noise").normal(0, 300, size=(32, 64, 64)).astype(np.int16)
    names = [f"p{row // 4}" for row in range(32)]
    write_store(tmp_path / "store", noise, pl.DataFrame({"patient": names, "series": names}))
    with pytest.raises(
        CollapsedError, match=r"a patch's variance = 1 at step .*even grey.*noise.*window"
    ) as error:
        train(tmp_path, "spark", steps=200, optim={"lr": 0.003})
    assert_a_good_checkpoint_is_kept(tmp_path, str(error.value))


def test_a_collapse_ends_the_command_with_3_and_one_line(tmp_path, monkeypatch, capsys):
    store(tmp_path / "store")
    (tmp_path / "run.toml").write_text(
        'method = "byol"\nstores = ["store"]\nbackbone = "resnet10_tiny"\nimage_size = 32\n'
        "batch_size = 8\nbudget.steps = 20\noptim = { lr = 0.01, weight_decay = 30.0 }\n"
        "loop = { watch_every = 10, tensorboard = false }\nbyol = { hidden_dim = 64 }\n"
    )
    monkeypatch.setattr(
        "sys.argv",
        ["hounsfield", "pretrain", str(tmp_path / "run.toml"), "--out", str(tmp_path / "run")],
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: feature std ")


def test_a_run_that_collapsed_goes_on_where_its_owner_insists(tmp_path, monkeypatch):
    store(tmp_path / "store")
    monkeypatch.setattr(sentinel, "LEAST_STD", 10.0)
    given = config(tmp_path / "store", f"{__name__}:Sink", budget={"steps": 8})
    with pytest.raises(CollapsedError, match=r"--set loop\.alarms=false"):
        pretrain(given, tmp_path / "run")
    loop = given.loop.model_copy(update={"alarms": False})
    run = pretrain(given.model_copy(update={"loop": loop}), tmp_path / "run")
    assert run.steps == 8


def test_a_plateau_is_no_alarm_early_nor_in_passing():
    plateau = Plateau(loss=3.0, within=0.1, name="x", meaning="x", cause="x", change="X.")
    rests = {"step": 500, "progress": 0.5, "loss": 3.05, "loss_before": 2.95}
    with pytest.raises(CollapsedError, match=r"^loss = x = 3 at step 500: x\. Likely cause"):
        sentinel.check_plateau(rests, plateau)
    sentinel.check_plateau(rests, None)
    sentinel.check_plateau({**rests, "step": 499}, plateau)
    sentinel.check_plateau({**rests, "progress": 0.09}, plateau)
    sentinel.check_plateau({**rests, "loss": 2.89}, plateau)
    sentinel.check_plateau({**rests, "loss_before": 3.11}, plateau)
    del rests["loss_before"]
    sentinel.check_plateau(rests, plateau)

import json

import numpy as np
import pytest
import torch
from torch import nn

from hounsfield.errors import DivergedError
from hounsfield.methods.base import Step
from hounsfield.seeding import stream
from hounsfield.train.device import fabric
from hounsfield.train.loop import fit
from hounsfield.train.optim import OptimConfig
from hounsfield.train.schedule import Schedule
from hounsfield.train.training import LoopConfig

QUIET = LoopConfig(log_every=2, checkpoint_every=4, tensorboard=False)


class Numbers:
    """Batches of 8 points; batch k is a function of k."""

    batch = 8
    waited_s = 0.0

    def prefetch(self, first, last):
        for step in range(first, last):
            yield torch.from_numpy(stream(0, "points", step).normal(size=(8, 4)))


class Toy(nn.Module):
    """Regression with chance in its forward, a buffer that remembers, and a batch norm."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.register_buffer("seen", torch.zeros(()))

    def before_step(self, progress):
        self.early = progress < 0.5

    def after_step(self, progress):
        self.seen += progress

    def forward(self, views):
        noise = torch.randn(len(views))
        miss = self.net(views)[:, 0] - views.sum(1) + 0.01 * noise
        return Step(miss.square().mean(), {"early": torch.tensor(float(self.early))})


def views(points, generator):
    return points.float() + 0.01 * torch.randn(points.shape, generator=generator)


def train(model, folder=None, *, steps=12, config=QUIET, batches=None, **optim):
    return fit(
        model,
        batches=batches or Numbers(),
        make_views=views,
        optimiser=OptimConfig(**{"lr": 0.05, **optim}),
        schedule=Schedule(steps=steps, warm_up=0.25),
        seed=3,
        config=config,
        fabric=fabric("cpu"),
        folder=folder,
    )


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_the_loss_falls_and_every_line_is_written(tmp_path):
    fitted = train(Toy(), tmp_path, steps=100)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == fitted.curve
    assert [line["step"] for line in lines] == list(range(2, 101, 2))
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]
    assert lines[0]["early"] == 1.0
    assert lines[-1]["early"] == 0.0


class KilledError(Exception):
    pass


class Dying(Numbers):
    def __init__(self, at):
        self.at = at

    def prefetch(self, first, last):
        for step, batch in enumerate(super().prefetch(first, last), start=first):
            if step == self.at:
                raise KilledError
            yield batch


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "lamb"])
def test_a_run_that_died_and_went_on_equals_one_that_did_not(tmp_path, name):
    config = QUIET.model_copy(update={"accumulate": 2, "ema": 0.9, "checkpoint_every": 3})
    whole, cut = Toy(), Toy()
    fitted = train(whole, tmp_path / "whole", name=name, config=config)
    with pytest.raises(KilledError):
        train(cut, tmp_path / "cut", name=name, config=config, batches=Dying(15))
    again = Toy()
    after = train(again, tmp_path / "cut", name=name, config=config)
    assert torch.equal(weights(whole), weights(again))
    assert torch.equal(weights(fitted.ema), weights(after.ema))
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (
        tmp_path / "cut/metrics.jsonl"
    ).read_bytes()


def test_without_a_folder_nothing_touches_the_disk_and_the_result_is_the_same(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    bare, kept = Toy(), Toy()
    before = torch.random.get_rng_state()
    train(bare)
    assert torch.equal(before, torch.random.get_rng_state())
    assert list(tmp_path.iterdir()) == []
    train(kept, tmp_path / "kept")
    assert torch.equal(weights(bare), weights(kept))


def test_accumulated_batches_give_the_gradient_of_one_large_batch():
    class Linear(Toy):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 1)
            nn.init.zeros_(self.net.weight)
            nn.init.zeros_(self.net.bias)

        def forward(self, views):
            return Step((self.net(views)[:, 0] - views.sum(1)).square().mean())

    class Pairs(Numbers):
        batch = 16

        def prefetch(self, first, last):
            halves = list(super().prefetch(2 * first, 2 * last))
            for a, b in zip(halves[::2], halves[1::2], strict=True):
                yield torch.cat([a, b])

    plain = {"name": "sgd", "weight_decay": 0.0}
    one, two = Linear(), Linear()
    config = QUIET.model_copy(update={"accumulate": 2})

    def run(model, batches, config):
        fit(
            model,
            batches=batches,
            make_views=lambda points, generator: points.float(),
            optimiser=OptimConfig(lr=0.05, **plain),
            schedule=Schedule(steps=5),
            seed=0,
            config=config,
            fabric=fabric("cpu"),
        )

    run(one, Pairs(), QUIET)
    run(two, Numbers(), config)
    np.testing.assert_allclose(weights(one), weights(two), rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    class Bad(Toy):
        def forward(self, views):
            step = super().forward(views)
            return Step(step.loss * (float("nan") if self.seen > 2 else 1.0))

    with pytest.raises(DivergedError, match=r"the loss is nan at step 8.*optim\.lr"):
        train(Bad(), tmp_path)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.name.startswith("step-000000004.")


def test_a_loss_that_explodes_is_named(tmp_path):
    with pytest.raises(DivergedError, match=r"the loss is .* after .* at the start"):
        train(Toy(), tmp_path, name="sgd", lr=30.0, steps=40)

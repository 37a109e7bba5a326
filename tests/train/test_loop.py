import json

import numpy as np
import pytest
import torch
from torch import nn

from hounsfield.errors import DivergedError
from hounsfield.methods.base import Step
from hounsfield.train.device import fabric
from hounsfield.train.loop import fit
from hounsfield.train.optim import OptimConfig
from hounsfield.train.schedule import Schedule


def test_the_loss_falls_and_every_line_is_written(toy, tmp_path):
    fitted = toy.train(toy.Model(), tmp_path, steps=100)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == fitted.curve
    assert [line["step"] for line in lines] == list(range(2, 101, 2))
    assert lines[-1]["loss"] < 0.2 * lines[0]["loss"]
    assert lines[0]["early"] == 1.0
    assert lines[-1]["early"] == 0.0


def test_the_share_of_waiting_for_data_is_written_with_the_speed(toy, tmp_path):
    class Slow(toy.Numbers):
        def prefetch(self, first, last):
            for batch in super().prefetch(first, last):
                self.waited_s += 1.0
                yield batch

    for name, batches in (("slow", Slow()), ("quick", toy.Numbers())):
        toy.train(toy.Model(), tmp_path / name, batches=batches)
    slow, quick = (
        [json.loads(line) for line in (tmp_path / name / "speed.jsonl").read_text().splitlines()]
        for name in ("slow", "quick")
    )
    assert [line["step"] for line in slow] == [2, 4, 6, 8, 10, 12]
    for line in slow:  # both are shares of the same time
        assert line["images_per_s"] / line["waited"] == pytest.approx(8)
    assert all(line["waited"] == 0 and line["images_per_s"] > 0 for line in quick)


def test_tensorboard_shows_the_metrics(toy, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = toy.QUIET.model_copy(update={"tensorboard": True})
    curve = toy.train(toy.Model(), tmp_path, config=config).curve
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "lr", "grad_norm"):
        points = [(point.step, point.value) for point in shown.Scalars(name)]
        assert points == [(line["step"], pytest.approx(line[name])) for line in curve]
    assert {"speed/images_per_s", "speed/waited"} <= set(shown.Tags()["scalars"])


class KilledError(BaseException):
    pass


def dying(toy, at):
    class Dying(toy.Numbers):
        def prefetch(self, first, last):
            for step, batch in enumerate(super().prefetch(first, last), start=first):
                if step == at:
                    raise KilledError
                yield batch

    return Dying()


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars", "lamb"])
def test_a_run_that_died_and_went_on_equals_one_that_did_not(toy, tmp_path, name):
    config = toy.QUIET.model_copy(update={"accumulate": 2, "ema": 0.9, "checkpoint_every": 3})
    whole, cut = toy.Model(), toy.Model()
    fitted = toy.train(whole, tmp_path / "whole", name=name, config=config)
    with pytest.raises(KilledError):
        toy.train(cut, tmp_path / "cut", name=name, config=config, batches=dying(toy, 15))
    again = toy.Model()
    after = toy.train(again, tmp_path / "cut", name=name, config=config)
    assert torch.equal(toy.weights(whole), toy.weights(again))
    assert torch.equal(toy.weights(fitted.ema), toy.weights(after.ema))
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (
        tmp_path / "cut/metrics.jsonl"
    ).read_bytes()


def test_without_a_folder_nothing_touches_the_disk_and_the_result_is_the_same(
    toy, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    bare, kept = toy.Model(), toy.Model()
    before = torch.random.get_rng_state()
    toy.train(bare)
    assert torch.equal(before, torch.random.get_rng_state())
    assert list(tmp_path.iterdir()) == []
    toy.train(kept, tmp_path / "kept")
    assert torch.equal(toy.weights(bare), toy.weights(kept))


def test_accumulated_batches_give_the_gradient_of_one_large_batch(toy):
    class Linear(toy.Model):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 1)
            nn.init.zeros_(self.net.weight)
            nn.init.zeros_(self.net.bias)

        def forward(self, views):
            return Step((self.net(views)[:, 0] - views.sum(1)).square().mean())

    class Pairs(toy.Numbers):
        batch = 16

        def prefetch(self, first, last):
            halves = list(super().prefetch(2 * first, 2 * last))
            for a, b in zip(halves[::2], halves[1::2], strict=True):
                yield torch.cat([a, b])

    plain = {"name": "sgd", "weight_decay": 0.0}
    one, two = Linear(), Linear()
    config = toy.QUIET.model_copy(update={"accumulate": 2})

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

    run(one, Pairs(), toy.QUIET)
    run(two, toy.Numbers(), config)
    np.testing.assert_allclose(toy.weights(one), toy.weights(two), rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(toy, tmp_path):
    class Bad(toy.Model):
        def forward(self, views):
            step = super().forward(views)
            return Step(step.loss * (float("nan") if self.seen > 2 else 1.0))

    with pytest.raises(
        DivergedError, match=r"the loss is nan at step 8.*optim\.lr.*init=.*step-000000004"
    ):
        toy.train(Bad(), tmp_path)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.name.startswith("step-000000004.")


def test_a_loss_that_explodes_is_named(toy, tmp_path):
    with pytest.raises(DivergedError, match=r"the loss is .* after .* at the start"):
        toy.train(toy.Model(), tmp_path, name="sgd", lr=30.0, steps=40)


def test_what_a_batch_norm_hides_is_found_before_it_is_saved(toy, tmp_path):
    class Hidden(toy.Model):
        def after_step(self, progress):
            super().after_step(progress)
            if progress > 0.6:
                self.net[1].running_var.fill_(float("inf"))

    with pytest.raises(DivergedError, match=r"net\.1\.running_var is not finite at step 8"):
        toy.train(Hidden(), tmp_path)

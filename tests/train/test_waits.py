"""What a GPU would wait for, found without one: on torch's meta device, which has no numbers.

Whoever asks it for one is refused by torch itself. What is left to look for are copies to the
device, which the host waits for unless it is told not to, and layouts that have to be changed.
"""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hounsfield.augment import ops
from hounsfield.augment.views import RECIPES, recipe
from hounsfield.config import parse
from hounsfield.methods import METHODS, find
from hounsfield.methods.base import Step
from hounsfield.models.backbone import create
from hounsfield.train.optim import OptimConfig
from hounsfield.train.papers import SMALL
from hounsfield.train.schedule import Schedule
from hounsfield.train.training import LoopConfig, Training
from train.tiny_run import SMALL as OPTIONS

DEVICE, SIZE, BATCH = torch.device("meta"), 64, 4
ATEN = torch.ops.aten
# Mixing devices is free for a number in arithmetic, which travels with the kernel; not in `where`.
COPIES = (ATEN._to_copy.default, ATEN.copy_.default)


class Waits(TorchDispatchMode):
    """The operations that a GPU's host would wait for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        ours = [one for one in given if one.device != DEVICE]
        crosses = ours and len(ours) < len(given)
        if func in COPIES:
            told = kwargs.get("non_blocking") or args[2:3] == (True,)
            crosses = (crosses or (ours and out.device == DEVICE)) and not told
        elif func is ATEN.lift_fresh.default:  # a tensor made of Python's numbers, on the device
            crosses = not ours
        elif func is not ATEN.where.self:
            crosses = crosses and any(one.ndim for one in ours)
        if crosses:
            self.found.append(str(func))
        return out


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: torch.ones(3).to(x.device),
        lambda x: x.copy_(torch.ones(3)),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.where(x > 0, torch.tensor(1.0), x),
    ],
)
def test_every_copy_that_waits_is_found(wait):
    with Waits() as waits:
        wait(torch.zeros(3, device=DEVICE))
    assert waits.found


@pytest.mark.parametrize(
    "number",
    [
        lambda x: x[0].item(),
        lambda x: float(x.sum()),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: 1 if x.sum() > 0 else 0,
    ],
)
def test_whoever_asks_for_a_number_is_refused(number):
    with pytest.raises((NotImplementedError, RuntimeError), match=r"(?i)meta"):
        number(torch.zeros(3, device=DEVICE))


@pytest.mark.parametrize(
    "quick",
    [
        lambda x: torch.ones(3).to(x.device, non_blocking=True),
        lambda x: x.copy_(torch.ones(3), non_blocking=True),
        lambda x: x * torch.tensor(2.0) + 1,
        lambda x: torch.where(x > 0, 1.0, 0.0),
        lambda x: torch.full_like(x, 2.0)[torch.arange(2, device=x.device)],
    ],
)
def test_what_nobody_waits_for_is_not_taken_for_a_wait(quick):
    with Waits() as waits:
        quick(torch.zeros(3, device=DEVICE))
    assert not waits.found


@pytest.fixture
def without_noise(monkeypatch):
    """The meta device has no generator, so the one draw on the device is put aside."""
    monkeypatch.setattr(ops, "sample_noise", lambda images, generator: torch.zeros_like(images))


@pytest.mark.parametrize("name", RECIPES)
def test_no_views_wait_for_the_device(name, without_noise):
    images = torch.zeros(BATCH, 1, 64, 64, dtype=torch.int16, device=DEVICE)
    is_hu = torch.ones(BATCH, dtype=torch.bool, device=DEVICE)
    make = recipe(name, size=32)
    with Waits() as waits:
        views = make(images, is_hu, torch.Generator().manual_seed(0))
    assert all(view.device == DEVICE for view in views)
    assert not waits.found


def make(name):
    kind = find(name)
    config = parse(kind.config_class, OPTIONS[name], where=name)
    return kind(create("resnet10_tiny", drop_path=0.1), config, image_size=SIZE, corpus_size=8)


def pretended():
    """What Fabric is to a training, on the meta device."""
    return SimpleNamespace(
        device=DEVICE,
        world_size=1,
        global_rank=0,
        is_global_zero=True,
        setup_module=lambda module: module.to(DEVICE),
        setup_optimizers=lambda optimiser: optimiser,
        no_backward_sync=lambda module, enabled: nullcontext(),
        backward=lambda loss: loss.backward(),
    )


def waits_of(model, views, **rates):
    """Of two steps between two lines of metrics; `views` are on the device already."""
    training = Training(
        model,
        rates=OptimConfig(**rates),
        schedule=Schedule(steps=10, warm_up=0.5),
        images=BATCH,
        seed=0,
        config=LoopConfig(ema=0.9, tensorboard=False),
        fabric=pretended(),
        folder=None,
    )
    with Waits() as waits:
        for _ in range(2):
            training.update(iter([None]), lambda batch, chance: views)
    assert training.step == 2
    return waits.found


@pytest.mark.parametrize("name", METHODS)
def test_no_step_of_a_method_waits_for_the_device(name):
    sizes = [32] * 8 if name == "swav" else [64] if name == "spark" else [32] * 2
    views = [torch.zeros(BATCH, 1, size, size, device=DEVICE) for size in sizes]
    assert not waits_of(make(name), views, **SMALL["optim"])


@pytest.mark.parametrize("name", get_args(OptimConfig.model_fields["name"].annotation))
def test_no_optimiser_waits_for_the_device(toy, name):
    class Quiet(toy.Model):
        def forward(self, views):
            return Step(self.net(views).square().mean())

    assert not waits_of(Quiet(), torch.zeros(BATCH, 4, device=DEVICE), name=name, clip=1.0)


class Convolutions(TorchDispatchMode):
    """Whether each convolution and each of its gradients gets its channels last in memory."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (ATEN.convolution.default, ATEN.convolution_backward.default):
            images = args[:1] if func is ATEN.convolution.default else args[:2]
            self.seen.append((func.__name__, all(one.stride(1) == 1 for one in images)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", METHODS)
def test_no_convolution_has_to_move_the_channels_of_its_input(name):
    method = make(name).to(memory_format=torch.channels_last)
    images = torch.zeros(BATCH, 1, SIZE, SIZE, dtype=torch.int16)
    is_hu = torch.ones(BATCH, dtype=torch.bool)
    views = recipe(method.recipe, size=SIZE)(images, is_hu, torch.Generator().manual_seed(0))
    with Convolutions() as convolutions:
        method(views).loss.backward()
    assert {kind for kind, _ in convolutions.seen} >= {"convolution.default"}
    moved = [kind for kind, last in convolutions.seen if not last]
    # The loss cuts what SparK draws into patches; that gradient is of few channels.
    assert moved == (["convolution_backward.default"] if name == "spark" else [])

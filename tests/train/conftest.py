"""A model and batches so small that the loop itself is what is tested."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

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


@pytest.fixture
def toy():
    return SimpleNamespace(
        Model=Toy, Numbers=Numbers, QUIET=QUIET, train=train, views=views, weights=weights
    )

"""BYOL against its paper's equations, with lightly's loss, momentum and schedule."""

import copy

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule

from hounsfield.errors import ConfigError
from hounsfield.methods.byol import BYOL, BYOLConfig
from hounsfield.models.backbone import create


def make(**options: float) -> BYOL:
    torch.manual_seed(0)
    config = BYOLConfig(**{"hidden_dim": 16, "projection_dim": 8} | options)
    return BYOL(create("resnet10_tiny"), config, image_size=32, corpus_size=100).double()


def views(seed: int) -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 1, 32, 32, generator=chance, dtype=torch.float64) for _ in range(2)]


def test_steps_equal_those_put_together_from_lightlys_parts():
    method = make(momentum=0.9)
    fast = torch.nn.Sequential(copy.deepcopy(method.backbone), copy.deepcopy(method.projector))
    predictor, slow = copy.deepcopy(method.predictor), copy.deepcopy(fast)
    criterion = NegativeCosineSimilarity()
    weights = [*fast.parameters(), *predictor.parameters()]
    mine = [
        *method.backbone.parameters(),
        *method.projector.parameters(),
        *method.predictor.parameters(),
    ]
    for step in range(4):
        a, b = views(step)
        first = criterion(predictor(fast(a)), slow(b).detach())
        second = criterion(predictor(fast(b)), slow(a).detach())
        expected = (2 + 2 * first) + (2 + 2 * second)

        loss = method([a, b]).loss
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
        got, wanted = torch.autograd.grad(loss, mine), torch.autograd.grad(expected, weights)
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-12)
        with torch.no_grad():
            for parameter, other, gradient in zip(mine, weights, wanted, strict=True):
                parameter -= 0.1 * gradient
                other -= 0.1 * gradient
        update_momentum(fast, slow, m=cosine_schedule(step, 4, 0.9, 1.0))
        method.after_step(step / 3)  # lightly's last step is its count less one
    theirs = torch.cat([parameter.flatten() for parameter in slow.parameters()])
    ours = [*method.slow_backbone.parameters(), *method.slow_projector.parameters()]
    torch.testing.assert_close(torch.cat([parameter.flatten() for parameter in ours]), theirs)


def test_the_paper_is_the_default():
    config = BYOLConfig()
    assert (config.momentum, config.hidden_dim, config.projection_dim) == (0.996, 4096, 256)


def test_the_slow_copy_gets_no_gradient_and_stops_following_at_the_end():
    method = make()
    method(views(0)).loss.backward()
    slow = [*method.slow_backbone.parameters(), *method.slow_projector.parameters()]
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in slow)
    before = [parameter.clone() for parameter in slow]
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter += 1
    method.after_step(1.0)
    torch.testing.assert_close(slow, before, rtol=0, atol=0)
    method.after_step(0.0)
    assert not torch.equal(slow[0], before[0])


def test_three_views_are_refused():
    with pytest.raises(ConfigError, match="byol got 3 views of an image and takes 2"):
        make()([*views(0), views(1)[0]])

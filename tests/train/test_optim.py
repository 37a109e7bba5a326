import math

import pytest
import torch
from torch import nn

from hounsfield.train.optim import OptimConfig, build, set_rates

NAMES = ["adamw", "sgd", "lars", "lamb"]


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def one_step(name, config, model):
    optimiser = build(model.parameters(), config, batch=256)
    set_rates(optimiser, factor=1.0, progress=0.0, config=config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()


@pytest.mark.parametrize("name", NAMES)
def test_weights_decay_and_biases_and_norms_do_not(name):
    model = net()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    one_step(name, OptimConfig(name=name, lr=0.1, weight_decay=0.5), model)
    for old, new in zip(before, model.parameters(), strict=True):
        if new.ndim > 1:
            assert new.norm() < old.norm()
        else:
            assert torch.equal(old, new)


def test_the_weight_decay_follows_sparks_cosine():
    config = OptimConfig(name="lamb", weight_decay=0.04, weight_decay_end=0.2)
    optimiser = build(net().parameters(), config, batch=256)
    for step in range(11):
        set_rates(optimiser, factor=1.0, progress=step / 10, config=config)
        expected = 0.2 + (0.04 - 0.2) * (0.5 + 0.5 * math.cos(math.pi * step / 10))
        assert optimiser.param_groups[0]["weight_decay"] == pytest.approx(expected)
        assert optimiser.param_groups[1]["weight_decay"] == 0.0


def test_the_rate_scales_with_the_batch_where_a_paper_says_so():
    assert OptimConfig(lr=0.2, reference_batch=256).peak(4096) == pytest.approx(3.2)
    assert OptimConfig(lr=0.2).peak(4096) == 0.2


def test_what_is_frozen_is_not_handed_to_the_optimiser():
    model = net()
    model[0].requires_grad_(False)
    optimiser = build(model.parameters(), OptimConfig(), batch=8)
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert held == {id(p) for part in (model[1], model[3]) for p in part.parameters()}


def test_lars_scales_each_layers_step_by_its_own_norm():
    """The trust ratio of You et al., arXiv 1708.03888, written out."""
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    config = OptimConfig(name="lars", lr=2.0, weight_decay=0.0, momentum=0.0)
    optimiser = build([weight], config, batch=256)
    weight.grad = torch.tensor([[0.6, 0.8]])
    optimiser.step()
    ratio = 0.001 * 5.0 / 1.0
    expected = torch.tensor([[3.0, 4.0]]) - 2.0 * ratio * torch.tensor([[0.6, 0.8]])
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=0)

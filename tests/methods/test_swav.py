"""SwAV against the original's loop, written out with lightly's loss."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss

from hounsfield.errors import ConfigError
from hounsfield.methods.swav import SwAV, SwAVConfig
from hounsfield.models.backbone import create


def make(*, corpus: int = 100, **options: float) -> SwAV:
    torch.manual_seed(0)
    config = SwAVConfig(**{"hidden_dim": 16, "projection_dim": 8, "prototypes": 6} | options)
    return SwAV(create("resnet10_tiny"), config, image_size=48, corpus_size=corpus).double()


def views(seed: int) -> list[torch.Tensor]:
    """Two large ones and three small ones."""
    chance = torch.Generator().manual_seed(seed)
    sizes = (48, 48, 32, 32, 32)
    return [torch.randn(4, 1, s, s, generator=chance, dtype=torch.float64) for s in sizes]


def test_steps_equal_the_originals_loop_with_lightlys_loss():
    """Prototypes rest for two steps of four images; the queue begins at step 2, is full at 4."""
    method = make(frozen_epochs=0.08, queue_size=8, queue_from=0.3)
    backbone, head, prototypes = (
        copy.deepcopy(part) for part in (method.backbone, method.projector, method.prototypes)
    )
    queue = torch.empty(2, 0, 8, dtype=torch.float64)
    mine = [
        *method.backbone.parameters(),
        *method.projector.parameters(),
        method.prototypes.weight,
    ]
    weights = [*backbone.parameters(), *head.parameters(), prototypes.weight]
    full = []
    for step in range(6):
        drawn = views(step)
        prototypes.weight.data = F.normalize(prototypes.weight.data, dim=1)
        features = [backbone(torch.cat(drawn[:2])), backbone(torch.cat(drawn[2:]))]
        embedded = F.normalize(head(torch.cat(features)), dim=1)
        scores = prototypes(embedded).split(4)
        full.append(queue.shape[1] == 8)
        waiting = [prototypes(rows) for rows in queue] if full[-1] else None
        expected = SwaVLoss()(list(scores[:2]), list(scores[2:]), waiting)[0]

        method.before_step(step / 6)
        loss = method(drawn).loss
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
        got, wanted = torch.autograd.grad(loss, mine), list(torch.autograd.grad(expected, weights))
        if step < 2:
            wanted[-1] = torch.zeros_like(wanted[-1])
        torch.testing.assert_close(list(got), wanted, rtol=1e-7, atol=1e-12)
        with torch.no_grad():
            for parameter, other, gradient in zip(mine, weights, wanted, strict=True):
                parameter -= 0.1 * gradient
                other -= 0.1 * gradient
        method.after_step(step / 6)
        if step >= 2:
            fresh = embedded.detach().split(4)[:2]
            queue = torch.cat([queue, torch.stack(fresh)], dim=1)[:, -8:]
    assert full == [False] * 4 + [True] * 2


def test_the_papers_settings_for_small_batches_are_the_default():
    config = SwAVConfig()
    assert (config.prototypes, config.temperature, config.epsilon) == (3000, 0.1, 0.05)
    assert (config.sinkhorn_iterations, config.queue_size, config.hidden_dim) == (3, 3840, 2048)


def test_weight_decay_does_not_turn_resting_prototypes():
    method = make()
    before = F.normalize(method.prototypes.weight.detach().clone(), dim=1)
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(3):
        method.before_step(step / 100)
        optimiser.zero_grad()
        method(views(step)).loss.backward()
        optimiser.step()
        method.after_step(step / 100)
    method.before_step(0.03)
    torch.testing.assert_close(method.prototypes.weight.detach(), before)


def test_without_a_queue_none_is_filled():
    method = make(queue_size=0)
    method(views(0))
    method.after_step(1.0)
    assert method.queue.rows.shape == (0, 16)
    assert method.queue.filled == 0


def test_entropy_tells_even_use_from_one_prototype_for_all():
    method = make()
    with torch.no_grad():
        method.prototypes.weight.zero_()
        assert method(views(0)).logs["prototype_entropy"] == pytest.approx(1)
        method.prototypes.weight[0] = 100 * method.embed(views(0))[0].mean(0)
    assert method(views(0)).logs["prototype_entropy"] < 0.2


def test_one_view_is_refused():
    with pytest.raises(ConfigError, match="swav got 1 views of an image and takes at least 2"):
        make()(views(0)[:1])

"""MoCo v2 against its paper's algorithm 1, written out slowly."""

import copy

import pytest
import torch
import torch.nn.functional as F

from hounsfield.errors import ConfigError
from hounsfield.methods.moco_v2 import MoCoV2, MoCoV2Config
from hounsfield.models.backbone import create


def make(*, corpus: int = 100, **options: float) -> MoCoV2:
    torch.manual_seed(0)
    config = MoCoV2Config(**{"queue_size": 10, "projection_dim": 8} | options)
    return MoCoV2(create("resnet10_tiny"), config, image_size=32, corpus_size=corpus).double()


def views(seed: int) -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 1, 32, 32, generator=chance, dtype=torch.float64) for _ in range(2)]


def test_steps_equal_the_papers_algorithm():
    method = make(momentum=0.9)
    fast = torch.nn.Sequential(copy.deepcopy(method.backbone), copy.deepcopy(method.projector))
    slow = copy.deepcopy(fast)
    queue = list(method.queue.rows.clone())  # oldest first
    for step in range(4):
        query_view, key_view = views(step)

        for parameter, followed in zip(slow.parameters(), fast.parameters(), strict=True):
            parameter.data = 0.9 * parameter.data + 0.1 * followed.data
        query = F.normalize(fast(query_view), dim=1)
        with torch.no_grad():
            key = F.normalize(slow(key_view), dim=1)
        losses = []
        for one_query, own_key in zip(query, key, strict=True):
            similar = torch.stack([one_query @ own_key] + [one_query @ old for old in queue]) / 0.2
            losses.append(similar.exp().sum().log() - similar[0])
        expected = torch.stack(losses).mean()
        queue = [*queue, *key][-10:]

        step_taken = method([query_view, key_view])
        torch.testing.assert_close(step_taken.loss, expected, rtol=1e-9, atol=0)
        mine = [*method.backbone.parameters(), *method.projector.parameters()]
        got = torch.autograd.grad(step_taken.loss, mine)
        wanted = torch.autograd.grad(expected, list(fast.parameters()))
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-12)
        with torch.no_grad():
            for parameter, other, gradient in zip(mine, fast.parameters(), wanted, strict=True):
                parameter -= 0.1 * gradient
                other -= 0.1 * gradient
        method.after_step(step / 4)
        held = sorted(map(tuple, method.queue.rows.tolist()))
        assert torch.allclose(torch.tensor(held), torch.tensor(sorted(v.tolist() for v in queue)))


def test_the_paper_is_the_default():
    config = MoCoV2Config()
    assert (config.queue_size, config.momentum, config.temperature) == (65_536, 0.999, 0.2)
    method = make(queue_size=65_536, corpus=70_000, projection_dim=128)
    widths = [layer.out_features for layer in method.projector if hasattr(layer, "out_features")]
    assert widths == [method.backbone.embed_dim, 128]
    assert len(method.queue.rows) == 65_536


def test_the_queue_is_no_longer_than_the_corpus():
    assert len(make(queue_size=65_536, corpus=37).queue.rows) == 37


def test_gradient_accumulation_puts_every_key_of_a_step_into_the_queue():
    method = make()
    method(views(0))
    method(views(1))
    assert method.queue.filled == 0
    method.after_step(0.0)
    assert method.queue.filled == 8


def test_one_view_is_refused():
    with pytest.raises(ConfigError, match="moco_v2 got 1 views of an image and takes 2"):
        make()(views(0)[:1])

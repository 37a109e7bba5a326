"""Heads, slow copies and queues."""

import pytest
import torch
from torch import nn

from hounsfield.models.backbone import create
from hounsfield.models.ema import ema_update, slow_copy
from hounsfield.models.gather import JointBatchNorm, gather, own_rows, processes, synchronise
from hounsfield.models.heads import mlp, mlp_batch_norm
from hounsfield.models.queue import Queue


def test_heads_end_in_a_linear_layer_and_norm_only_where_asked():
    assert [type(layer) for layer in mlp(4, 5, 6)] == [nn.Linear, nn.ReLU, nn.Linear]
    normed = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in mlp_batch_norm(4, 5, 6)] == normed


def test_a_slow_copy_follows_its_parameters_and_keeps_its_own_statistics():
    fast = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    slow = slow_copy(fast)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(1)
        fast[1].running_mean.add_(1)
    expected = 0.75 * slow[0].weight + 0.25 * fast[0].weight
    ema_update(slow, fast, 0.75)
    torch.testing.assert_close(slow[0].weight, expected)
    assert slow[1].running_mean.eq(0).all()
    assert not any(parameter.requires_grad for parameter in slow.parameters())


def test_a_slow_copy_drops_no_path_and_the_fast_network_goes_on_dropping():
    fast = create("resnet18", drop_path=0.9).train()
    for block in (block for stage in (fast.net.layer3, fast.net.layer4) for block in stage):
        nn.init.ones_(block.bn2.weight)  # at first it is 0: whether a branch is dropped is not seen
    slow, images = slow_copy(fast), torch.randn(16, 1, 32, 32)
    assert torch.equal(slow(images), slow(images))
    assert not torch.allclose(fast(images), fast(images), atol=0.1)


def test_a_queue_drops_the_oldest_whatever_the_batches():
    queue, given = Queue(5, 1), []
    for batch in ([1, 2], [3, 4], [5, 6], [7], [8, 9, 10, 11, 12, 13, 14], [15]):
        queue.put(torch.tensor(batch, dtype=torch.float32)[:, None])
        given += batch
        held = queue.rows[:, 0].tolist()
        latest = given[-5:]
        assert set(latest) <= set(held)
        assert queue.filled == len(latest)
    assert queue.full


def test_a_queue_goes_on_where_its_state_dict_left_it():
    first, second = Queue(4, 2), Queue(4, 2)
    first.put(torch.ones(3, 2))
    second.load_state_dict(first.state_dict())
    for queue in (first, second):
        queue.put(torch.full((2, 2), 2.0))
    assert torch.equal(first.rows, second.rows)
    assert first.full
    assert second.full


def test_alone_everything_about_processes_is_the_identity():
    part = torch.arange(3.0)
    assert processes() == 1
    assert gather(part) is part
    assert own_rows(part) is part


def test_synchronised_norms_keep_their_names_parameters_and_mode():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    names, scale = list(net.state_dict()), net[1].weight
    synchronise(net)
    assert isinstance(net[1], JointBatchNorm)
    assert list(net.state_dict()) == names
    assert net[1].weight is scale
    assert not net[1].training
    assert synchronise(net)[1] is net[1]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_alone_a_synchronised_norm_is_torchs(momentum):
    torch.manual_seed(0)
    plain, joint = (nn.BatchNorm2d(3, momentum=momentum) for _ in range(2))
    joint = synchronise(joint)
    for _ in range(3):
        images = torch.randn(4, 3, 5, 5)
        torch.testing.assert_close(joint(images), plain(images))
    torch.testing.assert_close(joint.running_var, plain.running_var)

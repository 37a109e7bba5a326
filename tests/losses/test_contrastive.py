"""The contrastive losses and their gradients equal lightly's."""

import lightly.loss
import pytest
import torch
import torch.nn.functional as F

from hounsfield.losses.cosine import cosine_regression
from hounsfield.losses.info_nce import info_nce
from hounsfield.losses.swapped import sinkhorn, swapped_prediction


def drawn(*shape: int, seed: int) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=chance, dtype=torch.float64)


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(drawn(*shape, seed=seed), dim=1).requires_grad_()


def test_info_nce_and_its_gradients_equal_lightlys_with_a_memory_bank():
    query, positive = (drawn(6, 16, seed=seed).requires_grad_() for seed in (0, 1))
    queue = unit(40, 16, seed=2).detach()
    theirs = lightly.loss.NTXentLoss(temperature=0.2, memory_bank_size=(40, 16))
    theirs.double().memory_bank.bank.copy_(queue)
    expected = theirs(query, positive)
    loss = info_nce(F.normalize(query, dim=1), F.normalize(positive, dim=1), queue, temperature=0.2)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    wanted = torch.autograd.grad(expected, [query, positive])
    got = torch.autograd.grad(loss, [query, positive])
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-12)


def test_cosine_regression_and_its_gradients_equal_lightlys():
    prediction, target = drawn(5, 8, seed=3).requires_grad_(), drawn(5, 8, seed=4)
    expected = 2 + 2 * lightly.loss.NegativeCosineSimilarity()(prediction, target)
    loss = cosine_regression(prediction, target)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    (mine,) = torch.autograd.grad(loss, prediction)
    (theirs,) = torch.autograd.grad(expected, prediction)
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_cosine_regression_is_the_squared_distance_of_the_papers_equation_2():
    prediction, target = drawn(5, 8, seed=3), drawn(5, 8, seed=4)
    distance = (F.normalize(prediction, dim=1) - F.normalize(target, dim=1)).square().sum(1)
    torch.testing.assert_close(cosine_regression(prediction, target), distance.mean())


@pytest.mark.parametrize("queued", [0, 10])
def test_swapped_prediction_and_its_gradients_equal_lightlys(queued):
    scores = [unit(7, 12, seed=seed) for seed in range(5)]  # two large views, three small
    waiting = [unit(queued, 12, seed=9 + number).detach() for number in range(2)]
    theirs = lightly.loss.SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)
    expected = theirs(scores[:2], scores[2:], waiting if queued else None)
    assignments = [
        sinkhorn(torch.cat([view, rows]), epsilon=0.05, iterations=3)[:7]
        for view, rows in zip(scores[:2], waiting, strict=True)
    ]
    loss = swapped_prediction(scores, assignments, temperature=0.1)
    torch.testing.assert_close(loss, expected[0], rtol=1e-9, atol=0)
    mine, other = torch.autograd.grad(loss, scores), torch.autograd.grad(expected, scores)
    torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-12)


def test_sinkhorn_uses_prototypes_evenly_and_bears_scores_that_overflow_an_exponential():
    assigned = sinkhorn(drawn(64, 8, seed=5) * 300, epsilon=0.05, iterations=100)
    torch.testing.assert_close(assigned.sum(1), torch.ones(64, dtype=torch.float64))
    even = sinkhorn(drawn(64, 8, seed=5) * 0.1, epsilon=0.05, iterations=100)
    torch.testing.assert_close(even.sum(0), torch.full((8,), 8.0, dtype=torch.float64))


def test_a_query_finds_its_key_more_cheaply_the_closer_it_is():
    key, queue = unit(4, 16, seed=6).detach(), unit(50, 16, seed=7).detach()
    far = unit(4, 16, seed=8).detach()
    losses = [
        float(
            info_nce(F.normalize(key * near + far * (1 - near), dim=1), key, queue, temperature=0.2)
        )
        for near in (0.0, 0.5, 1.0)
    ]
    assert losses[0] > losses[1] > losses[2]

"""Cluster assignments of one view, predicted from the others.

"Unsupervised Learning of Visual Features by Contrasting Cluster Assignments" (arXiv 2006.09882).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignments `(batch, prototypes)` that use every prototype equally: rows sum to 1.

    Section 3.1 and appendix A of the paper, in logarithms, so that no score over- or underflows.

    Args:
        scores: `(batch, prototypes)` cosines, of the whole batch over all processes.
        epsilon: Weight of the entropy; smaller is harder.
        iterations: How often prototypes and samples are made equal in turn.
    """
    log = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    for _ in range(iterations):
        log = torch.log_softmax(log, dim=0)  # every prototype has the same weight
        log = torch.log_softmax(log, dim=1)  # every sample has the same weight
    return log.exp()


def swapped_prediction(
    scores: Sequence[Tensor], assignments: Sequence[Tensor], *, temperature: float
) -> Tensor:
    """Mean cross-entropy of predicting each assignment from every other view: a scalar.

    Equation 6 of the paper.

    Args:
        scores: Of every view, `(batch, prototypes)` cosines; the assigned views come first.
        assignments: Of the first views, `(batch, prototypes)`, rows sum to 1.
        temperature: Divides the scores.
    """
    logs = [torch.log_softmax(view / temperature, dim=1) for view in scores]
    losses = [
        -(assigned * log).sum(dim=1).mean()
        for number, assigned in enumerate(assignments)
        for other, log in enumerate(logs)
        if other != number
    ]
    return torch.stack(losses).mean()

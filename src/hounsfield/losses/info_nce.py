"""The contrastive loss of one positive against a queue of negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(query: Tensor, positive: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Mean cross-entropy of finding each query's positive among itself and the queue: a scalar.

    Equation 1 of "Momentum Contrast for Unsupervised Visual Representation Learning"
    (arXiv 1911.05722).

    Args:
        query: `(batch, dim)`, of unit length.
        positive: `(batch, dim)`, of unit length; the other view of the same image.
        queue: `(size, dim)`, of unit length; views of other images.
        temperature: Divides the cosines.
    """
    matching = (query * positive).sum(dim=1, keepdim=True)
    logits = torch.cat([matching, query @ queue.T], dim=1) / temperature  # (batch, 1 + size)
    first = torch.zeros(len(query), dtype=torch.long, device=query.device)
    return F.cross_entropy(logits, first)

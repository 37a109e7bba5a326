"""The regression of one direction onto another."""

import torch.nn.functional as F
from torch import Tensor


def cosine_regression(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of the normalised vectors, 2 - 2 cos: a scalar in [0, 4].

    Equation 2 of "Bootstrap Your Own Latent" (arXiv 2006.07733).

    Args:
        prediction: `(batch, dim)`.
        target: `(batch, dim)`; whether it gets a gradient is the caller's to say.
    """
    return 2 - 2 * F.cosine_similarity(prediction, target, dim=1).mean()

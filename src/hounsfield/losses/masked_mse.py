"""SparK's loss: hidden patches are to be drawn, each in units of its own mean and spread.

Tian et al. 2023, "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked
Modeling", arXiv 2301.03580, section 3.3; original code
https://github.com/keyu-tian/SparK/blob/a63e386f8e5186bc07ad7fce86e06b08f48a61ea/pretrain/spark.py
"""

from torch import Tensor

SMALLEST_VARIANCE = 1e-6  # keeps a constant patch's target finite; the original code's value


def patchify(images: Tensor, side: int) -> Tensor:
    """The patches of images, row by row: `(batch, patches, channels * side * side)`.

    Args:
        images: `(batch, channels, height, width)`, both sides multiples of `side`.
        side: Pixels along a patch.
    """
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)


def unpatchify(patches: Tensor, side: int, *, height: int, width: int) -> Tensor:
    """The inverse of `patchify`: `(batch, channels, height, width)` in pixels."""
    batch = len(patches)
    cut = patches.reshape(batch, height // side, width // side, -1, side, side)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, height, width)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (unbiased) variance of every patch, each `(batch, patches, 1)`."""
    return patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)


def patch_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of every patch against its normalised target, `(batch, patches)`.

    Args:
        prediction: `(batch, patches, pixels)`, in units of each patch's own mean and spread.
        target: The true patches, `(batch, patches, pixels)`.
    """
    mean, variance = patch_statistics(target)
    normalised = (target - mean) / (variance + SMALLEST_VARIANCE).sqrt()
    return (prediction - normalised).square().mean(dim=-1)


def content(target: Tensor, *, empty_std: float) -> Tensor:
    """How much of every patch is more than noise, 0 (empty) to 1, `(batch, patches)`.

    The share `variance / (variance + empty_std ** 2)`: one half where a patch spreads by
    `empty_std`. With `empty_std = 0` every patch counts fully, as in the paper.

    Unlike the paper: a patch of air has only noise around a constant. Normalised, that noise fills
    the target, costs as much as a patch of anatomy and can be learnt by nobody. With the default
    of 0.05 (25 HU in a window 2000 HU wide), 4 to 11 % of the patches of our test stores (96 and
    128 px, one phantom, two of real CT) count less than half.
    """
    if empty_std == 0.0:
        return target.new_ones(target.shape[:2])
    variance = target.var(dim=-1)
    return variance / (variance + empty_std**2)


def masked_mse(prediction: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted sum of the patches' errors, and the sum of the weights; their ratio is the loss.

    Two sums, so that many processes can divide by the sum over all of them.

    Args:
        prediction: `(batch, patches, pixels)`, in units of each patch's own mean and spread.
        target: The true patches, `(batch, patches, pixels)`.
        weights: `(batch, patches)`; 0 for visible patches.
    """
    return (patch_errors(prediction, target) * weights).sum(), weights.sum()

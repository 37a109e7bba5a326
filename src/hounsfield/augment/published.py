"""The views of the published comparison, for replication.

Wolf et al. 2023, arXiv 2308.06534; code, of which these are the settings:
github.com/Wolfda95/SSL-MedicalImagining-CL-MAE/tree/87a1627, folders CL and MA.

The study spread every slice between its own least and greatest value over 8 bits, which loses HU;
that is done here as well. Colour jitter's hue and saturation, and the conversion to grey, do
nothing to grey images and are left out.

Unlike the study: pixels are interpolated once, through one affine map, not once a transform; only
the slice itself is rounded to 8 bits, not every intermediate result; and a blur's border is
renormalised, not mirrored.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from hounsfield.augment import ops
from hounsfield.augment.geometry import Geometry
from hounsfield.augment.intensity import some
from hounsfield.augment.recipe import Recipe, View
from hounsfield.units import DISPLAY_MAX

LIDC_MEAN, LIDC_STD = (0.1806,), (0.1907,)  # of its MoCo, BYOL and SwAV
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its SparK


def eight_bits(pixels: Tensor, is_hu: Tensor) -> Tensor:
    """[0, 1] in 256 steps: HU spread over each slice's own range, display values as they are."""
    low, high = (end(dim=(1, 2, 3), keepdim=True) for end in (pixels.amin, pixels.amax))
    kinds = is_hu[:, None, None, None]
    low = torch.where(kinds, low, 0.0)
    spread = torch.where(kinds, (high - low).clamp_min(1), float(DISPLAY_MAX))
    return (pixels - low).div_(spread).mul_(255).round_().div_(255)


@dataclass(frozen=True)
class Jittered:
    """Brightness and contrast in a random order, blur, noise; pixels are in [0, 1] already.

    Attributes:
        strength: Brightness and contrast are multiplied by 1 - strength to 1 + strength.
        jitter_share: Share of the views that are.
        blur_share: Share of the views blurred with a standard deviation of 0.1 to 2 px.
        variance: Least and greatest variance of the noise.
        noise_share: Share of the views with noise.
    """

    strength: float = 0.0
    jitter_share: float = 1.0
    blur_share: float = 0.0
    variance: tuple[float, float] = (1e-5, 1e-4)
    noise_share: float = 0.0

    def __call__(self, pixels: Tensor, is_hu: Tensor, generator: Generator, *, size: int) -> Tensor:
        """Views of `pixels` `(batch, 1, size, size)`; only the noise leaves [0, 1]."""
        del is_hu, size
        batch = len(pixels)
        views = pixels.clamp(0, 1)  # bicubic sampling overshoots
        if self.strength:
            views = self.jitter(views, generator)
        if self.blur_share:
            blurred = ops.coin(batch, self.blur_share, generator)
            views = some(views, blurred, ops.blur, ops.uniform(batch, 0.1, 2.0, generator))
        if self.noise_share:
            deviation = ops.uniform(batch, *self.variance, generator).sqrt()
            deviation = deviation * ops.coin(batch, self.noise_share, generator)
            noise = ops.sample_noise(views, generator)
            views = ops.add_noise(views, noise, deviation.to(views.device, non_blocking=True))
        return views

    def jitter(self, views: Tensor, generator: Generator) -> Tensor:
        """Views brighter or darker, with more contrast or less, in either order."""
        batch, ends = len(views), (1 - self.strength, 1 + self.strength)
        jittered = ops.coin(batch, self.jitter_share, generator)
        brightness = ops.uniform(batch, *ends, generator)
        contrast = ops.uniform(batch, *ends, generator)
        bright_first = ops.coin(batch, 0.5, generator)
        views = some(views, jittered & bright_first, ops.brighten, brightness)
        views = some(views, jittered, ops.contrast, contrast)
        return some(views, jittered & ~bright_first, ops.brighten, brightness)


def single(name: str, size: int, channels: int) -> Recipe:
    """Its SparK's: a bicubic crop, mirrored; ImageNet's normalisation.

    With one channel it is normalised by the mean of ImageNet's three.
    """
    geometry = Geometry(scale=(0.67, 1.0), mirror_x=0.5, mode="bicubic")
    mean, std = (
        part if channels == len(part) else (sum(part) / len(part),)
        for part in (IMAGENET_MEAN, IMAGENET_STD)
    )
    view = View(size, geometry, Jittered())
    return Recipe(name, (view,), channels, mean=mean, std=std, prepare=eight_bits)


def two_views(name: str, size: int, channels: int) -> Recipe:
    """Its MoCo's and its BYOL's: half of the views turned anyhow, mirrored both ways, noise."""
    geometry = Geometry(
        scale=(0.2, 1.0), degrees=180, turn_share=0.5, mirror_x=0.5, mirror_y=0.5, turn_first=True
    )
    view = View(size, geometry, Jittered(strength=0.4, blur_share=0.5, noise_share=0.5))
    return Recipe(name, (view, view), channels, mean=LIDC_MEAN, std=LIDC_STD, prepare=eight_bits)


def multi_crop(name: str, size: int, channels: int, small_size: int) -> Recipe:
    """Its SwAV's: two views of nearly everything, six of 10 to 33 %, never mirrored."""
    intensity = Jittered(strength=0.4, jitter_share=0.8, blur_share=0.5)
    large = View(size, Geometry(scale=(0.9, 1.0)), intensity)
    small = View(small_size, Geometry(scale=(0.1, 0.33)), intensity)
    return Recipe(
        name,
        (large,) * 2 + (small,) * 6,
        channels,
        mean=LIDC_MEAN,
        std=LIDC_STD,
        prepare=eight_bits,
    )

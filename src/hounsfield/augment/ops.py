"""Pure functions of images and parameters, and beside each the sampler of its parameters.

Images are float32 `(batch, 1, height, width)`, in HU or display values until `window` maps them to
[0, 1]. Every parameter has one row a sample. Samplers draw on the generator's own device; with a
generator on the CPU the same seed gives the same parameters whatever device the images are on.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

# --- chance -------------------------------------------------------------------------------------


def uniform(batch: int, low: float, high: float, generator: Generator) -> Tensor:
    """A number in [low, high) a sample: `(batch,)`."""
    return low + (high - low) * _rand(batch, generator=generator)


def log_uniform(batch: int, low: float, high: float, generator: Generator) -> Tensor:
    """A number in [low, high) a sample, uniform in its logarithm: `(batch,)`."""
    return uniform(batch, math.log(low), math.log(high), generator).exp()


def coin(batch: int, probability: float, generator: Generator) -> Tensor:
    """True with `probability`, a sample: bool `(batch,)`."""
    return _rand(batch, generator=generator) < probability


def _rand(*shape: int, generator: Generator) -> Tensor:
    return torch.rand(*shape, generator=generator, device=generator.device)


# --- geometry: one affine map from the view to the image, so pixels are interpolated once ---------


def sample_box(
    batch: int,
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: Generator,
) -> Tensor:
    """Crop boxes `(batch, 4)`: centre x, centre y, width, height, in pixels from the outer corner.

    As torchvision's RandomResizedCrop draws them: area and log aspect ratio uniform, ten attempts,
    then the largest central box of an allowed ratio; but the position is not rounded to a pixel.

    Args:
        batch: How many boxes.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        scale: Least and greatest share of the image's area.
        ratio: Least and greatest width / height.
        generator: The chance.
    """
    draw = _rand(batch, 12, 2, generator=generator)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draw[:, :10, 0])
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = (log_low + (log_high - log_low) * draw[:, :10, 1]).exp()
    sizes = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=-1)
    limit = sizes.new_tensor([width, height])
    fits = (sizes <= limit).all(dim=-1)  # (batch, attempts)
    first = fits.float().argmax(dim=1)
    chosen = sizes[torch.arange(batch, device=sizes.device), first]
    whole_ratio = min(max(width / height, ratio[0]), ratio[1])
    whole_height = min(height, width / whole_ratio)
    fallback = sizes.new_tensor([whole_height * whole_ratio, whole_height])
    fitted = fits.any(dim=1, keepdim=True)
    chosen = torch.where(fitted, chosen, fallback)
    corner = torch.where(fitted, draw[:, 10], 0.5) * (limit - chosen)
    return torch.cat([corner + chosen / 2, chosen], dim=1)


def view_map(box: Tensor, *, angle: Tensor, mirror: Tensor, pivot: Tensor) -> Tensor:
    """Affine maps `(batch, 2, 3)` from the view's square [-1, 1]^2 to pixels (x, y) of the image.

    Args:
        box: `(batch, 4)` centre x, y, width, height in pixels.
        angle: `(batch,)` in radians; how far the sampled box is turned about `pivot`.
        mirror: `(batch, 2)`, -1 where x or y is mirrored, else 1.
        pivot: `(batch, 2)` x, y in pixels.
    """
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], dim=-2)
    linear = turn * (mirror * box[:, 2:] / 2)[:, None, :]
    offset = pivot + (turn @ (box[:, :2] - pivot)[:, :, None])[:, :, 0]
    return torch.cat([linear, offset[:, :, None]], dim=2)


def pyramid(images: Tensor, depth: int) -> list[Tensor]:
    """The images and `depth` copies, each half as large as the one before, of means of 2 x 2 px."""
    levels = [images]
    for _ in range(depth):
        height, width = levels[-1].shape[-2:]
        half = ((height + 1) // 2, (width + 1) // 2)
        # Halfway between pixels bilinear is the mean of four: as mode area, in a third of its time.
        levels.append(F.interpolate(levels[-1], size=half, mode="bilinear"))
    return levels


def octaves(maps: Tensor, size: int) -> Tensor:
    """The level of the pyramid nearest to each view's resolution: int64 `(batch,)`, 0 the finest.

    A view of `size` px that shows 2^k image pixels a pixel of its own reads the level that was
    averaged k times; so what bilinear sampling skips is at most a factor of sqrt(2).
    """
    pixels = torch.linalg.vector_norm(maps[:, :, :2], dim=1).prod(dim=1).sqrt() * 2 / size
    return pixels.log2().round().clamp_min(0).long()


def resample(levels: list[Tensor], maps: Tensor, *, size: int, mode: str = "bilinear") -> Tensor:
    """Views `(batch, 1, size, size)`: each pixel read where its map says, at the nearest octave.

    What lies outside the image is 0.

    Args:
        levels: As `pyramid` gives them, deep enough for `octaves(maps, size)`.
        maps: `(batch, 2, 3)` from `view_map`, on any device; read on the host.
        size: Of the view, in pixels.
        mode: `"bilinear"` or `"bicubic"`.
    """
    height, width = levels[0].shape[-2:]
    device = levels[0].device
    theta = maps * (2 / maps.new_tensor([width, height]))[:, None]
    theta = theta - theta.new_tensor([[0, 0, 1], [0, 0, 1]])
    theta = theta.to(device, non_blocking=True)
    octave = octaves(maps, size).clamp_max(len(levels) - 1).cpu()

    def read(level: int, rows: Tensor | slice) -> Tensor:
        grid = _grid(theta[rows], size)
        return F.grid_sample(levels[level][rows], grid, mode=mode, align_corners=False)

    found = sorted(set(octave.tolist()))
    if len(found) == 1:
        return read(found[0], slice(None))
    views = levels[0].new_empty(len(maps), 1, size, size)
    for level in found:
        rows = (octave == level).nonzero()[:, 0].to(device, non_blocking=True)
        views[rows] = read(level, rows)
    return views


def _grid(theta: Tensor, size: int) -> Tensor:
    """`F.affine_grid` without its matrix product, six times as fast on a CPU."""
    place = (torch.arange(size, device=theta.device) * 2 + 1) / size - 1
    along_x = (theta[:, :, 0, None] * place).transpose(1, 2)  # (batch, size, 2)
    along_y = (theta[:, :, 1, None] * place + theta[:, :, 2, None]).transpose(1, 2)
    return along_x[:, None] + along_y[:, :, None]  # (batch, size, size, 2)


def resize(images: Tensor, size: int) -> Tensor:
    """The whole image at `(size, size)`, antialiased; as it is where it has that size already."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


# --- intensity ------------------------------------------------------------------------------------


def sample_window(
    low: Tensor, high: Tensor, *, shift: Tensor, stretch: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Random windows around given ones: lower and upper end, each `(batch,)`.

    Args:
        low: `(batch,)` lower end of the window to vary.
        high: `(batch,)` upper end.
        shift: `(batch,)` how far the centre may move, in widths of the given window.
        stretch: `(batch, 2)` least and greatest factor of the width, uniform in its logarithm.
        generator: The chance.
    """
    batch = len(low)
    move, factor = _rand(2, batch, generator=generator).to(low.device, non_blocking=True)
    width = high - low
    centre = (low + high) / 2 + (2 * move - 1) * shift * width
    least, greatest = stretch.log().unbind(dim=1)
    half = width * (least + (greatest - least) * factor).exp() / 2
    return centre - half, centre + half


def window(images: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """[0, 1]: `low` and below become 0, `high` and above 1; `low`, `high` are `(batch,)`."""
    factor = (1 / (high - low))[:, None, None, None]
    return torch.addcmul((-low)[:, None, None, None] * factor, images, factor).clamp_(0, 1)


def sample_noise(images: Tensor, generator: Generator) -> Tensor:
    """Standard normal noise shaped and placed as `images`, decided by the generator."""
    if generator.device != images.device:
        seed = torch.randint(2**62, (1,), generator=generator, device=generator.device).item()
        generator = Generator(images.device).manual_seed(int(seed))
    return torch.randn(images.shape, generator=generator, device=images.device)


def add_noise(images: Tensor, noise: Tensor, deviation: Tensor) -> Tensor:
    """Images plus `noise` times `deviation` `(batch,)`, in the images' own unit."""
    return torch.addcmul(images, noise, deviation[:, None, None, None])


def blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian blur with `sigma_px` `(batch,)`; at the border the weights inside are renormalised.

    A separable filter is a matrix on each axis, so a batch with a sigma a sample is two batched
    matrix products.
    """
    height, width = images.shape[-2:]
    rows = _gaussian_matrix(sigma_px, height)
    columns = rows if width == height else _gaussian_matrix(sigma_px, width)
    return (rows @ images[:, 0] @ columns.transpose(1, 2))[:, None]


def _gaussian_matrix(sigma_px: Tensor, length: int) -> Tensor:
    place = torch.arange(length, device=sigma_px.device, dtype=sigma_px.dtype)
    distance = (place[:, None] - place[None, :]) / sigma_px.clamp_min(1e-3)[:, None, None]
    return torch.softmax(-(distance**2) / 2, dim=2)  # (batch, length, length)


def gamma(images: Tensor, exponent: Tensor) -> Tensor:
    """Images in [0, 1] to the power of `exponent` `(batch,)`."""
    return images.pow(exponent[:, None, None, None])


def brighten(images: Tensor, factor: Tensor) -> Tensor:
    """Images in [0, 1] times `factor` `(batch,)`, clipped."""
    return (images * factor[:, None, None, None]).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Images in [0, 1] with their distance to their own mean times `factor` `(batch,)`, clipped."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, factor[:, None, None, None]).clamp(0, 1)

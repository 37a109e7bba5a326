"""One slice size for all: area averages of slices, cropped or padded; nothing is interpolated."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hounsfield.data.volume import Volume
from hounsfield.errors import ConfigError, one_of
from hounsfield.units import AIR_HU, DISPLAY_MAX

Crop = Literal["body"]
CROPS: Final[tuple[Crop, ...]] = get_args(Crop)

SIZES: Final = (8, 2048)
SPACINGS_MM: Final = (0.05, 50.0)
BODY_HU, BODY_DISPLAY = -500, DISPLAY_MAX // 10  # what is denser or brighter may be body
BODY_STEP = 4  # the body is looked for on every fourth pixel
MARGIN = 0.03  # of the body's extent, on every side


@dataclass(frozen=True)
class Shape:
    """What every stored slice looks like.

    Attributes:
        size: Height and width in pixels.
        spacing_mm: A fixed pixel size; None scales every slice as a whole to `size`.
        crop: `"body"` cuts every volume to its body first.

    Raises:
        ConfigError: A size or a spacing that no store has.
    """

    size: int
    spacing_mm: float | None = None
    crop: Crop | None = None

    def __post_init__(self) -> None:
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise ConfigError(
                f"a size of {self.size} px is not allowed; give {SIZES[0]} to {SIZES[1]}."
            )
        if self.spacing_mm is not None and not SPACINGS_MM[0] <= self.spacing_mm <= SPACINGS_MM[1]:
            raise ConfigError(
                f"a spacing of {self.spacing_mm} mm is not allowed; "
                f"give {SPACINGS_MM[0]} to {SPACINGS_MM[1]}."
            )
        if self.crop not in (None, *CROPS):
            raise ConfigError(one_of("crop", str(self.crop), CROPS))


def to_shape(volume: Volume, shape: Shape) -> tuple[NDArray[np.int16], tuple[float, float]]:
    """The slices in the stored shape, and the stored pixel's spacing.

    Returns:
        int16 `(z, size, size)` and `(y, x)` in mm, NaN where it is not known. Beyond the image
        lies air in HU, black in display values.
    """
    _, height, width = volume.voxels.shape
    top, left, bottom, right = (
        _body(volume) if shape.crop == "body" else (0.0, 0.0, float(height), float(width))
    )
    pixel_y, pixel_x = volume.spacing_mm[1:]
    known = np.isfinite(pixel_y) and np.isfinite(pixel_x)
    ratio = pixel_x / pixel_y if known else 1.0  # width of a pixel, its height being 1
    if shape.spacing_mm is not None and known:
        step_y = shape.spacing_mm / pixel_y
    else:
        step_y = max(bottom - top, (right - left) * ratio) / shape.size
    step_x = step_y / ratio
    down, across, covered = _averages(
        (height, width),
        shape.size,
        middle=((top + bottom) / 2, (left + right) / 2),
        step=(step_y, step_x),
    )
    beyond = (AIR_HU if volume.units == "hu" else 0) * (1 - covered)
    images = np.empty((len(volume.voxels), shape.size, shape.size), dtype=np.int16)
    for place, image in enumerate(volume.voxels):
        lowered = down @ image.astype(np.float32)  # (size, width)
        images[place] = np.rint((across @ lowered.ravel()).reshape(beyond.shape) + beyond)
    return images, (step_y * pixel_y, step_x * pixel_x)


@lru_cache(maxsize=1)
def _averages(
    extent: tuple[int, int], size: int, *, middle: tuple[float, float], step: tuple[float, float]
) -> tuple[Any, Any, NDArray[np.float32]]:
    """Averages of rows, averages of columns, and the share of every output pixel on the image.

    The first matrix is `(size, height)`. The second takes all rows at once, raveled, and is
    `(size * size, size * width)`: nothing is transposed on the way, which costs more than the sums.
    """
    from scipy import sparse

    rows, columns = (
        area_weights(extent[axis], size, middle=middle[axis], step=step[axis]) for axis in (0, 1)
    )
    each_row = sparse.eye_array(size, dtype=np.float32)
    across = sparse.kron(each_row, sparse.csr_array(columns), format="csr")
    return sparse.csr_array(rows), across, np.outer(rows.sum(1), columns.sum(1))


def area_weights(n_in: int, n_out: int, *, middle: float, step: float) -> NDArray[np.float32]:
    """The share of every input pixel in every output pixel: `(n_out, n_in)`.

    Output pixel i covers `step` input pixels; all outputs together are centred on `middle`. Rows
    sum to 1, or to the share of the output pixel that lies on the input.
    """
    edges = middle + (np.arange(n_out + 1) - n_out / 2) * step
    pixels = np.arange(n_in)
    low = np.maximum(edges[:-1, None], pixels[None, :])
    high = np.minimum(edges[1:, None], pixels[None, :] + 1)
    return (np.clip(high - low, 0, None) / step).astype(np.float32)


def _body(volume: Volume) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of the largest connected body in all slices of a volume."""
    from scipy import ndimage

    _, height, width = volume.voxels.shape
    coarse = volume.voxels[:, ::BODY_STEP, ::BODY_STEP]
    dense = coarse > (BODY_HU if volume.units == "hu" else BODY_DISPLAY)
    dense = ndimage.binary_opening(dense, np.ones((1, 3, 3)))  # table tops and wires go
    pieces, count = ndimage.label(dense)
    if not count:
        return 0.0, 0.0, float(height), float(width)
    largest = int(np.argmax(np.bincount(pieces.ravel())[1:])) + 1
    _, rows, columns = ndimage.find_objects(pieces)[largest - 1]
    margin_y = MARGIN * BODY_STEP * (rows.stop - rows.start)
    margin_x = MARGIN * BODY_STEP * (columns.stop - columns.start)
    return (
        max(rows.start * BODY_STEP - margin_y, 0.0),
        max(columns.start * BODY_STEP - margin_x, 0.0),
        min(rows.stop * BODY_STEP + margin_y, float(height)),
        min(columns.stop * BODY_STEP + margin_x, float(width)),
    )

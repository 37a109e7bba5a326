"""Where an answer came from: Grad-CAM maps of the mistakes that the report shows, on request.

Cells keep their scores and not their weights, so for each arm and task one cell is trained anew;
its chance comes from named streams, so it becomes the model that was judged.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from hounsfield.augment.views import plain_view
from hounsfield.errors import ConfigError
from hounsfield.files import read_object, write_json, write_whole
from hounsfield.progress import bar
from hounsfield.study.classifier import Classifier
from hounsfield.study.plan import Cell, Plan
from hounsfield.study.worker import Worker

WARM = np.array([255.0, 176.0, 0.0])  # readable on grey for every kind of colour vision
STRONGEST = 0.7  # share of the colour where the map is 1
REPEAT = 0  # whose model is asked


def write_saliency(plan: Plan, out: Path) -> int:
    """Add a map to the mistakes that `pictures/pictures.json` lists; give how many have one.

    Controls and frozen features have no network of their own, so theirs stay without. A study whose
    pictures could not be made lists none.

    Raises:
        ConfigError: captum is not installed.
    """
    _captum()
    listed = out / "pictures" / "pictures.json"
    pictures = read_object(listed)
    mistakes = pictures.get("mistakes")
    if not mistakes:
        return 0
    groups = list(_by_cell(plan, [entry for entry in mistakes if "saliency" not in entry]))
    worker = Worker(plan, out)
    with bar("saliency", total=len(groups)) as progress:
        for cell, entries in groups:
            model = worker.train(cell).model
            if model is not None:  # frozen features have no network of their own
                for entry in entries:
                    png = _png(worker, cell, model, entry)
                    write_whole(listed.parent / _name(cell, entry), png)
            progress.advance()
    take_up_maps(plan, listed.parent, mistakes)
    write_json(listed, pictures)
    return sum("saliency" in entry for entry in mistakes)


def take_up_maps(plan: Plan, folder: Path, mistakes: list[dict[str, Any]]) -> None:
    """Tell the mistakes of their maps in `folder`: a map's name has all that decides it."""
    for cell, entries in _by_cell(plan, mistakes):
        for entry in entries:
            if (folder / _name(cell, entry)).exists():
                entry.update(saliency=_name(cell, entry), repeat=REPEAT)


def grad_cam(model: Classifier, view: Tensor, label: int) -> NDArray[np.float64]:
    """How much each pixel's neighbourhood spoke for a class: `(height, width)` within 0 and 1.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization" (arXiv 1610.02391), at the backbone's last feature map, by captum.

    Args:
        model: In any mode; it is left as it was.
        view: `(1, channels, height, width)`, as the model sees it.
        label: The class.
    """
    captum = _captum()
    net = model.backbone.net
    place = net.feature_info[-1]["module"]  # type: ignore[index]
    layer = net.get_submodule(str(place))
    training = model.training
    model.eval()
    cam = captum.LayerGradCam(_Logits(model), layer).attribute(
        view.requires_grad_(), target=label, relu_attributions=True
    )
    model.train(training)
    cam = nn.functional.interpolate(cam.detach(), view.shape[-2:], mode="bilinear")
    values = cam[0, 0].double().cpu().numpy()
    return values / max(float(values.max()), 1e-12)


class _Logits(nn.Module):
    """A classifier whose forward gives logits, as captum expects."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.logits(images)


def _by_cell(
    plan: Plan, mistakes: list[dict[str, Any]]
) -> Iterator[tuple[Cell, list[dict[str, Any]]]]:
    """Each cell that can be asked, with the mistakes on its test patients."""
    protocol = plan.primary.protocol if plan.primary else plan.config.protocols[0]
    for cell in plan.cells:
        if (cell.protocol, cell.repeat) != (protocol, REPEAT) or cell.kind == "control":
            continue
        place = (cell.task, cell.arm, cell.fraction)
        mine = [
            entry
            for entry in mistakes
            if (entry["task"], entry["arm"], entry["fraction"]) == place
            and entry["patient"] in cell.test
        ]
        if mine:
            yield cell, mine


def _name(cell: Cell, entry: Mapping[str, Any]) -> str:
    """Of the map's file: the image, the model and the class that it is asked about."""
    return f"{Path(entry['file']).stem}_{cell.hash}_{entry['predicted']}.png"


def _png(worker: Worker, cell: Cell, model: Classifier, entry: Mapping[str, Any]) -> bytes:
    """The image as the network sees it, warm where it spoke for the answer."""
    task, images = worker.plan.tasks[cell.task], worker.images(cell.task)
    same = (pl.col("slice") == entry["slice"]) & (pl.col("patient") == entry["patient"])
    place = task.images.with_row_index("place").filter(same)["place"][0]
    view = plain_view(
        images.pixels[place : place + 1],
        images.is_hu[place : place + 1],
        size=worker.plan.config.image_size,
        channels=model.backbone.channels,
        window=images.window_hu,
    )
    cam = STRONGEST * grad_cam(model, view, entry["predicted"])[:, :, None]
    grey = view.detach()[0, 0].double().cpu().numpy()
    grey = 255 * (grey - grey.min()) / max(float(np.ptp(grey)), 1e-12)
    blend = grey[:, :, None] * (1 - cam) + WARM * cam
    content = io.BytesIO()
    Image.fromarray(blend.round().astype(np.uint8)).save(content, "PNG", optimize=True)
    return content.getvalue()


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError:
        raise ConfigError(
            "saliency needs captum, which is not installed. "
            "Run: pip install 'hounsfield[saliency]'."
        ) from None
    return attr

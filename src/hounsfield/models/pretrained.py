"""Published checkpoints into a backbone: all of it, or a refusal that lists what does not fit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hounsfield.errors import WeightsError
from hounsfield.models.backbone import Backbone
from hounsfield.models.fit import Fit, first_layer, fits
from hounsfield.models.weights_file import WeightsFile
from hounsfield.models.weights_source import IMAGENET, Card, find
from hounsfield.wording import plural

__all__ = ["IMAGENET", "Card", "fill", "load_into"]

_SHOWN = 20  # names in a message; `Fit.problems` has them all


def load_into(backbone: Backbone, source: str | Path) -> Card:
    """Fill the backbone with a checkpoint's weights and say where they come from.

    Batch-norm statistics come along. A first layer for another number of channels is summed over
    its channels and spread evenly over ours, which keeps the response to an image that is the
    same in every channel. Where several networks of a file would fit (a network and its moving
    average), the trained one is taken before its slow copy, and the first before later ones.

    Args:
        backbone: Filled in place; untouched when the load is refused.
        source: A file, one of our run folders, a Hugging Face hub id (`owner/name`, also with
            `@revision`), or `"imagenet"` for timm's own weights of this backbone.

    Raises:
        WeightsError: There is no such file, it cannot be read safely, or a tensor is missing or
            has another shape; the message lists which.
    """
    card, file = find(source, backbone=backbone.name)
    return fill(backbone, card, file)


def fill(backbone: Backbone, card: Card, file: WeightsFile) -> Card:
    """`load_into` for a file that `find` has read already: the card of what was loaded.

    Raises:
        WeightsError: As `load_into`.
    """
    every = fits(backbone, file.tensors)
    if not every or every[0].problems:
        raise WeightsError(_refusal(backbone, file, every))
    fit, others = every[0], [other for other in every[1:] if not other.problems]
    state, notes = _state(backbone, file, fit)
    backbone.net.load_state_dict(state, strict=True)
    if others:
        also = ", ".join(repr(other.prefix) for other in others)
        notes.append(f"the file holds more networks that fit, under {also}; they were not used")
    return replace(
        card,
        backbone=backbone.name,
        channels=fit.channels,
        prefix=fit.prefix,
        matched=len(fit.tensors),
        unused=len(file.tensors) - len(fit.tensors),
        notes=(*card.notes, *notes),
    )


def _state(backbone: Backbone, file: WeightsFile, fit: Fit) -> tuple[dict[str, Tensor], list[str]]:
    """The network's whole state from a complete fit, and notes on what was changed.

    Raises:
        WeightsError: A value is not a finite number.
    """
    ours = backbone.net.state_dict()
    first = first_layer(backbone.net)
    broken = [name for name, theirs in fit.tensors.items() if not _finite(theirs)]
    if broken:
        raise WeightsError(
            f"{file.path} has values that are not finite numbers in {_few(broken)}. The training "
            "that wrote it had gone wrong; take an earlier checkpoint."
        )
    state = {name: torch.zeros_like(value) for name, value in ours.items()}
    state |= {name: theirs.to(ours[name].dtype) for name, theirs in fit.tensors.items()}
    notes = []
    if fit.channels != backbone.channels:
        total = state[first].sum(dim=1, keepdim=True) / backbone.channels
        state[first] = total.expand_as(ours[first]).contiguous()
        notes.append(f"first layer: {fit.channels} channels summed, over {backbone.channels}")
    kinds = {str(theirs.dtype) for theirs in fit.tensors.values() if theirs.is_floating_point()}
    if kinds != {"torch.float32"}:
        notes.append(f"stored as {', '.join(sorted(kinds))}; loaded as float32")
    return state, notes


def _refusal(backbone: Backbone, file: WeightsFile, every: Sequence[Fit]) -> str:
    size = len(backbone.net.state_dict())
    wanted = f"a {backbone.name} with {plural(backbone.channels, 'input channel')}"
    advice = "`hounsfield weights FILE` says which backbones a file fills."
    if not every:
        return (
            f"{file.path} does not hold {wanted}: none of the network's {size} tensors is in it. "
            f"It holds {_few(list(file.tensors))}. {advice}"
        )
    fit = every[0]
    return (
        f"{file.path} does not fill {wanted}: under the prefix {fit.prefix!r}, "
        f"{len(fit.tensors)} of its {size} tensors fit. {_few(fit.problems)}. {advice}"
    )


def _finite(values: Tensor) -> bool:
    plain = values.layout is torch.strided and not values.is_quantized and not values.is_complex()
    return plain and bool(torch.isfinite(values).all())


def _few(names: Sequence[str]) -> str:
    shown = "; ".join(names[:_SHOWN])
    return shown + (f"; ... ({len(names)} in all)" if len(names) > _SHOWN else "")

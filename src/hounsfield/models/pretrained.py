"""Published checkpoints into a backbone: all of it, or a refusal that lists what does not fit."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hounsfield.errors import WeightsError
from hounsfield.models.backbone import SMALL, Backbone, create
from hounsfield.models.weights_file import WeightsFile
from hounsfield.models.weights_source import IMAGENET, Card, find

__all__ = ["GUESSES", "IMAGENET", "Card", "Fit", "fits", "guess", "load_into"]

# Tried in this order when nobody says which backbone a file is for.
GUESSES = (
    *SMALL,
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152, 200)),
    *(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    "efficientnet_b0",
    "resnext50_32x4d",
    "wide_resnet50_2",
)

# Copies that follow the trained network; they are second choice where both would fit.
_SLOW = re.compile(r"momentum|target|teacher|slow|(?:^|[._])ema(?:[._]|$)|_k\.")
_SHOWN = 20  # names in a message; `Fit.problems` has them all
_TRIED = 8  # prefixes that are looked at closely, those with most names first


@dataclass(frozen=True)
class Fit:
    """How the tensors under one prefix of a file match a network.

    Attributes:
        prefix: What stands before the network's own names in the file.
        tensors: The network's name -> the file's tensor, for those of the right shape.
        channels: Input channels of the file's first layer, 0 where it has none.
        missing: The network's names that the file lacks.
        misshapen: `name (shape in the file, not shape in the network)`.
        beyond: Names inside the network's own parts that only the file has: it is of a deeper
            network, or of another kind.
    """

    prefix: str
    tensors: Mapping[str, Tensor]
    channels: int
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    beyond: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps the file from filling the network, a line a tensor; empty if it fits."""
        return (
            *(f"missing {name}" for name in self.missing),
            *(f"other shape {text}" for text in self.misshapen),
            *(f"not in the network {name}" for name in self.beyond),
        )


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


def fits(backbone: Backbone, tensors: Mapping[str, Tensor]) -> list[Fit]:
    """How a file's tensors match the backbone under each likely prefix, the best first.

    The prefix is whatever stands before most of the backbone's names. The backbone's parts may
    also be numbered in order, as in `nn.Sequential(*net.children())`.
    """
    state = backbone.net.state_dict()
    own = {name: name for name in state}
    found = [
        _fit(backbone, state, tensors, aliases, prefix)
        for aliases in (own, _numbered(backbone.net, own))
        for prefix in _prefixes(tensors, aliases)
    ]
    order = {name: place for place, name in enumerate(tensors)}

    def rank(fit: Fit) -> tuple[bool, int, bool, int]:
        first = min(order[name] for name in order if name.startswith(fit.prefix))
        slow = _SLOW.search(fit.prefix) is not None
        return bool(fit.problems), -len(fit.tensors), slow, first

    return sorted(found, key=rank)


def guess(tensors: Mapping[str, Tensor], names: Sequence[str] = GUESSES) -> list[str]:
    """The names of those backbones that the tensors fill entirely."""
    with torch.device("meta"):  # shapes without memory
        return [
            name
            for name in names
            if any(not fit.problems for fit in fits(create(name, channels=3), tensors))
        ]


def _numbered(net: nn.Module, names: Mapping[str, str]) -> dict[str, str]:
    """Our names -> names in which the network's parts are numbered in order."""
    number = {part: str(place) for place, (part, _) in enumerate(net.named_children())}
    return {
        name: ".".join((number.get(part, part), *rest))
        for name in names
        for part, *rest in [name.split(".")]
    }


def _prefixes(tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> list[str]:
    """What stands before the wanted names in the file, most frequent first."""
    wanted = set(aliases.values())
    votes: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in wanted:
                votes[".".join([*parts[:cut], ""]) if cut else ""] += 1
    return [prefix for prefix, _ in votes.most_common(_TRIED)]


def _fit(
    backbone: Backbone,
    state: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    prefix: str,
) -> Fit:
    first = _first_layer(backbone.net)
    matched: dict[str, Tensor] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    for name, ours in state.items():
        theirs = tensors.get(prefix + aliases[name])
        if theirs is None:
            if not name.endswith("num_batches_tracked"):  # old files lack the counter
                missing.append(name)
        elif theirs.shape == ours.shape or (
            name == first and _without_channels(theirs) == _without_channels(ours)
        ):
            matched[name] = theirs
        else:
            misshapen.append(f"{name} ({tuple(theirs.shape)}, not {tuple(ours.shape)})")
    return Fit(
        prefix,
        matched,
        channels=matched[first].shape[1] if first in matched else 0,
        missing=tuple(missing),
        misshapen=tuple(misshapen),
        beyond=_beyond(backbone.net, tensors, aliases, prefix),
    )


def _beyond(
    net: nn.Module, tensors: Mapping[str, Tensor], aliases: Mapping[str, str], prefix: str
) -> tuple[str, ...]:
    """Tensors inside the network's parts that it lacks; its classifier does not count."""
    wanted = set(aliases.values())
    parts = {name.split(".")[0] for name in wanted}
    head = getattr(net, "pretrained_cfg", {}).get("classifier") or "fc"
    heads = (head,) if isinstance(head, str) else tuple(head)
    return tuple(
        inner
        for name in tensors
        if name.startswith(prefix)
        and (inner := name[len(prefix) :]) not in wanted
        and inner.split(".")[0] in parts
        and not inner.startswith(tuple(f"{head}." for head in heads))
        and not inner.endswith("num_batches_tracked")
    )


def _state(backbone: Backbone, file: WeightsFile, fit: Fit) -> tuple[dict[str, Tensor], list[str]]:
    """The network's whole state from a complete fit, and notes on what was changed.

    Raises:
        WeightsError: A value is not a finite number.
    """
    ours = backbone.net.state_dict()
    first = _first_layer(backbone.net)
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
    wanted = f"a {backbone.name} with {backbone.channels} input channels"
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


def _first_layer(net: nn.Module) -> str:
    """The name of the first convolution's kernel `(out, channels, height, width)`."""
    return next(f"{name}.weight" for name, m in net.named_modules() if isinstance(m, nn.Conv2d))


def _without_channels(kernel: Tensor) -> tuple[int, ...]:
    return (*kernel.shape[:1], -1, *kernel.shape[2:])


def _finite(values: Tensor) -> bool:
    plain = values.layout is torch.strided and not values.is_quantized and not values.is_complex()
    return plain and bool(torch.isfinite(values).all())


def _few(names: Sequence[str]) -> str:
    shown = "; ".join(names[:_SHOWN])
    return shown + (f"; ... ({len(names)} in all)" if len(names) > _SHOWN else "")

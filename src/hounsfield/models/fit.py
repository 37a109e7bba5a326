"""How a file's tensors match a network: by the prefix under which most of its names stand."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from hounsfield.models.backbone import Backbone

# Copies that follow the trained network; they are second choice where both would fit.
_SLOW = re.compile(r"momentum|target|teacher|slow|(?:^|[._])ema(?:[._]|$)|_k\.")
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

    def rank(fit: Fit) -> tuple[bool, bool, int, int]:
        first = min(order[name] for name in order if name.startswith(fit.prefix))
        slow = _SLOW.search(fit.prefix) is not None and not fit.problems
        return bool(fit.problems), slow, -len(fit.tensors), first

    return sorted(found, key=rank)


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
    first = first_layer(backbone.net)
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


def first_layer(net: nn.Module) -> str:
    """The name of the first convolution's kernel `(out, channels, height, width)`."""
    return next(f"{name}.weight" for name, m in net.named_modules() if isinstance(m, nn.Conv2d))


def _without_channels(kernel: Tensor) -> tuple[int, ...]:
    return (*kernel.shape[:1], -1, *kernel.shape[2:])

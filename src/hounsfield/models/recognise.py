"""What a checkpoint is: where it comes from, and which backbones it fills."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hounsfield.models.backbone import SMALL, create
from hounsfield.models.fit import Fit, fits
from hounsfield.models.weights_file import WeightsFile
from hounsfield.models.weights_source import Card, find
from hounsfield.wording import plural

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


@dataclass(frozen=True)
class Found:
    """What `describe` saw: the card, the file, and the fits by backbone, the fullest first."""

    card: Card
    file: WeightsFile
    fits: Mapping[str, Fit]

    @property
    def filled(self) -> tuple[str, ...]:
        """The backbones that the file fills entirely."""
        return tuple(name for name, fit in self.fits.items() if not fit.problems)

    def lines(self) -> list[str]:
        """All of it for a reader, a fact a line."""
        card, tensors = self.card, self.file.tensors
        values = sum(tensor.numel() for tensor in tensors.values())
        facts = {
            "file": f"{card.file} ({self.file.kind}, sha256 {card.sha256})",
            "origin": card.origin or "not known",
            "licence": card.licence or "not known",
            "corpus": ", ".join(f"store {one}" for one in card.stores)
            or card.corpus
            or "not known",
            "holds": f"{len(tensors)} tensors, {values:,} values",
        }
        lines = [f"{name:<8} {text}" for name, text in facts.items()]
        for name in self.filled:
            fit = self.fits[name]
            lines.append(
                f"fills    {name}: all {len(fit.tensors)} tensors "
                + (f"under the prefix {fit.prefix!r}" if fit.prefix else "without a prefix")
                + f", {plural(fit.channels, 'input channel')}; "
                f"{len(tensors) - len(fit.tensors)} more are not the backbone's"
            )
        if self.filled:
            return lines
        lines.append("fills    none of the backbones that were tried")
        for name, fit in list(self.fits.items())[:1]:
            lines.append(f"nearest  {name}: {len(fit.tensors)} tensors under {fit.prefix!r} fit")
            lines += [f"         {problem}" for problem in fit.problems]
        return lines


def describe(source: str | Path, backbones: Sequence[str] = GUESSES) -> Found:
    """What a source is, and how well it fills each of these backbones; none is loaded.

    Raises:
        ConfigError: A backbone has no such name.
        WeightsError: There is no such file, or it cannot be read safely.
    """
    card, file = find(source, backbone=backbones[0])
    return Found(card, file, guess(file.tensors, backbones))


def guess(tensors: Mapping[str, Tensor], backbones: Sequence[str] = GUESSES) -> dict[str, Fit]:
    """The best fit for each backbone of which the tensors hold anything, the fullest first."""
    found: dict[str, Fit] = {}
    sizes: dict[str, int] = {}
    with torch.device("meta"):  # shapes without memory
        for name in backbones:
            network = create(name, channels=3)
            every = fits(network, tensors)
            if every:
                found[name], sizes[name] = every[0], len(network.net.state_dict())
    return dict(
        sorted(
            found.items(),
            key=lambda item: (bool(item[1].problems), -len(item[1].tensors) / sizes[item[0]]),
        )
    )

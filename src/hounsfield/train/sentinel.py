"""Alarms: a training that has gone wrong is ended, named, and told what to change."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from hounsfield.errors import CollapsedError, DivergedError
from hounsfield.methods.base import Plateau

# All thresholds are ours.
# An untrained residual network, in eval mode on CT, has 0.16 or more.
LEAST_STD = 0.01
LEAST_ENTROPY = 0.05  # of 1: nearly all images on one prototype
# A method may rest at its plateau for the first epochs, and short trials are no alarm.
PATIENT_STEPS, PATIENT_SHARE = 500, 0.1
EXPLOSION = 10.0  # times the first loss; no objective here climbs so far and comes back


def check_loss(row: Mapping[str, float], *, first_loss: float) -> None:
    """Raise where the loss or the gradient is not finite or the loss has exploded.

    Args:
        row: A line of metrics with `step`, `loss`, `lr` and, where it is known, `grad_norm`.
        first_loss: The loss of the run's first line.

    Raises:
        DivergedError: The message names the likely cause and the setting to change.
    """
    loss, norm, step = row["loss"], row.get("grad_norm", 0.0), int(row["step"])
    if not math.isfinite(loss):
        what = f"the loss is {loss}"
    elif not math.isfinite(norm):
        what = f"the norm of the gradient is {norm}"
    elif loss > EXPLOSION * max(abs(first_loss), 1.0):
        what = f"the loss is {loss:.4g}, after {first_loss:.4g} at the start,"
    else:
        return
    raise _diverged(what, step=step, lr=row["lr"])


def check_state(state: Mapping[str, object], *, step: int, lr: float) -> None:
    """Raise where a value of a state dict is not finite.

    The loss need not show it: a batch norm hides features of any size until it is used in eval
    mode.

    Raises:
        DivergedError: The message names the likely cause and the setting to change.
    """
    for name, value in state.items():
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise _diverged(f"{name} is not finite", step=step, lr=lr)


def check_features(seen: Mapping[str, float]) -> None:
    """Raise where the features no longer tell images apart.

    Args:
        seen: `step`, `feature_std` and, where a method logs it, `prototype_entropy`.

    Raises:
        CollapsedError: The message names the sign and the settings to change.
    """
    spread, entropy = seen["feature_std"], seen.get("prototype_entropy", 1.0)
    if entropy < LEAST_ENTROPY:
        what = f"prototype entropy {entropy:.2g} (1 is even use): all images on one prototype"
        cause = "the learning rate is too high, or the assignments are too hard"
        change = "Lower optim.lr, raise swav.epsilon, or lower swav.prototypes."
    elif spread < LEAST_STD:
        what = f"feature std {spread:.2g} (0 is complete collapse): all images have one feature"
        cause = (
            "the learning rate or the weight decay is too high, or the slices look all alike "
            "through this window"
        )
        change = "Lower optim.lr or optim.weight_decay, or choose another window."
    else:
        return
    raise _collapsed(f"{what}, at step {int(seen['step'])}", cause=cause, change=change)


def check_plateau(line: Mapping[str, float], plateau: Plateau | None) -> None:
    """Raise where a method, after some patience, still rests where it has learnt nothing.

    Args:
        line: `step`, `progress`, `loss` and, from the second look on, `loss_before`: that of the
            look before, if a line was written since. One that only passes by is not at rest.
        plateau: The method's; None where it has none.

    Raises:
        CollapsedError: The message is the plateau's own.
    """
    if plateau is None or line["step"] < PATIENT_STEPS or line["progress"] < PATIENT_SHARE:
        return
    losses = (line["loss"], line.get("loss_before", math.inf))
    if all(abs(loss - plateau.loss) <= plateau.within for loss in losses):
        what = f"loss = {plateau.name} = {plateau.loss:.4g} at step {int(line['step'])}"
        raise _collapsed(f"{what}: {plateau.meaning}", cause=plateau.cause, change=plateau.change)


def _diverged(what: str, *, step: int, lr: float) -> DivergedError:
    return DivergedError(
        f"{what} at step {step}. Likely cause: the learning rate ({lr:.3g}) is too high. "
        "Lower optim.lr, lengthen optim.warm_up, or set optim.clip=1."
    )


def _collapsed(what: str, *, cause: str, change: str) -> CollapsedError:
    return CollapsedError(
        f"{what}. Likely cause: {cause}. {change} To go on all the same: --set loop.alarms=false."
    )

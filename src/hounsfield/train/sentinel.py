"""Alarms: a training that has gone wrong is ended, named, and told what to change."""

import math
from collections.abc import Mapping

from hounsfield.errors import DivergedError

EXPLOSION = 10.0  # ours: times the first loss; no objective here climbs so far and comes back


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
    raise DivergedError(
        f"{what} at step {step}. Likely cause: the learning rate ({row['lr']:.3g}) is too high. "
        "Lower optim.lr, lengthen optim.warm_up, or set optim.clip=1. "
        "The last good checkpoint is kept."
    )

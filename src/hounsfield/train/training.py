"""A training under way: what a checkpoint holds, and what works on it."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from hounsfield.config import Config
from hounsfield.models.ema import ema_update
from hounsfield.seeding import seed_of
from hounsfield.train import checkpoint, optim
from hounsfield.train.log import Log, say
from hounsfield.train.schedule import Schedule
from hounsfield.train.sentinel import check_loss, check_state

if TYPE_CHECKING:
    from lightning_fabric import Fabric

B = TypeVar("B")
Watch = Callable[[nn.Module, Mapping[str, float]], Mapping[str, float]]
CHECKPOINTS = "checkpoints"


class Memory(Protocol):
    """What a watch remembers from look to look; it goes into checkpoints and comes out of them."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Be as it was then."""


class LoopConfig(Config):
    """How the loop goes about it; nothing here belongs to a method.

    Attributes:
        accumulate: Batches whose gradients make one update.
        ema: Decay of a moving average of the weights; None keeps none.
        log_every: Steps whose mean is a line of metrics.
        watch_every: Steps between two looks at the features.
        checkpoint_every: Steps between two checkpoints.
        tensorboard: Whether to write curves for TensorBoard as well.
        alarms: Whether a collapse that a watch sees ends the training.
    """

    accumulate: PositiveInt = 1
    ema: float | None = Field(default=None, gt=0, lt=1)
    log_every: PositiveInt = 10
    watch_every: PositiveInt = 200
    checkpoint_every: PositiveInt = 500
    tensorboard: bool = True
    alarms: bool = True


class Training:
    """The model, its optimiser and its place in the schedule.

    Attributes:
        step: Updates done.
        progress: The share of the budget that is spent, 0 to 1.
        ema: The model with averaged weights, where they are asked for.
        log: The lines of metrics.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rates: optim.OptimConfig,
        schedule: Schedule,
        images: int,
        seed: int,
        config: LoopConfig,
        fabric: "Fabric",
        folder: Path | None,
        factors: Mapping[nn.Parameter, float] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.rates, self.schedule, self.seed, self.config = rates, schedule, seed, config
        self.fabric, self.folder, self.memory = fabric, folder, memory
        self.model = model.train()
        self.model.to(memory_format=torch.channels_last)
        self._wrapped = fabric.setup_module(_Objective(self.model))
        self._optimiser = optim.build(self.model.parameters(), rates, batch=images, factors=factors)
        self._stepper = fabric.setup_optimizers(self._optimiser)
        self.ema = None if config.ema is None else copy.deepcopy(self.model).requires_grad_(False)
        self.step, self._lr = 0, 0.0
        self._first_loss: float | None = None
        self._line: dict[str, float] = {}
        self._looked_at: dict[str, float] = {}
        self._mean = _Mean()
        self._saved = -1
        self._spent, self._started = 0.0, time.perf_counter()
        offset = self._resume()
        self.progress = schedule.progress(self.step, self.seconds)
        self.log = Log(
            folder if fabric.is_global_zero else None,
            offset=offset,
            step=self.step,
            tensorboard=config.tensorboard,
        )

    @property
    def seconds(self) -> float:
        """Spent so far by all processes of this run; no wall clock, which may be set back."""
        return self._spent + time.perf_counter() - self._started

    def update(self, stream: Iterator[B], make_views: Callable[[B, torch.Generator], Any]) -> None:
        """One step: as many batches as are accumulated, one change of the weights."""
        self.model.before_step(self.progress)  # type: ignore[operator]
        factor = self.schedule.factor(self.progress)
        self._lr = optim.set_rates(
            self._optimiser, factor=factor, progress=self.progress, config=self.rates
        )
        count = self.config.accumulate
        for micro in range(count):
            views = make_views(next(stream), self._seeded(self.step * count + micro))
            with self.fabric.no_backward_sync(self._wrapped, enabled=micro + 1 < count):
                loss, logs = self._wrapped(views)
                self.fabric.backward(loss / count)
            self._mean.add({"loss": loss, **logs})
        self._mean.add({"grad_norm": self._clip()})
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        self.step += 1
        self.progress = self._agreed_progress()
        self.model.after_step(self.progress)  # type: ignore[operator]
        self._average()

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens now."""
        return self.step % every == 0

    def agree(self, asked: bool) -> bool:
        """Whether any process was asked to stop."""
        if self.fabric.world_size == 1:
            return asked
        return bool(self._over_processes(torch.tensor(float(asked)), "sum") > 0)

    def write_line(self) -> None:
        """Write the means since the last line.

        Raises:
            DivergedError: They show that the training has gone wrong.
        """
        self._line = self._checked()
        if self._first_loss is None:
            self._first_loss = self._line["loss"]
        self.log.metrics(self.step, self._line)
        self._mean = _Mean()

    def look(self, watch: Watch) -> None:
        """Write what `watch` sees in the model in eval mode; the weights stay as they are.

        It gets the latest line, with the loss of the line at the look before, if that was another,
        as `loss_before`.
        """
        before = self._looked_at.get("loss") if self._looked_at != self._line else None
        line = self._line if before is None else {**self._line, "loss_before": before}
        self.model.eval()
        try:
            with torch.no_grad():
                seen = watch(self.model, {"step": self.step, **line})
        finally:
            self.model.train()
        self._looked_at = self._line
        if seen:
            self.log.metrics(self.step, seen)

    def save(self) -> None:
        """Write a checkpoint, unless the training has gone wrong since the last line.

        Raises:
            DivergedError: It has gone wrong.
            DiskError: The folder cannot be written.
        """
        if self.folder is None or self._saved == self.step:
            return
        if self._mean:
            self._checked()
        check_state(self.model.state_dict(), step=self.step, lr=self._lr)
        if self.fabric.is_global_zero:
            checkpoint.save(self.folder / CHECKPOINTS, self._state(), step=self.step)
        self.fabric.barrier()
        self._saved = self.step

    def finish(self) -> None:
        """Write what is left to write, and the last checkpoint."""
        if self._mean:
            self.write_line()
        self.save()

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "memory": None if self.memory is None else self.memory.state_dict(),
            "mean": self._mean.state(),
            "first_loss": self._first_loss,
            "line": self._line,
            "looked_at": self._looked_at,
            "lr": self._lr,
            "seconds": self.seconds,
            "offset": self.log.offset(),
        }

    def _resume(self) -> int:
        """Go on from the newest sound checkpoint; gives back where the metrics go on."""
        found = None
        if self.folder is not None:
            place = self.folder / CHECKPOINTS
            found = checkpoint.newest(place, say=say)
        if found is None:
            return 0
        state, self.step = found
        self._saved = self.step
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])
        self._mean = _Mean(state["mean"])
        self._first_loss, self._line = state["first_loss"], state["line"]
        self._looked_at = state["looked_at"]
        self._lr = state["lr"]
        self._spent = state["seconds"]
        return int(state["offset"])

    def _seeded(self, number: int) -> torch.Generator:
        """The views' generator for batch `number`; the model's own chance is seeded as well."""
        rank = self.fabric.global_rank
        torch.manual_seed(seed_of(self.seed, "forward", number, rank))
        views = torch.Generator()
        return views.manual_seed(seed_of(self.seed, "views", number, rank))

    def _clip(self) -> Tensor:
        """The norm of the gradient before it is clipped."""
        parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
        limit = float("inf") if self.rates.clip is None else self.rates.clip
        return nn.utils.clip_grad_norm_(parameters, limit)

    @torch.no_grad()
    def _average(self) -> None:
        if self.ema is None or self.config.ema is None:
            return
        ema_update(self.ema, self.model, self.config.ema)
        for kept, fresh in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            kept.copy_(fresh)

    def _checked(self) -> dict[str, float]:
        means = self._mean.means(self._over_processes)
        first = means["loss"] if self._first_loss is None else self._first_loss
        row = {"progress": self.progress, "lr": self._lr, **means}
        check_loss({"step": self.step, **row}, first_loss=first)
        return row

    def _agreed_progress(self) -> float:
        progress = self.schedule.progress(self.step, self.seconds)
        if self.schedule.steps is not None or self.fabric.world_size == 1:
            return progress
        return float(self._over_processes(torch.tensor(progress), "mean"))

    def _over_processes(self, value: Tensor, how: str = "mean") -> Tensor:
        if self.fabric.world_size == 1:
            return value
        return self.fabric.all_reduce(value.to(self.fabric.device), reduce_op=how)


class _Objective(nn.Module):
    """The model as Fabric and DDP want it: its forward gives a plain tuple."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, views: Any) -> tuple[Tensor, dict[str, Tensor]]:
        step = self.model(views)
        return step.loss, dict(step.logs)


class _Mean:
    """Sums on the device, read once a line and not every step."""

    def __init__(self, state: Mapping[str, tuple[Tensor, int]] | None = None) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = dict(state or {})

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value.detach().float(), count + 1)

    def means(self, over_processes: Callable[[Tensor], Tensor]) -> dict[str, float]:
        return {
            name: float(over_processes(total / count))
            for name, (total, count) in self._sums.items()
        }

    def state(self) -> dict[str, tuple[Tensor, int]]:
        return dict(self._sums)

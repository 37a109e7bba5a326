"""The loop: any model whose forward gives a `Step`, trained so that a kill loses nothing.

Whatever happens at step k is a function of the weights before it, the seed and k. So a checkpoint
holds weights, the optimiser's state and a few numbers, and no generator's state.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import nn

from hounsfield.errors import InterruptedRun, TrainingError
from hounsfield.progress import Bar
from hounsfield.train import checkpoint
from hounsfield.train.device import fabric as make_fabric
from hounsfield.train.faults import memory_named, reader_named
from hounsfield.train.interrupt import listening
from hounsfield.train.log import bar_over
from hounsfield.train.optim import OptimConfig
from hounsfield.train.schedule import Schedule
from hounsfield.train.training import CHECKPOINTS, LoopConfig, Memory, Training, Watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)
ENDLESS = 2**40  # batches: more than any budget in hours can see
PARTS = 1000  # of the bar, where the budget is in hours


class Batches(Protocol[B_co]):
    """Where batches come from: batch k is a function of the seed and k."""

    batch: int  # images in a batch, over all processes
    waited_s: float  # that the consumer has waited so far

    def prefetch(self, first: int, last: int) -> Iterator[B_co]:
        """Batches `first` to `last - 1`."""


@dataclass(frozen=True)
class Fitted:
    """What a training leaves besides the weights in the model.

    Attributes:
        curve: The lines of metrics: step, loss, lr, ...; those before a resume included. Empty
            in all processes but the first.
        steps: Updates done, those before a resume included.
        wall_s: Seconds of training, those before a resume included.
        images_per_s: In this process's lifetime.
        waited: Share of this process's time that it waited for data.
        ema: A copy of the model with averaged weights, where they were asked for.
    """

    curve: list[dict[str, float]]
    steps: int
    wall_s: float
    images_per_s: float
    waited: float
    ema: nn.Module | None = None


def fit(
    model: nn.Module,
    *,
    batches: Batches[B],
    make_views: Callable[[B, torch.Generator], Any],
    optimiser: OptimConfig,
    schedule: Schedule,
    seed: int,
    config: LoopConfig | None = None,
    fabric: "Fabric | None" = None,
    folder: Path | None = None,
    label: str | None = None,
    watch: Watch | None = None,
    factors: Mapping[nn.Parameter, float] | None = None,
    memory: Memory | None = None,
) -> Fitted:
    """Train `model` in place, on the device of `fabric`.

    Args:
        model: `forward(views) -> Step`, `before_step(progress)`, `after_step(progress)`; what it
            shall not learn has `requires_grad` off.
        batches: Where the images come from.
        make_views: From a batch to what the model's forward takes; it draws from the generator,
            which lives on the CPU, and from nothing else.
        optimiser: The optimiser and its rates.
        schedule: The budget, and the learning rate's way through it.
        seed: Decides all chance, together with the number of the step.
        config: How to go about it.
        fabric: Device, precision and processes, launched; without it one process on the GPU where
            there is one.
        folder: Where metrics and checkpoints go, and where a run that was cut off goes on from;
            without it nothing touches the disk.
        label: Of the progress bar; without it there is none.
        watch: Called every `watch_every` steps with the model in eval mode and the latest line of
            metrics; what it returns is logged, what it raises ends the training.
        factors: Of the learning rates of some parameters; that of the others is 1.
        memory: Of `watch`, where it has one: a run that was cut off goes on with it.

    Raises:
        TrainingError: What `watch` raises.
        DivergedError: The loss or the gradient is not finite, or the loss explodes.
        MemoryShortError: The device or the machine is out of memory.
        DiskError: The folder cannot be written.
        InterruptedRun: Ctrl-C or SIGTERM, where there is a folder; the state is saved.
    """
    config = config or LoopConfig()
    fabric = fabric or make_fabric()
    images = batches.batch * config.accumulate
    with (
        memory_named(),
        torch.random.fork_rng(devices=_gpus(fabric)),  # the caller's generators stay as they are
        listening(active=folder is not None) as interrupt,
    ):
        training = Training(
            model,
            rates=optimiser,
            schedule=schedule,
            images=images,
            seed=seed,
            config=config,
            fabric=fabric,
            folder=folder,
            factors=factors,
            memory=memory,
        )
        pace = _Pace(batches, images, first=training.step)
        with (
            closing(training.log),
            closing(_stream(batches, training)) as stream,
            _bar(training, label) as bar,
            _last_good_named(folder),
        ):
            while training.progress < 1:
                before = _parts(training)
                training.update(stream, make_views)
                bar.advance(_parts(training) - before)
                _write(training, pace, bar, watch)
                _save(training, asked=interrupt.asked)
            training.finish()
    return Fitted(
        curve=training.log.rows() if fabric.is_global_zero else [],
        steps=training.step,
        wall_s=training.seconds,
        ema=training.ema,
        **pace.so_far(training.step),
    )


def _stream(batches: Batches[B], training: Training) -> Generator[B]:
    """The batches that the training has not seen."""
    of_a_step, steps = training.config.accumulate, training.schedule.steps
    end = ENDLESS if steps is None else steps * of_a_step
    return reader_named(batches.prefetch(training.step * of_a_step, end))


def _bar(training: Training, label: str | None) -> AbstractContextManager[Bar]:
    """The bar of the first process; the others, and one without a label, show none."""
    shown = label if training.fabric.is_global_zero else None
    return bar_over(shown, total=training.schedule.steps or PARTS, done=_parts(training))


def _write(training: Training, pace: "_Pace", bar: Bar, watch: Watch | None) -> None:
    """Write what is due after this step."""
    if training.due(training.config.log_every):
        speed = pace.so_far(training.step)
        training.write_line()
        training.log.speed(training.step, speed)
        bar.note(f"{speed['images_per_s']:.0f} images/s")
    if watch is not None and training.due(training.config.watch_every):
        training.look(watch)


def _save(training: Training, *, asked: bool) -> None:
    """Save where that is due after this step, or where any process was asked to stop.

    Raises:
        InterruptedRun: One was.
    """
    stop = training.agree(asked)
    if stop or training.due(training.config.checkpoint_every):
        training.save()
    if stop:
        of = "" if training.schedule.steps is None else f" of {training.schedule.steps}"
        raise InterruptedRun(
            f"stopped after step {training.step}{of}; the state is saved in {training.folder}. "
            "Run the same command again to go on."
        )


@contextmanager
def _last_good_named(folder: Path | None) -> Iterator[None]:
    """Add to what goes wrong in training where the last good checkpoint is."""
    try:
        yield
    except TrainingError as error:
        kept = None if folder is None else checkpoint.latest(folder / CHECKPOINTS)
        if kept is None:
            raise
        raise type(error)(
            f"{error} The last good checkpoint is kept; to go on from its weights with other "
            f"settings: another --out and --set init={kept}"
        ) from error


class _Pace:
    """Images a second and the share of waiting since this process began."""

    def __init__(self, batches: Batches[Any], images: int, *, first: int) -> None:
        self.batches, self.images, self.first = batches, images, first
        self.started, self.waited = time.perf_counter(), batches.waited_s

    def so_far(self, step: int) -> dict[str, float]:
        gone = max(time.perf_counter() - self.started, 1e-9)
        return {
            "images_per_s": (step - self.first) * self.images / gone,
            "waited": (self.batches.waited_s - self.waited) / gone,
        }


def _parts(training: Training) -> int:
    """What the bar counts: steps, or thousandths of a budget in hours."""
    return training.step if training.schedule.steps else int(PARTS * training.progress)


def _gpus(fabric: "Fabric") -> list[torch.device]:
    return [fabric.device] if fabric.device.type == "cuda" else []

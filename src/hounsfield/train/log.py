"""Where a run talks: metrics.jsonl, speed.jsonl, TensorBoard, the bar and the warnings."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hounsfield.files import disk_errors
from hounsfield.progress import Bar, bar

METRICS = "metrics.jsonl"
SPEED = "speed.jsonl"


def say(text: str) -> None:
    """One line to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Log:
    """The lines of a run.

    What is a function of the configuration and the data goes to `metrics.jsonl`; what depends on
    the machine and the day goes to `speed.jsonl`. So a run that was killed and went on ends with
    the same metrics, byte for byte, as one that was not.

    Args:
        folder: Where the lines go; without one they are kept in memory.
        offset: Length of the metrics in bytes that are still true; later ones come again.
        step: The step that the run is at.
        tensorboard: Whether to write curves for TensorBoard as well.
    """

    def __init__(self, folder: Path | None, *, offset: int, step: int, tensorboard: bool) -> None:
        self.folder = folder
        self._rows: list[dict[str, float]] = []
        self._writer: Any = None
        if folder is None:
            return
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / METRICS
            path.touch()
            os.truncate(path, offset)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._writer = SummaryWriter(folder / "tensorboard", purge_step=step)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Write what was learnt at `step`."""
        row = {"step": step, **values}
        if self.folder is None:
            self._rows.append(row)
        self._write(METRICS, row)
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def speed(self, step: int, values: Mapping[str, float]) -> None:
        """Write how fast it went up to `step`."""
        self._write(SPEED, {"step": step, **values})
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"speed/{name}", value, step)

    def rows(self) -> list[dict[str, float]]:
        """Every line of metrics of this run."""
        if self.folder is None:
            return self._rows
        text = (self.folder / METRICS).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def offset(self) -> int:
        """The length of metrics.jsonl in bytes, once all of it is on the disk."""
        if self.folder is None:
            return 0
        with disk_errors(self.folder), (self.folder / METRICS).open("rb") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Flush what TensorBoard still holds."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, name: str, row: Mapping[str, float]) -> None:
        if self.folder is None:
            return
        with disk_errors(self.folder), (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


@contextmanager
def bar_over(label: str | None, *, total: int, done: int) -> Iterator[Bar]:
    """A bar over `total` units; without a label a silent one."""
    if label is None:
        yield _Silent()
        return
    with bar(label, total=total, done=done) as shown:
        yield shown


class _Silent:
    def advance(self, amount: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

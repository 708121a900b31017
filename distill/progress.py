"""Progress of long steps: the interface that reports it, and what stderr shows: bars on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY = 30.0
"""Seconds between lines where no terminal shows bars."""

RATE_OVER = 100
"""Steps whose mean duration gives the remaining time."""


class ReportProgress(Protocol):
    """A function that is called during long steps with their progress."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` parts of a step are finished.

        Args:
            what: the name of the step.
            done: number of finished parts.
            total: number of all parts.
            note: anything else worth showing.
        """


@dataclass(frozen=True)
class TrainingStep:
    """Progress after one training step."""

    step: int
    """Steps taken, starting at 1."""
    steps: int
    """Steps of the whole run."""
    epoch: int
    """Starting at 0."""
    photos_per_second: float
    """Of all processes; texts per second in a stage without photos."""
    losses: dict[str, float]
    """Averaged over all processes: `loss`, the weighted sum, and each term by its name."""
    lr: float
    """Learning rate of everything that has no rate of its own."""
    wait: float = 0.0
    """Share of the step spent waiting for data, 0 to 1."""
    unread: int = 0
    """Number of photos in the run so far that couldn't be read."""


class Rate(ProgressColumn):
    """The current rate per second."""

    def render(self, task: Task) -> Text:
        """Return `12.3/s`, or nothing before the rate is known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f}/s" if speed else "")


class Lines:
    """Writes lines to stderr, for logs: at most one per `LINE_EVERY` seconds, and one at the start of each epoch."""

    def __init__(self) -> None:
        self.last_line = time.monotonic()
        self.long_steps: set[str] = set()
        self.epoch: int | None = None
        self.times: deque[float] = deque(maxlen=RATE_OVER + 1)

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """See `ReportProgress`. A step that takes less than `LINE_EVERY` seconds gives no line."""
        finished = done >= total and what in self.long_steps
        if finished or self._due():
            (self.long_steps.discard if finished else self.long_steps.add)(what)
            self._write(f"{what} {done:,}/{total:,}  {note}".rstrip())

    def step(self, step: TrainingStep, note: str) -> None:
        """Write a line if it is time, or if the step is the first of an epoch or the last of the run."""
        self.times.append(time.monotonic())
        if step.epoch == self.epoch and step.step < step.steps and not self._due():
            return
        self.epoch = step.epoch
        text = f"step {step.step:,}/{step.steps:,}  epoch {step.epoch + 1}  loss {step.losses['loss']:.4f}"
        text += f"  lr {step.lr:.2e}  {step.photos_per_second:.1f} samples/s"
        if (steps := len(self.times) - 1) and step.step < step.steps:
            left = (self.times[-1] - self.times[0]) / steps * (step.steps - step.step)
            text += f"  {timedelta(seconds=round(left))} left"
        self._write(text + note)

    def _due(self) -> bool:
        return time.monotonic() - self.last_line >= LINE_EVERY

    def _write(self, text: str) -> None:
        self.last_line = time.monotonic()
        print(text, file=sys.stderr, flush=True)


class Bars:
    """Shows each long step as a bar with its rate and remaining time; where stderr isn't a terminal, as lines.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True)
        self.lines = None if quiet or sys.stderr.isatty() else Lines()
        self.bars = Progress(
            TextColumn("{task.description:>15}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=quiet or self.lines is not None,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` parts of a step are finished; see `ReportProgress`."""
        if self.lines:
            self.lines.report(what, done, total, note)
            return
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total, note=note)
        self.bars.update(self.tasks[what], completed=done, total=total, note=note)

    def step(self, step: TrainingStep) -> None:
        """Show a training step, with waiting time and unreadable photos if there are any."""
        trouble = f"  {step.wait:.0%} waiting for data" if step.wait >= 0.1 else ""
        if step.unread:
            trouble += f"  {step.unread:,} unreadable"
        if self.lines:
            self.lines.step(step, trouble)
            return
        note = f"epoch {step.epoch + 1}  {step.photos_per_second:.0f} photos/s  loss {step.losses['loss']:.3f}"
        self.report("train", step.step, step.steps, note + trouble)

    def say(self, text: str) -> None:
        """Print a line on stderr, even if it isn't a terminal."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

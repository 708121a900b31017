"""Progress of long steps: the interface that reports it, and bars on stderr, which only a terminal shows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
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


class Bars:
    """Shows each long step as a bar with its rate and remaining time.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:>15}"),
            BarColumn(),
            MofNCompleteColumn(),
            Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=quiet or not sys.stderr.isatty(),
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
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total, note=note)
        self.bars.update(self.tasks[what], completed=done, total=total, note=note)

    def step(self, step: TrainingStep) -> None:
        """Show a training step, with waiting time and unreadable photos if there are any."""
        note = f"epoch {step.epoch + 1}  {step.photos_per_second:.0f} photos/s  loss {step.losses['loss']:.3f}"
        if step.wait >= 0.1:
            note += f"  {step.wait:.0%} waiting for data"
        if step.unread:
            note += f"  {step.unread:,} unreadable"
        self.report("train", step.step, step.steps, note)

    def say(self, text: str) -> None:
        """Print a line on stderr, even if it isn't a terminal."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

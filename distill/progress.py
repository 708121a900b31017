"""Live bars on stderr for long work; silent where stderr is not a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:  # evaluating a bundle needs no torch
    from distill.training.trainer import Progress as Step


class Rate(ProgressColumn):
    """How many a second, of late."""

    def render(self, task: Task) -> Text:
        """Return `12.3/s`, or nothing before the rate is known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f}/s" if speed else "")


class Bars:
    """Shows each long phase as a bar with rate and ETA.

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
        """Show that `done` of `total` of a phase are finished."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total, note=note)
        self.bars.update(self.tasks[what], completed=done, total=total, note=note)

    def step(self, step: Step) -> None:
        """Show a training step; of waiting and unreadable photos only where there is something to say."""
        note = f"epoch {step.epoch + 1}  {step.photos_per_second:.0f} photos/s  loss {step.losses['loss']:.3f}"
        if step.wait >= 0.1:
            note += f"  {step.wait:.0%} waiting for data"
        if step.unread:
            note += f"  {step.unread:,} unreadable"
        self.report("train", step.step, step.steps, note)

    def say(self, text: str) -> None:
        """Print a line on stderr, on a terminal or not."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

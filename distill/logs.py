"""What each step of a run says of itself: one JSON object a line, and the same as TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from distill.files import write_whole
from mobileclip.errors import PocketclipError

METRICS, EVENTS = "metrics.jsonl", "tensorboard"

Line = dict[str, float | None]
"""A step's figures by name; None for what was no number."""


class LogError(PocketclipError):
    """A log that cannot be written or read."""


class RunLog:
    """Writes `metrics.jsonl` and, below `tensorboard/`, the events of one run; one process alone may have it open.

    A resumed run does some steps again: their old lines are dropped, and their old events are marked as void, which
    is how TensorBoard hides them. Every line reaches the system before the next step begins, so a kill can at most
    tear the last one, and that one is dropped with the others.

    Args:
        folder: of the run; made where it is not there.
        step: the step to go on after; 0 for a new run.

    Raises:
        LogError: the folder cannot be written, or `tensorboard` is not installed.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise LogError(f"training needs {error.name}: pip install 'pocketclip[train]'") from error
        self.path = folder / METRICS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._keep(step)
            self._file = self.path.open("a", encoding="utf-8")
            _wait_for_a_new_second(folder / EVENTS)
            self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._clock = time.perf_counter()

    def write(self, figures: Mapping[str, float]) -> None:
        """Add a step's figures, and to them `seconds` since the step before and `time`, in seconds since 1970.

        Figures that are no number (an overflowing gradient's norm) become null, because JSON knows no other way.

        Args:
            figures: by name; `step`, counted from 1, must be among them.

        Raises:
            LogError: the disk is full or gone.
        """
        now = time.perf_counter()
        clock = {"seconds": round(now - self._clock, 4), "time": round(time.time(), 2)}
        self._clock = now
        line: Line = {name: value if math.isfinite(value) else None for name, value in {**figures, **clock}.items()}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            for name, value in figures.items():
                if name != "step" and math.isfinite(value):
                    self._events.add_scalar(tag(name), value, int(figures["step"]))
            self._events.flush()
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written ({error.strerror}); resume once there is room") from error

    def close(self) -> None:
        """Finish both files; nothing can be written after.

        Raises:
            LogError: the disk is full or gone.
        """
        try:
            self._events.close()
            self._file.close()
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _keep(self, step: int) -> None:
        """Drop the lines of later steps, in one rename, so that a kill in between loses nothing."""
        if not self.path.exists():
            return
        kept = [line for line in read_metrics(self.path) if (line["step"] or 0) <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_whole(self.path, lambda stream: stream.write(text.encode()))


def _wait_for_a_new_second(events: Path) -> None:
    """Let no two event files carry the same second: TensorBoard reads them in the order of their names."""
    while any(events.glob(f"events.out.tfevents.{int(time.time())}.*")):
        time.sleep(0.05)


NOT_LOSSES = frozenset(
    (
        "step",
        "epoch",
        "px",
        "logit_scale",
        "gradient_norm",
        "photos_per_second",
        "wait",
        "unread",
        "validation",
        "seconds",
        "time",
    )
)


def is_loss(name: str) -> bool:
    """Whether a figure of this name is the loss or one of its terms."""
    return name not in NOT_LOSSES and not name.startswith("lr")


def tag(name: str) -> str:
    """What TensorBoard calls a figure: `loss/…` for the loss and its terms, `run/…` for all else."""
    return f"loss/{name}" if is_loss(name) else f"run/{name}"


def read_metrics(path: Path) -> list[Line]:
    """Read the lines of a `metrics.jsonl`, of a run still going on as well: a torn last line is left out.

    Raises:
        LogError: the file cannot be read, or another line than the last is not a step's.
    """
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror})") from error
    read: list[Line] = []
    for number, text in enumerate(lines, 1):
        try:
            line = {name: value for name, value in json.loads(text).items() if isinstance(value, float | int | None)}
            float(line["step"] or "")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines):
                break
            raise LogError(f"{path}, line {number}: not the figures of a step") from error
        read.append(line)
    return read

"""The log of a run: one line of JSON per step, and the same figures as TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from distill.files import write_whole
from mobileclip.errors import PocketclipError
from mobileclip.extras import MissingExtraError
from mobileclip.files import PathLike

METRICS, EVENTS = "metrics.jsonl", "tensorboard"

Line = dict[str, float | None]
"""A step's figures by name; None for NaN and infinity."""


class StepLog(Protocol):
    """Somewhere that the figures of each step are written to."""

    def write(self, figures: Mapping[str, float]) -> None:
        """Write a step's figures by name, including `step`, which starts at 1."""

    def close(self) -> None:
        """Write what is left, after the last step of this process."""


class LogError(PocketclipError):
    """A log can't be written or read."""


class RunLog:
    """Writes a run's `metrics.jsonl`, and events in its folder `tensorboard`. Only one process may have it open.

    A resumed run repeats some steps. Their old lines are removed, and their old events are marked so that TensorBoard
    hides them. Each line is flushed before the next step begins, so a killed run can damage only its last line, which
    is removed too.

    Args:
        folder: the run's folder, which is created if it doesn't exist.
        step: the last step to keep; 0 for a new run.

    Raises:
        LogError: the folder isn't writable.
        MissingExtraError: `tensorboard` isn't installed.
    """

    def __init__(self, folder: PathLike, step: int = 0) -> None:
        folder = Path(folder)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingExtraError("training", "train", error.name) from error
        self.path = folder / METRICS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._remove_after(step)
            self._file = self.path.open("a", encoding="utf-8")
            _wait_for_next_second(folder / EVENTS)
            self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._clock = time.perf_counter()

    def write(self, figures: Mapping[str, float]) -> None:
        """Write a step's figures, `seconds` since the previous step, and `time` in seconds since 1970.

        NaN and infinity, such as the norm of a gradient that overflowed, become null, because JSON has neither.

        Args:
            figures: by name, including `step`, which starts at 1.

        Raises:
            LogError: the disk is full or was removed.
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
        """Close both files.

        Raises:
            LogError: the disk is full or was removed.
        """
        try:
            self._events.close()
            self._file.close()
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _remove_after(self, step: int) -> None:
        """Remove the lines of later steps, in a single rename, so that nothing is lost if the process is killed."""
        if not self.path.exists():
            return
        kept = [line for line in read_metrics(self.path) if (line["step"] or 0) <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_whole(self.path, lambda stream: stream.write(text.encode()))


def _wait_for_next_second(events: Path) -> None:
    """Wait while an event file of this second exists: TensorBoard reads files in the order of their names."""
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
    """Whether a figure with this name is the loss or one of its terms."""
    return name not in NOT_LOSSES and not name.startswith("lr")


def tag(name: str) -> str:
    """Return the name of a figure in TensorBoard: `loss/…` for the loss and its terms, `run/…` for all others."""
    return f"loss/{name}" if is_loss(name) else f"run/{name}"


def read_metrics(path: PathLike) -> list[Line]:
    """Read a `metrics.jsonl`, even during the run: an incomplete last line is skipped.

    Raises:
        LogError: the file can't be read, or a line other than the last one isn't a step's.
    """
    try:
        lines = Path(path).read_text("utf-8", errors="replace").splitlines()
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

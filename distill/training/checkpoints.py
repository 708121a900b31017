"""The last checkpoints of a run, written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from distill.files import write_whole
from mobileclip.checkpoints import CheckpointError, read_torch
from mobileclip.files import PathLike


class LoadedCheckpoint(NamedTuple):
    """A checkpoint of a run.

    Attributes:
        path: its file.
        state: what was saved.
        damaged: newer checkpoints, which can't be read, newest first.
    """

    path: Path
    state: dict[str, Any]
    damaged: tuple[Path, ...]


class RunCheckpoints:
    """The checkpoints in a run's folder, such as `checkpoints/step-00000200.pt`.

    Args:
        folder: the run's folder.
        keep: number of checkpoints to keep.
    """

    def __init__(self, folder: PathLike, keep: int) -> None:
        self.folder, self.keep = Path(folder) / "checkpoints", keep

    def path(self, step: int) -> Path:
        """Return the path of a step's checkpoint, which may not exist."""
        return self.folder / f"step-{step:08}.pt"

    def all(self) -> list[Path]:
        """Return all checkpoints, oldest first."""
        return sorted(self.folder.glob("step-????????.pt"))

    def before(self, step: int) -> Path | None:
        """Return the newest checkpoint before a step, if any."""
        return next((path for path in reversed(self.all()) if path < self.path(step)), None)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, then remove old ones and partial files that a killed process left behind.

        Raises:
            PocketclipError: the disk is full, or the folder isn't writable.
        """
        write_whole(self.path(step), lambda stream: torch.save(state, stream))
        earlier = [path for path in self.all() if path <= self.path(step)]
        later = [path for path in self.all() if path > self.path(step)]  # damaged, as the run resumed before them
        for old in [*earlier[: -self.keep], *later, *self.folder.glob("*.part")]:
            old.unlink(missing_ok=True)

    def load(self) -> LoadedCheckpoint | None:
        """Read the newest checkpoint that isn't damaged; None if there are no checkpoints.

        Raises:
            CheckpointError: all are damaged.
        """
        damaged: list[Path] = []
        reason: CheckpointError | None = None
        for path in reversed(self.all()):
            try:
                return LoadedCheckpoint(path, read_torch(path), tuple(damaged))
            except CheckpointError as error:
                damaged.append(path)
                reason = reason or error
        if reason:
            raise reason
        return None

"""Checkpoints of a run: the last few, each whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from distill.files import write_whole
from mobileclip.checkpoints import read_torch


class Snapshots:
    """The checkpoints in a run's folder, `checkpoints/step-00000200.pt` and the like.

    Args:
        folder: of the run.
        keep: how many to keep.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder / "checkpoints", keep

    def path(self, step: int) -> Path:
        """Return where the checkpoint of a step lies, or would."""
        return self.folder / f"step-{step:08}.pt"

    def all(self) -> list[Path]:
        """Return all there are, the oldest first."""
        return sorted(self.folder.glob("step-????????.pt"))

    def before(self, step: int) -> Path | None:
        """Return the newest of an earlier step, if there is one."""
        return next((path for path in reversed(self.all()) if path < self.path(step)), None)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, then remove those that are too many, and what a killed process left of others.

        Raises:
            PocketclipError: the disk is full, or the folder cannot be written.
        """
        write_whole(self.path(step), lambda stream: torch.save(state, stream))
        for old in [*self.all()[: -self.keep], *self.folder.glob("*.part")]:
            old.unlink(missing_ok=True)

    def load(self) -> tuple[Path, dict[str, Any]] | None:
        """Read the newest; None where there is none.

        Raises:
            CheckpointError: it is damaged; removed, it makes way for the one before.
        """
        return (path, read_torch(path)) if (path := next(reversed(self.all()), None)) else None

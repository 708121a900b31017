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
        # The run resumed before them: they are damaged, or it went back on purpose.
        later = [path for path in self.all() if path > self.path(step)]
        for old in [*earlier[: -self.keep], *later, *self.folder.glob("*.part")]:
            old.unlink(missing_ok=True)

    def choose(self, resume: str) -> Path | None:
        """Return what a run starts from instead of its own newest checkpoint, if anything.

        Args:
            resume: `auto`; `never`, which refuses a folder with checkpoints; or the path of a checkpoint of a run or of
                a run's folder. One of another run counts only while there is none of this run yet, so that the same
                command resumes this run.

        Raises:
            CheckpointError: there are checkpoints already, or the path isn't a checkpoint that a run can resume from.
        """
        if resume == "never" and self.all():
            raise CheckpointError(
                f"{self.folder}: has checkpoints of a run already; use another --out, or --resume auto to resume it"
            )
        if resume in ("auto", "never"):
            return None
        path = Path(resume)
        if not path.exists():
            raise CheckpointError(f"{path}: no such checkpoint; --resume takes auto, never or a path")
        folder = path / self.folder.name if path.is_dir() else path.parent
        if path.is_dir() and not RunCheckpoints(path, 1).all():
            raise _only_weights(path)
        if folder.resolve() == self.folder.resolve():
            return None if path.is_dir() else path
        return None if self.all() else path

    def load(self, start: PathLike | None = None) -> LoadedCheckpoint | None:
        """Read the newest checkpoint that isn't damaged; None if there are no checkpoints.

        Args:
            start: a checkpoint, or the folder of another run, to read instead.

        Raises:
            CheckpointError: all are damaged.
        """
        if start is not None:
            path = Path(start)
            if path.is_dir():
                return RunCheckpoints(path, 1).load()
            if path.suffix == ".safetensors" or not {"course", "optimizer"} <= (state := read_torch(path)).keys():
                raise _only_weights(path)
            return LoadedCheckpoint(path, state, ())
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


def _only_weights(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a checkpoint of a run, which would be checkpoints/step-….pt, nor its folder; "
        f"to start a new run from weights, set start = {str(path)!r}"
    )

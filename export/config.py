"""The settings of an export, checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from distill.recipe.shipped import RECIPES
from export.formats import FORMATS, ExportError
from mobileclip.checkpoint_files import WEIGHTS
from mobileclip.files import PathLike

LABELS: Final = "labels.toml"


@dataclass(frozen=True)
class ExportConfig:
    """What to make a bundle from, and how.

    Attributes:
        checkpoint: a file, a folder, or the name of a shipped recipe.
        out: the bundle's folder.
        labels: a labels file with evidence; None for the one next to the checkpoint, or for no labels without `data`.
        data: folder of the data sets that the evidence names.
        captions: a captions file to measure retrieval on.
        splits: a table with the columns `file` and `split` for it.
        split: which of its splits.
        photos: a folder of photos to measure and calibrate with, if there are neither captions nor labels.
        formats: the engines, as a list or as one string with commas.
        precisions: the precisions of each engine, as a list or as one string with commas. An engine skips those that
            it lacks.
        uint8: whether image towers take bytes.
        force: also write variants that miss the accuracy budget.
        model: configuration of a checkpoint that doesn't include one, a name or .toml.
        name: name of the bundle; empty for the checkpoint's own.
        threads: of the engine while measuring; None for its default.

    Raises:
        ExportError: a setting is unknown or contradicts another.
    """

    checkpoint: PathLike
    out: PathLike
    labels: PathLike | None = None
    data: PathLike | None = None
    captions: PathLike | None = None
    splits: PathLike | None = None
    split: str | None = None
    photos: PathLike | None = None
    formats: str | Sequence[str] = ("onnx",)
    precisions: str | Sequence[str] = ("fp16-weights",)
    uint8: bool = False
    force: bool = False
    model: str | None = None
    name: str = ""
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", _names(self.formats))
        object.__setattr__(self, "precisions", _names(self.precisions))
        if self.labels is not None and self.data is None:
            raise ExportError("labels need the photos that their evidence names: give --data FOLDER")
        if (self.splits is not None or self.split is not None) and self.captions is None:
            raise ExportError("--splits and --split need --captions FILE")
        if not self.formats or not self.precisions:
            raise ExportError("at least one format and one precision are needed")
        for names in (self.formats, self.precisions):
            if repeated := [name for name in names if list(names).count(name) > 1]:
                raise ExportError(f"{', '.join(names)}: {repeated[0]} is given twice")
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise ExportError(f"unknown format {unknown[0]!r}: choose from {', '.join(FORMATS)}")
        if self.threads is not None and self.threads < 1:
            raise ExportError(f"threads must be at least 1, not {self.threads}")
        out = Path(self.out)
        if out.exists() and not _is_replaceable(out):
            raise ExportError(f"{out}: already exists and isn't a bundle; name another folder")

    @property
    def weights(self) -> Path:
        """The checkpoint's path; a shipped recipe is found by its name."""
        return find_checkpoint(self.checkpoint)

    @property
    def evidence(self) -> Path | None:
        """The labels file, if there is data for it: the one named, or the one next to the weights."""
        if self.data is None:
            return None
        if self.labels is not None:
            return Path(self.labels)
        folder = self.weights if self.weights.is_dir() else self.weights.parent
        if not (folder / LABELS).is_file():
            raise ExportError(f"no {LABELS} next to the checkpoint: give --labels FILE")
        return folder / LABELS


def find_checkpoint(checkpoint: PathLike) -> Path:
    """Return the path of a checkpoint; the name of a shipped recipe stands for its weights.

    Raises:
        ExportError: the shipped weights aren't installed.
    """
    path = Path(checkpoint)
    shipped = RECIPES / path
    if len(path.parts) == 1 and not path.exists() and shipped.is_dir():
        if not (shipped / WEIGHTS).is_file():
            raise ExportError(f"the weights of {path} are only in the source repository, not here")
        return shipped
    return path


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names from a list, or from one string with commas between them."""
    if not isinstance(given, str):
        return tuple(given)
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _is_replaceable(out: Path) -> bool:
    """Whether a folder is an older bundle, or empty."""
    return out.is_dir() and ((out / "manifest.json").is_file() or not any(out.iterdir()))

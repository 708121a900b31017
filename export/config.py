"""What `pocketclip export` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from distill.recipe.shipped import RECIPES
from export.formats import FORMATS, ExportError
from mobileclip.checkpoint_files import WEIGHTS

LABELS: Final = "labels.toml"


@dataclass(frozen=True)
class ExportConfig:
    """What to make a bundle of.

    Attributes:
        checkpoint: a file, a folder, or the name of a shipped recipe.
        out: the bundle's folder.
        labels: a labels file with evidence; None for the one beside the checkpoint, or no labels where `data` is None.
        data: folder of the sets that the evidence names.
        captions: a captions file to measure retrieval on.
        splits: a `file,split` table for it.
        split: which of its splits.
        photos: a folder of photos to measure and calibrate with, where there are neither captions nor labels.
        formats: the engines.
        precisions: those wanted of each engine, where it has them.
        uint8: whether image towers shall take bytes.
        force: write also what misses the budget.
        model: configuration of a checkpoint that does not carry one, a name or .toml.
        name: what the bundle calls itself; empty for the checkpoint's own name.
        threads: of the engine while measuring; None for its default.
    """

    checkpoint: Path
    out: Path
    labels: Path | None = None
    data: Path | None = None
    captions: Path | None = None
    splits: Path | None = None
    split: str | None = None
    photos: Path | None = None
    formats: tuple[str, ...] = ("onnx",)
    precisions: tuple[str, ...] = ("fp16-weights",)
    uint8: bool = False
    force: bool = False
    model: str | None = None
    name: str = ""
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.data is None:
            raise ExportError("labels need the photos that their evidence names: give --data FOLDER")
        if (self.splits is not None or self.split is not None) and self.captions is None:
            raise ExportError("--splits and --split go with --captions FILE")
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise ExportError(f"unknown format {unknown[0]!r}: there is {', '.join(FORMATS)}")
        if not self.formats or not self.precisions:
            raise ExportError("at least one format and one precision are needed")
        for names in (self.formats, self.precisions):
            if len(set(names)) != len(names):
                raise ExportError(f"{', '.join(names)}: one of them is there twice")
        if self.out.exists() and not _replaceable(self.out):
            raise ExportError(f"{self.out}: there is something else already, which is no bundle; name another folder")

    @property
    def weights(self) -> Path:
        """The checkpoint's path, that of a shipped recipe looked up by its name."""
        shipped = RECIPES / self.checkpoint
        if len(self.checkpoint.parts) == 1 and not self.checkpoint.exists() and shipped.is_dir():
            if not (shipped / WEIGHTS).is_file():
                raise ExportError(f"the weights of {self.checkpoint} lie in the source repository only, not here")
            return shipped
        return self.checkpoint

    @property
    def evidence(self) -> Path | None:
        """The labels file, where there is data for one: the one named, or the one beside the weights."""
        if self.labels is not None or self.data is None:
            return self.labels
        folder = self.weights if self.weights.is_dir() else self.weights.parent
        if not (folder / LABELS).is_file():
            raise ExportError(f"no {LABELS} beside the checkpoint: give --labels FILE")
        return folder / LABELS


def _replaceable(out: Path) -> bool:
    """Whether a folder is an older bundle, or empty."""
    return out.is_dir() and ((out / "manifest.json").is_file() or not any(out.iterdir()))

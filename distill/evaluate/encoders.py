"""One interface for models to evaluate: a bundle run by its engine, or a checkpoint run by torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mobileclip.files import PathLike
from mobileclip.preprocess import PixelRecipe
from mobileclip.vectors import Floats
from mobileclip.zeroshot import LabelSet


class DualEncoder(Protocol):
    """Both towers, and the labels that have thresholds."""

    recipe: PixelRecipe

    @property
    def labels(self) -> LabelSet:
        """Labels with thresholds; empty for a checkpoint."""

    @property
    def label_vectors(self) -> Floats:
        """Unit vectors of these labels (labels, d)."""

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Map normalized pixels (n, 3, s, s) to unit vectors (n, d)."""

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to unit vectors (n, d)."""


def open_encoder(
    name_or_path: PathLike,
    threads: int | None = None,
    config: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
) -> DualEncoder:
    """Open a bundle (name, folder or zip) or a checkpoint (folder or file, see `load_checkpoint`).

    Args:
        name_or_path: a bundle or a checkpoint.
        threads: CPU threads of a bundle's engine.
        config: model name or .toml file, for a checkpoint that doesn't include its configuration.
        engine: one of a bundle's engines; None for its default.
        precision: one of that engine's precisions; None for its default.

    Raises:
        PocketclipError: it is neither a bundle nor a checkpoint, or a package is missing.
    """
    import mobileclip

    return mobileclip.load(name_or_path, engine=engine, precision=precision, threads=threads, config=config)

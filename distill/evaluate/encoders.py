"""One interface for models to evaluate: a bundle run by its engine, or a checkpoint run by torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mobileclip.checkpoint_files import OPENCLIP_CONFIG, WEIGHTS, WEIGHTS_SUFFIXES
from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike
from mobileclip.preprocess import PixelRecipe
from mobileclip.vectors import Floats
from mobileclip.zeroshot import LabelSet

if TYPE_CHECKING:
    from mobileclip.tokenizer import Tokenizer
    from mobileclip.towers import CLIP


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


class TorchEncoder:
    """Runs a checkpoint's towers with torch on one device."""

    def __init__(self, model: CLIP, tokenizer: Tokenizer, device: str = "cpu") -> None:
        self.model, self.tokenizer, self.device = model.eval().to(device), tokenizer, device
        self.recipe, self.labels = model.config.pixels, LabelSet(())
        self.label_vectors = np.zeros((0, model.config.embed_dim), np.float32)

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Map normalized pixels (n, 3, s, s) to unit vectors (n, d)."""
        import torch

        with torch.inference_mode():
            vectors: Floats = self.model.encode_image(torch.from_numpy(pixels).to(self.device)).cpu().numpy()
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to unit vectors (n, d)."""
        import torch

        tokens = torch.from_numpy(self.tokenizer(texts))
        if self.model.config.text.causal:
            tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        with torch.inference_mode():
            rows = [self.model.encode_text(part.to(self.device)).cpu().numpy() for part in tokens.split(256)]
        return np.concatenate(rows)


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
    path = Path(name_or_path)
    if path.suffix in WEIGHTS_SUFFIXES or any((path / name).is_file() for name in (WEIGHTS, OPENCLIP_CONFIG)):
        try:
            import torch

            from mobileclip.checkpoints import load_checkpoint
        except ModuleNotFoundError as error:
            raise PocketclipError(f"a checkpoint needs {error.name}: pip install 'pocketclip[train]'") from error
        checkpoint = load_checkpoint(path, config)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return TorchEncoder(checkpoint.model, checkpoint.tokenizer, device)
    import mobileclip

    return mobileclip.load(os.fspath(name_or_path), engine=engine, precision=precision, threads=threads)

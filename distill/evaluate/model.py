"""What can be evaluated: a bundle through its engine, or a checkpoint through torch, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mobileclip.errors import PocketclipError
from mobileclip.preprocess import PixelRecipe

if TYPE_CHECKING:
    from mobileclip.tokenizer import Tokenizer
    from mobileclip.towers import CLIP

Floats = NDArray[np.float32]


class Encoder(Protocol):
    """Both towers."""

    recipe: PixelRecipe

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Map normalised pixels (n, 3, s, s) to unit vectors (n, d)."""

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to unit vectors (n, d)."""


class TorchEncoder:
    """A checkpoint's towers run by torch."""

    def __init__(self, model: CLIP, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer, self.recipe = model.eval(), tokenizer, model.config.pixels

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Map normalised pixels (n, 3, s, s) to unit vectors (n, d)."""
        import torch

        with torch.inference_mode():
            vectors: Floats = self.model.encode_image(torch.from_numpy(pixels)).numpy()
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to unit vectors (n, d)."""
        import torch

        tokens = torch.from_numpy(self.tokenizer(texts))
        if self.model.config.text.causal:
            tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        with torch.inference_mode():
            rows = [self.model.encode_text(part).numpy() for part in tokens.split(256)]
        return np.concatenate(rows)


CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def open_encoder(name_or_path: str, threads: int | None = None, config: str | None = None) -> Encoder:
    """Open a bundle (name, folder or zip) or a checkpoint (a folder or a file, see `load_checkpoint`).

    Args:
        name_or_path: which.
        threads: of a bundle's engine.
        config: the name or .toml of a checkpoint's configuration, where it does not carry one.

    Raises:
        PocketclipError: it is neither, or what it needs is not installed.
    """
    path = Path(name_or_path)
    inside = ("model.safetensors", "open_clip_config.json")
    if path.suffix in CHECKPOINTS or any((path / name).is_file() for name in inside):
        try:
            from mobileclip.checkpoints import load_checkpoint
        except ModuleNotFoundError as error:
            raise PocketclipError(f"a checkpoint needs {error.name}: pip install 'pocketclip[train]'") from error
        checkpoint = load_checkpoint(path, config)
        return TorchEncoder(checkpoint.model, checkpoint.tokenizer)
    import mobileclip

    return mobileclip.load(name_or_path, threads=threads)

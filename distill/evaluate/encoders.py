"""What can be evaluated: a bundle through its engine, or a checkpoint through torch, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mobileclip.errors import PocketclipError
from mobileclip.preprocess import PixelRecipe
from mobileclip.zeroshot import LabelSet

if TYPE_CHECKING:
    from mobileclip.tokenizer import Tokenizer
    from mobileclip.towers import CLIP

Floats = NDArray[np.float32]


class Encoder(Protocol):
    """Both towers, and the labels that thresholds were fitted for."""

    recipe: PixelRecipe

    @property
    def labels(self) -> LabelSet:
        """Labels with thresholds; of a checkpoint none."""

    @property
    def label_vectors(self) -> Floats:
        """Unit vectors of these labels, (labels, d)."""

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Map normalised pixels (n, 3, s, s) to unit vectors (n, d)."""

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to unit vectors (n, d)."""


class TorchEncoder:
    """A checkpoint's towers run by torch, on one device."""

    def __init__(self, model: CLIP, tokenizer: Tokenizer, device: str = "cpu") -> None:
        self.model, self.tokenizer, self.device = model.eval().to(device), tokenizer, device
        self.recipe, self.labels = model.config.pixels, LabelSet(())
        self.label_vectors = np.zeros((0, model.config.embed_dim), np.float32)

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Map normalised pixels (n, 3, s, s) to unit vectors (n, d)."""
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


CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def open_encoder(
    name_or_path: str,
    threads: int | None = None,
    config: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
) -> Encoder:
    """Open a bundle (name, folder or zip) or a checkpoint (a folder or a file, see `load_checkpoint`).

    Args:
        name_or_path: which.
        threads: of a bundle's engine.
        config: the name or .toml of a checkpoint's configuration, where it does not carry one.
        engine: which of a bundle's engines; None for the one it prefers.
        precision: which of that engine's towers; None for those it prefers.

    Raises:
        PocketclipError: it is neither, or what it needs is not installed.
    """
    path = Path(name_or_path)
    inside = ("model.safetensors", "open_clip_config.json")
    if path.suffix in CHECKPOINTS or any((path / name).is_file() for name in inside):
        try:
            import torch

            from mobileclip.checkpoints import load_checkpoint
        except ModuleNotFoundError as error:
            raise PocketclipError(f"a checkpoint needs {error.name}: pip install 'pocketclip[train]'") from error
        checkpoint = load_checkpoint(path, config)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return TorchEncoder(checkpoint.model, checkpoint.tokenizer, device)
    import mobileclip

    return mobileclip.load(name_or_path, engine=engine, precision=precision, threads=threads)

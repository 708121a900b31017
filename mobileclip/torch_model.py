"""A checkpoint that PyTorch runs, with the same methods as a bundle's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mobileclip.encoder import Encoder
from mobileclip.tokenizer import Tokenizer, pad_after_end, without_padding
from mobileclip.vectors import Floats
from mobileclip.zeroshot import LabelSet

if TYPE_CHECKING:
    import os

    from mobileclip.towers import CLIP

__all__ = ["TorchModel", "load_torch_model"]

_TEXT_BATCH = 256


class TorchModel(Encoder):
    """Both towers of a checkpoint on one device. It has no labels: `pocketclip export` fits their thresholds.

    Args:
        model: the towers; they are set to evaluation mode and moved to the device.
        tokenizer: their tokenizer.
        device: a PyTorch device.
        name: the model's name in messages.
    """

    def __init__(self, model: CLIP, tokenizer: Tokenizer, device: str = "cpu", name: str = "checkpoint") -> None:
        self.model, self.tokenizer, self.device, self.name = model.eval().to(device), tokenizer, device, name
        self.recipe, self.dim = model.config.pixels, model.config.embed_dim

    def __repr__(self) -> str:
        return f"<TorchModel {self.name!r}: {self.dim} dimensions, {self.recipe.size} px, device={self.device!r}>"

    @property
    def logit_scale(self) -> float:  # type: ignore[override]  # the model may still be training
        """The factor on cosines."""
        return float(self.model.logit_scale.exp())

    @property
    def labels(self) -> LabelSet:
        """Always empty."""
        return LabelSet(())

    @property
    def label_vectors(self) -> Floats:
        """Always empty, float32 (0, dim)."""
        return np.zeros((0, self.dim), np.float32)

    def encode_pixels(self, pixels: npt.NDArray[Any]) -> Floats:
        """Embed prepared pictures, see `Encoder.encode_pixels`."""
        normalized = self.recipe.normalize_uint8(pixels) if pixels.dtype == np.uint8 else pixels
        with torch.inference_mode():
            vectors: Floats = self.model.encode_image(torch.from_numpy(normalized).to(self.device)).cpu().numpy()
        return vectors

    def _encode_texts(self, texts: Sequence[str]) -> Floats:
        tokens = pad_after_end(self.tokenizer(texts), self.tokenizer.eot)
        if self.model.config.text.causal:
            tokens = without_padding(tokens)
        with torch.inference_mode():
            parts = torch.split(torch.from_numpy(np.ascontiguousarray(tokens)), _TEXT_BATCH)
            rows = [self.model.encode_text(part.to(self.device)).cpu().numpy() for part in parts]
        return np.concatenate(rows)


def load_torch_model(path: str | os.PathLike[str], config: str | None = None, threads: int | None = None) -> TorchModel:
    """Read a checkpoint, on the GPU if PyTorch has one.

    Args:
        path: see `mobileclip.load_checkpoint`.
        config: the model's name or the .toml of its configuration, if the file doesn't carry one.
        threads: PyTorch's threads in this process; None leaves them as they are.

    Raises:
        CheckpointError: the file is missing or damaged, or no known model has its weights.
    """
    from mobileclip.checkpoints import load_checkpoint

    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = load_checkpoint(path, config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TorchModel(checkpoint.model, checkpoint.tokenizer, device, checkpoint.about.get("name") or str(path))

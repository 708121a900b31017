"""Frozen one-sided encoders: a timm backbone and a sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from distill.config import BackboneConfig
from distill.files import locate
from distill.teachers.base import Vectors, encode_files
from mobileclip.checkpoints import read_torch
from mobileclip.errors import PocketclipError
from mobileclip.preprocess import PixelRecipe


def load_trunk_weights(trunk: nn.Module, path: Path) -> None:
    """Load a plain state dict into a timm model.

    A file whose names differ but whose tensors come in the same order and shapes, as the converted
    EfficientNet-Lite files do, is mapped by order.

    Raises:
        PocketclipError: the file is not a state dict of this architecture.
    """
    state: dict[str, Tensor] = read_torch(path)
    wanted = trunk.state_dict()
    if set(wanted) <= set(state):
        trunk.load_state_dict({name: state[name] for name in wanted})
        return
    # Counters of BatchNorm carry no weights, and older files lack them.
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    given = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    pairs = list(zip(names, given, strict=False))
    if len(given) < len(names) or any(wanted[name].shape != value.shape for name, value in pairs):
        raise PocketclipError(f"{path}: these weights are not of a {type(trunk).__name__} of this shape")
    trunk.load_state_dict({**wanted, **dict(pairs)})


class Backbone:
    """A frozen timm classifier as an encoder of photos.

    Args:
        config: trunk, weights and pixels.
        base: what a relative path of weights starts from.
    """

    def __init__(self, config: BackboneConfig, base: Path) -> None:
        import timm

        self.config = config
        self.model = timm.create_model(config.trunk, pretrained=False).eval().requires_grad_(False)
        weights = locate(config.weights, base)
        load_trunk_weights(self.model, weights)
        self.model.to(memory_format=torch.channels_last)
        mean, std = config.mean, config.std
        self.pixels = PixelRecipe(
            size=config.px,
            resize="shortest",
            interpolation="bicubic",
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
        )
        self.identity = f"timm|{config}|{weights.name}|{weights.stat().st_size}"

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return int(self.model.head_hidden_size or self.model.num_features)

    def encode_images(self, photos: Sequence[Path]) -> Vectors:
        """Return pooled features (n, width) float32, not normalised."""
        return encode_files(photos, self.encode_pictures, self.pixels.size)

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Return pooled features (n, width) float32, not normalised."""
        pixels = torch.from_numpy(np.stack([self.pixels(picture) for picture in pictures]))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = self._pooled(pixels)
        if self.config.mirror:
            features = (features + self._pooled(pixels.flip(3))) / 2
        vectors: Vectors = features.numpy()
        return vectors

    def _pooled(self, pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            features = self.model.forward_features(pixels)
            return self.model.forward_head(features, pre_logits=True).float()

    @torch.inference_mode()
    def log_posterior(self, features: Tensor) -> Tensor:
        """Return the classifier's own log-probabilities (n, classes) for pooled features."""
        return torch.log_softmax(self.model.get_classifier()(features), dim=-1)


class SentenceEncoder:
    """A frozen sentence-transformers model, read from a folder; it never asks a hub.

    Args:
        folder: the model's folder.
    """

    def __init__(self, folder: Path, batch: int = 64) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # ours is the only one that asks whether stderr is a terminal

        self.model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.batch = batch
        self.width = int(self.model.get_embedding_dimension() or 0)
        sizes = sorted((p.name, p.stat().st_size) for p in folder.iterdir() if p.is_file())
        self.identity = f"sentences|{sizes}"

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (n, width) float32."""
        vectors: Vectors = self.model.encode(
            list(texts), batch_size=self.batch, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

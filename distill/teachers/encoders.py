"""Frozen one-sided encoders: a timm backbone and a sentence encoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from distill.config import BackboneConfig
from distill.data.tars import PhotoRef
from distill.files import locate_weights
from distill.teachers.base import encode_files
from distill.teachers.trunk_features import TrunkEncoder
from mobileclip.checkpoints import read_torch
from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike
from mobileclip.preprocess import PixelRecipe
from mobileclip.vectors import Floats


def load_trunk_weights(trunk: nn.Module, path: PathLike) -> None:
    """Load a state dict into a timm model.

    If the names differ but the tensors have the same order and shapes, as in converted EfficientNet-Lite files, they
    are matched by order.

    Raises:
        PocketclipError: the file isn't a state dict of this architecture.
    """
    state: dict[str, Tensor] = read_torch(path)
    wanted = trunk.state_dict()
    if set(wanted) <= set(state):
        trunk.load_state_dict({name: state[name] for name in wanted})
        return
    # Older files lack the counters of BatchNorm.
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    given = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    pairs = list(zip(names, given, strict=False))
    if len(given) < len(names) or any(wanted[name].shape != value.shape for name, value in pairs):
        raise PocketclipError(f"{path}: these weights don't fit a {type(trunk).__name__} of this shape")
    trunk.load_state_dict({**wanted, **dict(pairs)})


class Backbone:
    """A frozen timm classifier that encodes photos.

    Args:
        config: the model, its weights and its preprocessing.
        base: the folder that a relative path of weights starts from.
    """

    def __init__(self, config: BackboneConfig, base: PathLike) -> None:
        import timm

        self.config = config
        whole = timm.create_model(config.trunk, pretrained=False).eval().requires_grad_(False)
        weights = locate_weights(config.weights, base)
        load_trunk_weights(whole, weights)
        self._classifier: Any = whole.get_classifier()
        self._trunk: Any = timm.create_model(config.trunk, pretrained=False, num_classes=0).requires_grad_(False)
        self._trunk.load_state_dict({name: whole.state_dict()[name] for name in self._trunk.state_dict()})
        mean, std = config.mean, config.std
        self.pixels = PixelRecipe(
            size=config.px,
            resize="shortest",
            interpolation="bicubic",
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
        )
        self.identity = f"timm|{config}|{weights.name}|{weights.stat().st_size}"
        self._encoder = self.with_maps(0)

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self._trunk.head_hidden_size or self._trunk.num_features)

    def with_maps(self, maps: int) -> TrunkEncoder:
        """Return an encoder whose features also have the places of the trunk's last feature maps."""
        dtype = torch.bfloat16 if self.config.precision == "bf16" else None
        return TrunkEncoder(self._trunk, self.config.trunk, self.pixels, maps, torch.device("cpu"), dtype)

    def encode_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return pooled features (n, width), which are not normalized."""
        return encode_files(photos, self.encode_pictures, self.pixels.size)

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Floats:
        """Return pooled features (n, width), which are not normalized."""
        features = self._encoder.encode_pictures(pictures)
        if self.config.mirror:
            features += self._encoder.encode_pictures([ImageOps.mirror(one) for one in pictures])
            features /= 2
        return features

    @torch.inference_mode()
    def log_posterior(self, features: Tensor) -> Tensor:
        """Return the classifier's log-probabilities (n, classes) for pooled features (n, width)."""
        return torch.log_softmax(self._classifier(features), dim=-1)


class SentenceEncoder:
    """A frozen sentence-transformers model, read from a folder; nothing is downloaded.

    Its embedding holds the meaning of a sentence but little about its words. Earlier layers and the maximum over tokens
    hold more about them. They can be added: each is scaled to unit length, and all are joined.

    Args:
        folder: the model's folder.
        layers: hidden layers, 0 for the token embeddings, whose means over tokens are added.
        strongest: whether to add the last layer's maximum over tokens.
        batch: sentences per forward pass.

    Raises:
        PocketclipError: the model has no such layer.
    """

    def __init__(self, folder: PathLike, layers: Sequence[int] = (), strongest: bool = False, batch: int = 64) -> None:
        folder = Path(folder)
        # torchao, if an exporter installed it, logs a message whenever transformers is imported.
        logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # it doesn't check whether stderr is a terminal

        self.model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.layers, self.strongest, self.batch = tuple(layers), strongest, batch
        self._transformer: Any = self.model[0].auto_model
        config = self._transformer.config
        if any(not 0 <= layer <= config.num_hidden_layers for layer in layers):
            raise PocketclipError(f"{folder}: the sentence encoder has hidden layers 0 to {config.num_hidden_layers}")
        self.width = int(self.model.get_embedding_dimension() or 0)
        self.width += (len(self.layers) + strongest) * int(config.hidden_size)
        sizes = sorted((p.name, p.stat().st_size) for p in folder.iterdir() if p.is_file())
        self.identity = f"sentences|{sizes}" + (f"|{self.layers}|{strongest}" if layers or strongest else "")

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return vectors (n, width): one unit vector per text, or several joined ones."""
        if not (self.layers or self.strongest):
            vectors: Floats = self.model.encode(
                list(texts), batch_size=self.batch, normalize_embeddings=True, show_progress_bar=False
            )
            return vectors
        order = np.argsort([len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), self.width), np.float32)
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            vectors[rows] = self._encode_parts([texts[row] for row in rows])
        return vectors

    @torch.inference_mode()
    def _encode_parts(self, texts: list[str]) -> Floats:
        """Return the embeddings with the added parts (n, width), in one forward pass."""
        tokens = self.model.tokenizer(
            texts, padding=True, truncation=True, max_length=self.model.max_seq_length, return_tensors="pt"
        )
        hidden = self._transformer(**tokens, output_hidden_states=True).hidden_states
        here = tokens["attention_mask"][:, :, None]
        features = {"token_embeddings": hidden[-1], "attention_mask": tokens["attention_mask"]}
        for module in list(self.model)[1:]:  # pooling, and what follows it
            features = module(features)
        parts = [features["sentence_embedding"]]
        parts += [(hidden[layer] * here).sum(dim=1) / here.sum(dim=1) for layer in self.layers]
        if self.strongest:
            parts.append(hidden[-1].masked_fill(here == 0, -torch.inf).amax(dim=1))
        joined: Floats = torch.cat([F.normalize(part, dim=-1) for part in parts], dim=1).numpy()
        return joined

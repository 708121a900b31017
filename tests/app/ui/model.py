"""A model without weights that knows colors, so its results can be checked by eye."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mobileclip.bundle import Head
from mobileclip.photos import open_photo
from mobileclip.preprocess import PixelRecipe
from mobileclip.zeroshot import Label, LabelSet

DIRECTIONS = {
    "red": (1, -0.5, -0.5, 0),
    "green": (-0.5, 1, -0.5, 0),
    "blue": (-0.5, -0.5, 1, 0),
    "orange": (1, 0, -1, 0),
    "bright": (0, 0, 0, 1),
    "dark": (0, 0, 0, -1),
}


class ColorModel:
    """Vectors are (red, green, blue without gray; brightness), projected from an 8 × 8 map of mean colors."""

    name, engine, dim, logit_scale = "colors", "none", 4, 10.0
    manifest = SimpleNamespace(license="none needed")

    def __init__(self) -> None:
        self.fingerprint = hashlib.sha256(b"colors").hexdigest()
        self.recipe = PixelRecipe(32, "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        gray = np.full((3, 3), 1 / 3)
        weight = np.concatenate([np.eye(3) - gray, np.full((1, 3), 0.12)]).astype(np.float32)
        self.head = Head(weight, np.zeros(4, np.float32))
        self.labels = LabelSet(
            Label(name, "colors", (f"a {name} photo",), 0.5, 8.0, 0) for name in ("red", "green", "blue", "dark")
        )
        self.label_vectors = self.encode_texts([label.name for label in self.labels])

    def encode_features(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = pixels.reshape(len(pixels), 3, 8, 4, 8, 4).mean(axis=(3, 5))
        return _unit(maps.mean(axis=(2, 3)) @ self.head.weight.T), maps

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return self.encode_features(pixels)[0]

    def encode_images(self, photos: Iterable[str | Path], batch_size: int = 16) -> np.ndarray:
        return self.encode_pixels(np.stack([self.recipe(open_photo(photo, min_side=64)) for photo in photos]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            known = [DIRECTIONS[word] for word in text.lower().split() if word in DIRECTIONS]
            unknown = np.random.default_rng(list(text.encode()) or [0]).normal(size=4)
            rows.append(np.sum(known, axis=0) if known else unknown)
        return _unit(np.array(rows, np.float32).reshape(-1, 4))


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)).astype(np.float32)

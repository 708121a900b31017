"""The interface of teachers, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from distill.data.tars import PhotoRef
from mobileclip.errors import PhotoError
from mobileclip.files import PathLike
from mobileclip.vectors import Floats

BATCH = 32
"""Photos or texts per forward pass."""


class ImageEncoder(Protocol):
    """Embeds photos."""

    identity: str
    """Everything that the embeddings depend on. Encoders with different identities share no cached embeddings."""

    def encode_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return one row per photo (n, d), NaN for unreadable ones."""


class TextEncoder(Protocol):
    """Embeds texts."""

    identity: str

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return one row per text (n, d)."""


class Teacher(ImageEncoder, TextEncoder, Protocol):
    """Embeds photos and texts in the same space, as unit vectors."""

    logit_scale: float
    """The logit scale at which the student matches this teacher's similarities."""
    px: int
    """Side of the teacher's own pictures, in pixels. Smaller pictures are enlarged."""

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Floats:
        """Return one unit row per picture (n, d), computed in one forward pass with the teacher's own preprocessing."""


@runtime_checkable
class CachedTeacher(Protocol):
    """A teacher that caches the outputs of its encoders itself, because the rest is fast."""

    def recall_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """As `encode_images`."""

    def recall_texts(self, texts: Sequence[str]) -> Floats:
        """As `encode_texts`."""


@runtime_checkable
class NamingTeacher(Protocol):
    """A teacher that can embed the names of a classifier's classes."""

    def class_embeddings(self) -> Floats | None:
        """Return an embedding for each class (c, d), or None if the classes have no names."""


@runtime_checkable
class ClassifyingTeacher(NamingTeacher, Protocol):
    """A teacher that also has a classifier."""

    def log_posterior(self, photos: Sequence[PathLike | PhotoRef]) -> Tensor:
        """Return log-probabilities of the classes (n, c) float32."""

    def classify_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return log-probabilities of the classes (n, c) float32, computed in one forward pass."""


def encode_files(
    photos: Sequence[PathLike | PhotoRef],
    encode: Callable[[Sequence[Image.Image]], Floats],
    px: int,
    see: Callable[[PhotoRef, Image.Image], Image.Image] = lambda _, picture: picture,
) -> Floats:
    """Open photos and encode them, `BATCH` at a time; returns one row per photo, NaN for unreadable ones.

    Args:
        photos: the photos.
        encode: maps pictures to one row each.
        px: side of the encoder's own pictures, for `PhotoRef.open`.
        see: changes each picture before it is encoded.
    """
    found: dict[int, Floats] = {}
    for start in range(0, len(photos), BATCH):
        pictures = {}
        for number, photo in enumerate(photos[start : start + BATCH], start):
            with suppress(PhotoError):
                reference = PhotoRef.of(photo)
                pictures[number] = see(reference, reference.open(px))
        if pictures:
            found.update(zip(pictures, encode(list(pictures.values())), strict=True))
    any_row = next(iter(found.values())) if found else encode([Image.new("RGB", (64, 64))])[0]
    unreadable = np.full_like(any_row, np.nan)
    return np.stack([found.get(number, unreadable) for number in range(len(photos))] or [unreadable])[: len(photos)]


def stamp(path: Path) -> str:
    """Return size and modification time of a file, so that new weights at the same path give a new identity."""
    status = path.stat()
    return f"{status.st_size}/{status.st_mtime_ns}"


def unit_tensor(vectors: Floats) -> Tensor:
    """Return embeddings (n, d) as float32 unit rows."""
    return F.normalize(torch.from_numpy(vectors).float(), dim=-1)

"""What a teacher is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobileclip.errors import PhotoError
from mobileclip.photos import open_photo

Vectors = NDArray[np.float32]

BATCH = 32
"""Photos or texts a forward pass."""


class ImageEncoder(Protocol):
    """Photos to vectors."""

    identity: str
    """Everything the vectors depend on; another identity never shares cached vectors."""

    def encode_images(self, photos: Sequence[Path]) -> Vectors:
        """Return one row a photo, (n, d) float32; NaN for one that cannot be read."""


class TextEncoder(Protocol):
    """Texts to vectors."""

    identity: str

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return one row a text, (n, d) float32."""


class Teacher(ImageEncoder, TextEncoder, Protocol):
    """Both, into one space of unit vectors."""

    logit_scale: float
    """The temperature's inverse at which the student mimics this teacher's similarities."""
    px: int
    """Side of its own pixels; smaller pictures are enlarged."""

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Return one unit row a picture, (n, d) float32, each made into the teacher's own pixels.

        All are one forward pass.
        """


def encode_files(photos: Sequence[Path], encode: Callable[[Sequence[Image.Image]], Vectors], px: int) -> Vectors:
    """Open photos and encode them, `BATCH` at a time; returns one row a photo, NaN for one that cannot be read."""
    found: dict[int, Vectors] = {}
    for start in range(0, len(photos), BATCH):
        pictures = {}
        for number, photo in enumerate(photos[start : start + BATCH], start):
            with suppress(PhotoError):
                pictures[number] = open_photo(photo, min_side=px)
        if pictures:
            found.update(zip(pictures, encode(list(pictures.values())), strict=True))
    any_row = next(iter(found.values())) if found else encode([Image.new("RGB", (64, 64))])[0]
    nothing = np.full_like(any_row, np.nan)
    return np.stack([found.get(number, nothing) for number in range(len(photos))])


def stamp(path: Path) -> str:
    """Size and time of a file, so that other weights at the same path are another teacher."""
    status = path.stat()
    return f"{status.st_size}/{status.st_mtime_ns}"

"""What a teacher is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class ImageEncoder(Protocol):
    """Photos to vectors."""

    identity: str
    """Everything the vectors depend on; another identity never shares cached vectors."""

    def encode_images(self, photos: Sequence[Path]) -> Vectors:
        """Return one row a photo, (n, d) float32."""


class TextEncoder(Protocol):
    """Texts to vectors."""

    identity: str

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return one row a text, (n, d) float32."""


class Teacher(ImageEncoder, TextEncoder, Protocol):
    """Both, into one space of unit vectors."""

    logit_scale: float
    """The temperature's inverse at which the student mimics this teacher's similarities."""

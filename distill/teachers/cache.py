"""Vectors computed once: a folder of small arrays, each named after all that it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from distill.files import write_whole
from distill.teachers.base import ImageEncoder, TextEncoder, Vectors

CHUNK = 512
T = TypeVar("T")


class VectorCache:
    """Computes vectors in chunks and keeps each finished chunk, so that a killed run goes on where it was.

    Args:
        folder: where the arrays lie; made when missing.
        report: called with (done, total, what) after each chunk.
    """

    def __init__(self, folder: Path, report: Callable[[int, int, str], None] | None = None) -> None:
        self.folder = folder
        self.report = report or (lambda done, total, what: None)

    def images(self, encoder: ImageEncoder, photos: Sequence[Path]) -> Vectors:
        """Return the encoder's vectors of `photos`, (n, d) float32; a photo is known by name, size and time."""
        keys = [f"{p}|{(s := p.stat()).st_size}|{s.st_mtime_ns}" for p in photos]
        return self._vectors(encoder.identity, "photos", photos, keys, encoder.encode_images)

    def texts(self, encoder: TextEncoder, texts: Sequence[str]) -> Vectors:
        """Return the encoder's vectors of `texts`, (n, d) float32."""
        return self._vectors(encoder.identity, "texts", texts, list(texts), encoder.encode_texts)

    def _vectors(
        self,
        identity: str,
        what: str,
        items: Sequence[T],
        keys: list[str],
        encode: Callable[[Sequence[T]], Vectors],
    ) -> Vectors:
        parts = []
        for start in range(0, len(items), CHUNK):
            chunk = slice(start, start + CHUNK)
            digest = hashlib.sha256("\0".join([identity, what, *keys[chunk]]).encode("utf-8", "surrogatepass"))
            path = self.folder / f"{digest.hexdigest()[:32]}.npy"
            if not path.exists():
                vectors = encode(items[chunk]).astype(np.float32, copy=False)
                write_whole(path, partial(np.save, arr=vectors, allow_pickle=False))
            parts.append(np.load(path, allow_pickle=False))
            self.report(min(start + CHUNK, len(items)), len(items), what)
        return np.concatenate(parts)

"""Vectors computed once: a folder of small arrays, each named after all that it depends on.

Items are cut into chunks where their own digests say so, as backup programs cut files (content-defined chunking,
Muthitacharoen et al. 2001, section 3.1): a data set that is added, or left out, changes the chunks at its edges alone.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from distill.files import write_whole
from distill.teachers.base import ImageEncoder, TextEncoder, Vectors

CHUNK, MOST = 256, 1024
"""Items in a chunk: the mean, and the most."""

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
        for chunk in _chunks(keys):
            digest = hashlib.sha256("\0".join([identity, what, *keys[chunk]]).encode("utf-8", "surrogatepass"))
            path = self.folder / f"{digest.hexdigest()[:32]}.npy"
            if not path.exists():
                vectors = encode(items[chunk]).astype(np.float32, copy=False)
                write_whole(path, partial(np.save, arr=vectors, allow_pickle=False))
            parts.append(np.load(path, allow_pickle=False))
            self.report(chunk.stop, len(items), what)
        return np.concatenate(parts)


def _chunks(keys: Sequence[str]) -> Iterator[slice]:
    """Cut keys behind one in `CHUNK` of them, as their checksums have it."""
    start = 0
    for stop, key in enumerate(keys, 1):
        cut = zlib.crc32(key.encode("utf-8", "surrogatepass")) % CHUNK == 0
        if cut or stop - start == MOST or stop == len(keys):
            yield slice(start, stop)
            start = stop

"""Embeddings that are computed once: a folder of arrays, each named by a hash of everything that it depends on.

The checksums of the items decide where chunks end, as in backup programs (content-defined chunking, Muthitacharoen et
al. 2001, section 3.1). So a data set that is added or removed changes only the chunks at its edges.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from distill.data.tars import PhotoRef
from distill.files import write_whole
from distill.progress import ReportProgress
from distill.teachers.base import ImageEncoder, TextEncoder
from mobileclip.files import PathLike
from mobileclip.vectors import Floats

CHUNK, MOST = 256, 1024
"""Mean and largest number of items in a chunk."""

T = TypeVar("T")


class VectorCache:
    """Computes embeddings in chunks and keeps each finished chunk, so that a killed run can continue.

    Args:
        folder: the folder of the arrays, which is created if it doesn't exist.
        report: called after each chunk with the progress of "photos" or "texts".
    """

    def __init__(self, folder: PathLike, report: ReportProgress | None = None) -> None:
        self.folder, self.report = Path(folder), report

    def images(self, encoder: ImageEncoder, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return an encoder's embeddings of photos (n, d). See `PhotoRef.identity`."""
        keys = [PhotoRef.of(photo).identity for photo in photos]
        return self._vectors(encoder.identity, "photos", photos, keys, encoder.encode_images)

    def texts(self, encoder: TextEncoder, texts: Sequence[str]) -> Floats:
        """Return an encoder's embeddings of texts (n, d)."""
        return self._vectors(encoder.identity, "texts", texts, list(texts), encoder.encode_texts)

    def _vectors(
        self,
        identity: str,
        what: str,
        items: Sequence[T],
        keys: list[str],
        encode: Callable[[Sequence[T]], Floats],
    ) -> Floats:
        parts = []
        for chunk in _chunks(keys):
            digest = hashlib.sha256("\0".join([identity, what, *keys[chunk]]).encode("utf-8", "surrogatepass"))
            path = self.folder / f"{digest.hexdigest()[:32]}.npy"
            if not path.exists():
                vectors = encode(items[chunk]).astype(np.float32, copy=False)
                write_whole(path, partial(np.save, arr=vectors, allow_pickle=False))
            parts.append(np.load(path, allow_pickle=False))
            if self.report:
                self.report(what, chunk.stop, len(items))
        return np.concatenate(parts) if parts else encode([]).astype(np.float32, copy=False)


def _chunks(keys: Sequence[str]) -> Iterator[slice]:
    """Split keys into chunks, which end where a checksum says so, after one of `CHUNK` keys on average."""
    start = 0
    for stop, key in enumerate(keys, 1):
        cut = zlib.crc32(key.encode("utf-8", "surrogatepass")) % CHUNK == 0
        if cut or stop - start == MOST or stop == len(keys):
            yield slice(start, stop)
            start = stop

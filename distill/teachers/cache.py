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
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
        files = self._photo_files(encoder, "photos", photos, np.float32)
        return _join(files) if photos else encoder.encode_images([]).astype(np.float32, copy=False)

    def texts(self, encoder: TextEncoder, texts: Sequence[str]) -> Floats:
        """Return an encoder's embeddings of texts (n, d)."""
        files = self._files(encoder.identity, "texts", texts, list(texts), encoder.encode_texts, np.float32)
        return _join(files) if texts else encoder.encode_texts([]).astype(np.float32, copy=False)

    def features(self, encoder: ImageEncoder, photos: Sequence[PathLike | PhotoRef]) -> StoredRows:
        """Return an encoder's features of photos (n, width) in float16, which stay on disk. See `StoredRows`."""
        files = self._photo_files(encoder, "features", photos, np.float16)
        return StoredRows([np.load(path, mmap_mode="r", allow_pickle=False) for path in files])

    def _photo_files(
        self,
        encoder: ImageEncoder,
        what: str,
        photos: Sequence[PathLike | PhotoRef],
        dtype: type[np.floating[Any]],
    ) -> Iterator[Path]:
        keys = [PhotoRef.of(photo).identity for photo in photos]
        return self._files(encoder.identity, what, photos, keys, encoder.encode_images, dtype)

    def _files(
        self,
        identity: str,
        what: str,
        items: Sequence[T],
        keys: list[str],
        encode: Callable[[Sequence[T]], Floats],
        dtype: type[np.floating[Any]],
    ) -> Iterator[Path]:
        """Yield the file of each chunk, which is written now if it isn't there."""
        for chunk in _chunks(keys):
            digest = hashlib.sha256("\0".join([identity, what, *keys[chunk]]).encode("utf-8", "surrogatepass"))
            path = self.folder / f"{digest.hexdigest()[:32]}.npy"
            if not path.exists():
                vectors = encode(items[chunk]).astype(dtype, copy=False)
                write_whole(path, partial(np.save, arr=vectors, allow_pickle=False))
            yield path
            if self.report:
                self.report(what, chunk.stop, len(items))


def _join(files: Iterator[Path]) -> Floats:
    return np.concatenate([np.load(path, allow_pickle=False) for path in files])


class StoredRows:
    """Rows of numbers in memory-mapped files, because the feature maps of a corpus are too large for memory.

    Args:
        parts: arrays (n, width), one after the other.
    """

    def __init__(self, parts: Sequence[NDArray[np.floating[Any]]]) -> None:
        self.parts = [part for part in parts if len(part)]
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """Length of a row."""
        return int(self.parts[0].shape[1])

    def __getitem__(self, row: int) -> NDArray[np.floating[Any]]:
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        found: NDArray[np.floating[Any]] = self.parts[part][row - self.starts[part]]
        return found

    def columns(self, stop: int) -> Tensor:
        """Return the first `stop` numbers of every row (n, stop) float32."""
        return torch.from_numpy(np.concatenate([part[:, :stop].astype(np.float32) for part in self.parts]))

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Tensor:
        """Return some rows (n, width) float32."""
        found = torch.empty(len(rows), self.width)
        for place, row in enumerate(rows):
            found[place] = torch.from_numpy(np.array(self[int(row)]))
        return found

    def unreadable(self) -> NDArray[np.bool_]:
        """Return for each row (n,) whether its photo couldn't be read."""
        return np.concatenate([np.zeros(0, bool), *(np.isnan(part[:, 0]) for part in self.parts)])


def _chunks(keys: Sequence[str]) -> Iterator[slice]:
    """Split keys into chunks, which end where a checksum says so, after one of `CHUNK` keys on average."""
    start = 0
    for stop, key in enumerate(keys, 1):
        cut = zlib.crc32(key.encode("utf-8", "surrogatepass")) % CHUNK == 0
        if cut or stop - start == MOST or stop == len(keys):
            yield slice(start, stop)
            start = stop

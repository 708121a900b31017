"""All vectors of one model as one matrix on disk, mapped into memory for search.

SQLite is the truth; this file can be made from it at any time. It is next to the index:

    magic, 8 bytes | length of the header, uint32 | CRC-32 of the header, uint32 | header, JSON | zeros up to
    4096 vectors, float32 little endian, count × dim content ids, int64 little endian, count, ascending

float32 although SQLite keeps float16: processors multiply it directly from the map, and no query pays for
widening.
"""

import json
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from app.library.store.connection import Ids, Store
from app.library.store.vectors import id_of_model, list_models, vector_blocks
from mobileclip.files import atomic_write
from mobileclip.vectors import Floats

MAGIC = b"pCLIPvec"
FORMAT = 1
DTYPE = "<f4"
_START = 4096  # one page, so that the rows begin on one
_PREFIX = struct.Struct("<8sII")


@dataclass(frozen=True)
class Header:
    """What the file says about itself; `checksum` is the CRC-32 of all that follows."""

    format: int
    dtype: str
    dim: int
    count: int
    model: str
    stamp: str
    checksum: int


@dataclass(frozen=True)
class Matrix:
    """Unit rows, float32 (n, d), mapped or in memory, and their content ids, int64 (n,), ascending."""

    ids: Ids
    rows: Floats


def cache_path(store: Store, fingerprint: str) -> Path:
    """The file of the matrix of the model with this fingerprint."""
    return store.path.with_name(f"vectors-{fingerprint[:16]}.cache")


def load_matrix(store: Store, fingerprint: str) -> Matrix:
    """Map the vectors of one model; the file is written first if it is missing, old or damaged.

    If it can't be written (a full disk, a read-only folder), the vectors are read into memory instead: a search should
    not need free space.
    """
    path = cache_path(store, fingerprint)
    with store.snapshot():
        stamp = store.stamp()
        matrix = _map(path, fingerprint, stamp)
        if matrix is not None:
            return matrix
        dim = {model.fingerprint: model.dim for model in list_models(store)}.get(fingerprint, 0)
        known = id_of_model(store, fingerprint)
        if known is None:
            return Matrix(np.empty(0, np.int64), np.empty((0, dim), np.float32))
        try:
            _write(path, store, known, Header(FORMAT, DTYPE, dim, 0, fingerprint, stamp, 0))
        except OSError:
            return _gather(store, known, dim)
        return _map(path, fingerprint, stamp) or _gather(store, known, dim)


def _map(path: Path, fingerprint: str, stamp: str) -> Matrix | None:
    try:
        with path.open("rb") as file:
            header = _read_header(file.read(_START))
        if header is None or (header.model, header.stamp) != (fingerprint, stamp):
            return None
        cells = header.count * header.dim
        if path.stat().st_size != _START + 4 * cells + 8 * header.count:
            return None
        if header.count == 0:
            return Matrix(np.empty(0, np.int64), np.empty((0, header.dim), np.float32))
        whole = np.memmap(path, dtype=np.uint8, mode="r", offset=_START)
    except OSError:
        return None
    if zlib.crc32(whole.data) != header.checksum:
        return None
    rows = whole[: 4 * cells].view(DTYPE).reshape(header.count, header.dim)
    return Matrix(whole[4 * cells :].view("<i8"), rows)


def _read_header(page: bytes) -> Header | None:
    if len(page) < _START:
        return None
    magic, length, checksum = _PREFIX.unpack_from(page)
    text = page[_PREFIX.size : _PREFIX.size + length]
    if magic != MAGIC or zlib.crc32(text) != checksum:
        return None
    fields = json.loads(text)
    if fields.get("format") != FORMAT or fields.get("dtype") != DTYPE:
        return None
    return Header(**fields)


def _write(path: Path, store: Store, model_id: int, header: Header) -> None:
    with atomic_write(path) as part, part.open("wb") as file:
        file.seek(_START)
        checksum, all_ids = 0, [np.empty(0, np.int64)]
        for ids, rows in vector_blocks(store, model_id, header.dim):
            data = rows.astype(DTYPE, copy=False).data
            checksum = zlib.crc32(data, checksum)
            file.write(data)
            all_ids.append(ids)
        ids = np.concatenate(all_ids).astype("<i8", copy=False)
        file.write(ids.data)
        complete = asdict(header) | {"count": len(ids), "checksum": zlib.crc32(ids.data, checksum)}
        text = json.dumps(complete).encode()
        file.seek(0)
        file.write(_PREFIX.pack(MAGIC, len(text), zlib.crc32(text)) + text)
        file.truncate(_START + 4 * len(ids) * header.dim + 8 * len(ids))


def _gather(store: Store, model_id: int, dim: int) -> Matrix:
    blocks = list(vector_blocks(store, model_id, dim))
    rows = np.concatenate([np.empty((0, dim), np.float32), *(rows for _, rows in blocks)])
    return Matrix(np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in blocks)]), rows)

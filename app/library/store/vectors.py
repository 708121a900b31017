"""The tables `models` and `vectors`: one vector for each content and model."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.library.errors import LibraryError
from app.library.store.connection import Ids, Store
from mobileclip.vectors import Floats, unit_rows

# A unit row rounded to float16 moves a cosine by a few 1e-5, far less than two decoders differ on one JPEG, and it
# halves the file that a person backs up.
STORED = np.dtype("<f2")

BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class IndexedModel:
    """A model that made vectors in this index."""

    name: str
    fingerprint: str
    dim: int
    vectors: int


def as_stored(vectors: Floats) -> Floats:
    """Unit rows (n, d) as they come back from the index: what is decided when a photo is read stays decided.

    Raises:
        LibraryError: a vector is zero, NaN or infinite.
    """
    return _units(vectors.astype(STORED), "the model returned a vector that is zero, NaN or infinite")


def from_bytes(stored: bytes, dim: int) -> Floats:
    """Unit rows, float32 (n, dim), from what the index holds of n vectors.

    Raises:
        LibraryError: the index is damaged.
    """
    rows = np.frombuffer(stored, STORED).reshape(-1, dim)
    return _units(rows, "the index holds damaged vectors; move it away and index again")


def _units(rows: NDArray[np.float16], problem: str) -> Floats:
    try:
        return unit_rows(rows.astype(np.float32))
    except ValueError:
        raise LibraryError(problem) from None


# Models


def add_model(store: Store, fingerprint: str, name: str, dim: int) -> int:
    """Return the id of the model with this fingerprint, adding it if it is new."""
    store.sql.execute(
        "INSERT INTO models (fingerprint, name, dim) VALUES (?, ?, ?)"
        " ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name",
        (fingerprint, name, dim),
    )
    known = id_of_model(store, fingerprint)
    assert known is not None
    return known


def id_of_model(store: Store, fingerprint: str) -> int | None:
    """The id of the model with this fingerprint, or None if it made nothing in this index."""
    row = store.sql.execute("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()
    return None if row is None else int(row[0])


def list_models(store: Store) -> list[IndexedModel]:
    """All models that made vectors here, the one with most vectors first."""
    query = (
        "SELECT m.name, m.fingerprint, m.dim, count(v.id) AS n FROM models m"
        " LEFT JOIN vectors v ON v.model_id = m.id GROUP BY m.id ORDER BY n DESC, m.name"
    )
    return [IndexedModel(*row) for row in store.sql.execute(query)]


# Vectors


def put_vector(store: Store, content_id: int, model_id: int, vector: Floats) -> None:
    """Store one unit row, float32 (d,), unless the content has a vector of this model.

    Raises:
        LibraryError: not a finite unit vector; storing it would spoil every search.
    """
    if not abs(float(vector @ vector) - 1.0) < 1e-2:
        raise LibraryError("the model returned a vector that is not a unit vector; nothing of this batch is stored")
    store.sql.execute(
        "INSERT INTO vectors (model_id, content_id, vector) VALUES (?, ?, ?)"
        " ON CONFLICT (model_id, content_id) DO NOTHING",
        (model_id, content_id, vector.astype(STORED).tobytes()),
    )


def has_vector(store: Store, content_hash: bytes, model_id: int) -> bool:
    """Whether this content already has a vector of this model."""
    query = "SELECT 1 FROM contents c JOIN vectors v ON v.content_id = c.id WHERE c.hash = ? AND v.model_id = ?"
    return store.sql.execute(query, (content_hash, model_id)).fetchone() is not None


def vector_of_photo(store: Store, fingerprint: str, photo_id: int) -> tuple[int, Floats] | None:
    """The content id of a photo and its unit row (1, d) of the model; None if there is none."""
    row = store.sql.execute(
        "SELECT v.content_id, v.vector, m.dim FROM vectors v JOIN models m ON m.id = v.model_id AND m.fingerprint = ?"
        " JOIN photos p ON p.content_id = v.content_id WHERE p.id = ?",
        (fingerprint, photo_id),
    ).fetchone()
    return None if row is None else (row[0], from_bytes(row[1], row[2]))


def vector_blocks(
    store: Store, model_id: int, dim: int, *, unless_tagged_by: str | None = None
) -> Iterator[tuple[Ids, Floats]]:
    """Stream the vectors of all contents that a photo holds, by content id.

    Args:
        store: the open index.
        model_id: whose vectors.
        dim: their length d.
        unless_tagged_by: leave out contents whose tags this label set already decided.

    Yields:
        Ids, int64 (n,), and unit rows, float32 (n, d), with n ≤ BLOCK_ROWS.

    Raises:
        LibraryError: the index is damaged.
    """
    extra = "" if unless_tagged_by is None else "AND c.tagged_by IS NOT ?2"
    query = (
        "SELECT v.content_id, v.vector FROM vectors v JOIN contents c ON c.id = v.content_id"
        " WHERE v.model_id = ?1 AND v.content_id > ?3"
        f" AND EXISTS (SELECT 1 FROM photos p WHERE p.content_id = v.content_id) {extra}"
        " ORDER BY v.content_id LIMIT ?4"
    )
    last = -1
    while rows := store.sql.execute(query, (model_id, unless_tagged_by, last, BLOCK_ROWS)).fetchall():
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        data = b"".join(row[1] for row in rows)
        if len(data) != len(rows) * dim * STORED.itemsize:
            raise LibraryError(f"the index {store.path} holds vectors of a wrong length; move it away and index again")
        yield ids, from_bytes(data, dim)
        last = int(ids[-1])


def count_vectors(store: Store, model_id: int) -> int:
    """How many contents have a vector of this model, including those that no photo holds."""
    return int(store.sql.execute("SELECT count(*) FROM vectors WHERE model_id = ?", (model_id,)).fetchone()[0])

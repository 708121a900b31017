"""The index: which photos there are, their vectors, their tags, and what could not be read."""

# A prefix of paths needs the closing separator, which Path drops.
# ruff: noqa: PTH118

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from app.library.errors import LibraryError, explain
from app.library.files.exif import Facts, file_time
from app.library.files.scan import Found, inside
from app.library.store.schema import connect

# A unit row rounded to float16 moves a cosine by a few 1e-5, far less than two decoders differ on one JPEG,
# and it halves the file that a person backs up.
STORED = np.dtype("<f2")

BLOCK_ROWS = 4096

Rows = NDArray[np.float32]
Ids = NDArray[np.int64]
Source = Literal["model", "you"]


@dataclass(frozen=True, slots=True)
class Tag:
    """A label on a photo; `score` is a calibrated probability, `source` who gave it."""

    label: str
    score: float
    source: Source


@dataclass(frozen=True, slots=True)
class Failure:
    """A photo that could not be read; `reason` is a stable class, `detail` what the decoder said."""

    path: str
    reason: str
    detail: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that was indexed; `read_at` in Unix seconds, None if it was never read to the end."""

    path: str
    photos: int
    read_at: float | None


@dataclass(frozen=True, slots=True)
class IndexedModel:
    """A model that made vectors in this index."""

    name: str
    fingerprint: str
    dim: int
    vectors: int


def as_stored(vectors: Rows) -> Rows:
    """Unit rows (n, d) as they come back from the index: what is decided when a photo is read stays decided."""
    return on_sphere(vectors.astype(STORED).astype(np.float32))


def on_sphere(rows: Rows) -> Rows:
    """Rows (n, d) that rounding left a hair off the unit sphere, put back on it."""
    units: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


class Store:
    """One open index; a connection of one thread. Use it in a `with` block, which closes it.

    Leaving the block turns every SQLite error into a LibraryError with one plain line.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self.sql = connect(path, create=create)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sql.close()
        if isinstance(error, sqlite3.Error):
            raise explain(error, self.path) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are kept together or not at all."""
        self.sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.sql.execute("COMMIT")
        except BaseException:
            # After a full disk SQLite has often rolled back on its own.
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see the same moment, whatever other processes write meanwhile."""
        self.sql.execute("BEGIN")
        try:
            yield
        finally:
            self.sql.execute("COMMIT")

    def add_root(self, path: str) -> int:
        """Return the id of the root that holds `path`, made if need be; it takes in roots that lie below."""
        for root_id, known in self.sql.execute("SELECT id, path FROM roots").fetchall():
            if within(os.fsencode(path), known):
                return int(root_id)
        added = self.sql.execute("INSERT INTO roots (path) VALUES (?)", (os.fsencode(path),)).lastrowid
        low, high = below(path)
        inner = "SELECT id FROM roots WHERE path >= ? AND path < ?"
        for table in ("photos", "failures"):
            self.sql.execute(f"UPDATE {table} SET root_id = ? WHERE root_id IN ({inner})", (added, low, high))
        self.sql.execute(f"DELETE FROM roots WHERE id IN ({inner})", (low, high))
        assert added is not None
        return added

    def add_model(self, fingerprint: str, name: str, dim: int) -> int:
        """Return the id of the model with this fingerprint, adding it where it is new."""
        self.sql.execute(
            "INSERT INTO models (fingerprint, name, dim) VALUES (?, ?, ?)"
            " ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name",
            (fingerprint, name, dim),
        )
        known = self.model_id(fingerprint)
        assert known is not None
        return known

    def model_id(self, fingerprint: str) -> int | None:
        """The id of the model with this fingerprint, or None where it made nothing in this index."""
        row = self.sql.execute("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return None if row is None else int(row[0])

    def has_vector(self, content_hash: bytes, model_id: int) -> bool:
        """Whether this content already has a vector of this model."""
        return (
            self.sql.execute(
                "SELECT 1 FROM contents c JOIN vectors v ON v.content_id = c.id WHERE c.hash = ? AND v.model_id = ?",
                (content_hash, model_id),
            ).fetchone()
            is not None
        )

    def put_photo(self, found: Found, root_id: int, content_hash: bytes, facts: Facts | None = None) -> int:
        """Record that `found` holds the content with this hash; returns the content's id.

        What a person has decided on this content is there again at once. Without `facts` the photo is dated by its
        file, and its header is read when an index run comes by.
        """
        content_id = self.sql.execute(
            "INSERT INTO contents (hash) VALUES (?) ON CONFLICT (hash) DO UPDATE SET orphaned_at = NULL RETURNING id",
            (content_hash,),
        ).fetchone()[0]
        path = os.fsencode(found.path)
        taken = (file_time(found.mtime_ns), "file") if facts is None else (facts.taken, facts.taken_from)
        size = (None, None) if facts is None else (facts.width, facts.height)
        self.sql.execute(
            "INSERT INTO photos (root_id, path, size, mtime_ns, content_id, taken, taken_from, width, height)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (path) DO UPDATE SET root_id = excluded.root_id, size = excluded.size,"
            " mtime_ns = excluded.mtime_ns, content_id = excluded.content_id, taken = excluded.taken,"
            " taken_from = excluded.taken_from, width = excluded.width, height = excluded.height",
            (root_id, path, found.size, found.mtime_ns, content_id, *taken, *size),
        )
        self.sql.execute(
            "INSERT INTO tags SELECT ?, label, 1, 'you' FROM corrections WHERE hash = ? AND verdict = 1"
            " ON CONFLICT DO UPDATE SET score = 1, source = 'you'",
            (content_id, content_hash),
        )
        self.sql.execute("DELETE FROM failures WHERE path = ?", (path,))
        return int(content_id)

    def put_facts(self, photo_id: int, facts: Facts) -> None:
        """Record what the header of a known photo says."""
        self.sql.execute(
            "UPDATE photos SET taken = ?, taken_from = ?, width = ?, height = ? WHERE id = ?",
            (facts.taken, facts.taken_from, facts.width, facts.height, photo_id),
        )

    def put_vector(self, content_id: int, model_id: int, vector: Rows) -> None:
        """Store one unit row, float32 (d,).

        Raises:
            LibraryError: not a finite unit vector; storing it would poison every search.
        """
        if not abs(float(vector @ vector) - 1.0) < 1e-2:
            raise LibraryError("the model gave something that is not a unit vector; nothing of this batch is stored")
        self.sql.execute(
            "INSERT INTO vectors (model_id, content_id, vector) VALUES (?, ?, ?)"
            " ON CONFLICT (model_id, content_id) DO NOTHING",
            (model_id, content_id, vector.astype(STORED).tobytes()),
        )

    def put_tags(self, content_id: int, tags: Sequence[tuple[str, float]], tagged_by: str) -> None:
        """Replace the model's tags of one content by (label, score) pairs; what a person decided stays as it is."""
        self.sql.execute("DELETE FROM tags WHERE content_id = ? AND source = 'model'", (content_id,))
        self.add_tags([(content_id, label, score) for label, score in tags])
        self.sql.execute("UPDATE contents SET tagged_by = ? WHERE id = ?", (tagged_by, content_id))

    def add_tags(self, tags: Iterable[tuple[int, str, float]]) -> None:
        """Add the model's tags (content id, label, score), but for labels that a person has decided on."""
        self.sql.executemany(
            "INSERT INTO tags SELECT ?1, ?2, ?3, 'model' WHERE NOT EXISTS ("
            " SELECT 1 FROM contents c JOIN corrections k ON k.hash = c.hash WHERE c.id = ?1 AND k.label = ?2)"
            " ON CONFLICT DO NOTHING",
            tags,
        )

    def decided(self, label: str | None = None) -> set[tuple[int, str]]:
        """(content id, label) of all that a person decided on; of one label where it is named."""
        query = "SELECT c.id, k.label FROM corrections k JOIN contents c ON c.hash = k.hash"
        rows = self.sql.execute(
            query if label is None else f"{query} WHERE k.label = ?", () if label is None else (label,)
        )
        return set(rows.fetchall())

    def put_failure(self, found: Found, root_id: int, reason: str, detail: str) -> None:
        """Record that `found` could not be read; what was known of an older state of the file is dropped."""
        path = os.fsencode(found.path)
        self.sql.execute(
            "INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT (path) DO UPDATE SET"
            " root_id = excluded.root_id, size = excluded.size, mtime_ns = excluded.mtime_ns,"
            " reason = excluded.reason, detail = excluded.detail, attempts = attempts + 1,"
            " failed_at = excluded.failed_at",
            (path, root_id, found.size, found.mtime_ns, _one_line(reason), _one_line(detail), time.time()),
        )
        self.sql.execute(
            "DELETE FROM photos WHERE path = ? AND (size, mtime_ns) <> (?, ?)",
            (path, found.size, found.mtime_ns),
        )

    def stamp(self) -> str:
        """A text that changes whenever a search could give another answer; unique to this index file."""
        rows = dict(self.sql.execute("SELECT key, value FROM meta WHERE key IN ('identity', 'changes')"))
        return f"{rows['identity']}:{rows['changes']}"

    def vector_blocks(
        self, model_id: int, dim: int, *, unless_tagged_by: str | None = None
    ) -> Iterator[tuple[Ids, Rows]]:
        """Stream the vectors of all contents that a photo holds, ordered by content id.

        Args:
            model_id: whose vectors.
            dim: their length d.
            unless_tagged_by: leave out contents whose tags this label set already decided.

        Yields:
            ids int64 (n,) and float32 rows (n, d), n ≤ BLOCK_ROWS; the rows are not renormalised.
        """
        extra = "" if unless_tagged_by is None else "AND c.tagged_by IS NOT ?2"
        query = (
            "SELECT v.content_id, v.vector FROM vectors v JOIN contents c ON c.id = v.content_id"
            " WHERE v.model_id = ?1 AND v.content_id > ?3"
            f" AND EXISTS (SELECT 1 FROM photos p WHERE p.content_id = v.content_id) {extra}"
            " ORDER BY v.content_id LIMIT ?4"
        )
        last = -1
        while rows := self.sql.execute(query, (model_id, unless_tagged_by, last, BLOCK_ROWS)).fetchall():
            ids = np.array([row[0] for row in rows], dtype=np.int64)
            data = b"".join(row[1] for row in rows)
            if len(data) != len(rows) * dim * STORED.itemsize:
                raise LibraryError(
                    f"the index {self.path} holds vectors of a wrong length; move it away and index again"
                )
            yield ids, np.frombuffer(data, dtype=STORED).reshape(len(rows), dim).astype(np.float32)
            last = int(ids[-1])

    def count_vectors(self, model_id: int) -> int:
        """How many contents have a vector of this model, held by a photo or not."""
        return int(self.sql.execute("SELECT count(*) FROM vectors WHERE model_id = ?", (model_id,)).fetchone()[0])

    def contents_below(self, folders: Sequence[str]) -> Ids:
        """Sorted ids, int64 (n,), of the contents of all photos at or below `folders`."""
        ids: set[int] = set()
        for folder in folders:
            query = "SELECT content_id FROM photos WHERE path >= ? AND path < ?"
            ids.update(row[0] for row in self.sql.execute(query, below(folder)))
        return np.array(sorted(ids), dtype=np.int64)

    def paths_of(self, content_id: int, folders: Sequence[str] = ()) -> list[str]:
        """The paths of all photos with this content, sorted; where `folders` are given, only those below."""
        query = "SELECT path FROM photos WHERE content_id = ? ORDER BY path"
        paths = [os.fsdecode(row[0]) for row in self.sql.execute(query, (content_id,))]
        return [path for path in paths if not folders or any(inside(path, folder) for folder in folders)]

    def content_id(self, content_hash: bytes) -> int | None:
        """The id of the content with this hash, or None."""
        row = self.sql.execute("SELECT id FROM contents WHERE hash = ?", (content_hash,)).fetchone()
        return None if row is None else int(row[0])

    def tagged(self, model_id: int, folders: Sequence[str] = ()) -> Iterator[tuple[str, list[Tag]]]:
        """Yield (path, tags best first) of each photo that has a vector of the model, ordered by path."""
        photos = (
            "SELECT p.path, p.content_id FROM photos p JOIN vectors v ON v.content_id = p.content_id"
            " AND v.model_id = ? WHERE p.path >= ? AND p.path < ? ORDER BY p.path"
        )
        tags = "SELECT label, score, source FROM tags WHERE content_id = ? ORDER BY score DESC, label"
        for low, high in [below(folder) for folder in folders] or [(b"", b"\xff" * 8)]:
            for path, content_id in self.sql.execute(photos, (model_id, low, high)):
                yield os.fsdecode(path), [Tag(*row) for row in self.sql.execute(tags, (content_id,))]

    def failures(self, *, since: float = 0.0, limit: int = -1) -> list[Failure]:
        """Photos that could not be read, by path; `since` in Unix seconds, negative `limit` for all."""
        query = "SELECT path, reason, detail, attempts FROM failures WHERE failed_at >= ? ORDER BY path LIMIT ?"
        return [Failure(os.fsdecode(row[0]), *row[1:]) for row in self.sql.execute(query, (since, limit))]

    def roots(self) -> list[Root]:
        """All indexed folders, by path."""
        query = (
            "SELECT r.path, (SELECT count(*) FROM photos p WHERE p.root_id = r.id), r.read_at"
            " FROM roots r ORDER BY r.path"
        )
        return [Root(os.fsdecode(row[0]), row[1], row[2]) for row in self.sql.execute(query)]

    def models(self) -> list[IndexedModel]:
        """All models that made vectors here, the one with most vectors first."""
        query = (
            "SELECT m.name, m.fingerprint, m.dim, count(v.id) AS n FROM models m"
            " LEFT JOIN vectors v ON v.model_id = m.id GROUP BY m.id ORDER BY n DESC, m.name"
        )
        return [IndexedModel(*row) for row in self.sql.execute(query)]

    def label_sets(self) -> dict[str, int]:
        """How many contents each label set decided, by its fingerprint."""
        query = (
            "SELECT c.tagged_by, count(*) FROM contents c WHERE c.tagged_by IS NOT NULL"
            " AND EXISTS (SELECT 1 FROM photos p WHERE p.content_id = c.id) GROUP BY c.tagged_by"
        )
        return dict(self.sql.execute(query))

    def counts(self) -> dict[str, int]:
        """How many photos, distinct contents among them, model tags and failures there are."""
        queries = {
            "photos": "SELECT count(*) FROM photos",
            "contents": "SELECT count(DISTINCT content_id) FROM photos",
            "tags": "SELECT count(*) FROM tags",
            "failures": "SELECT count(*) FROM failures",
        }
        return {name: int(self.sql.execute(query).fetchone()[0]) for name, query in queries.items()}


def below(folder: str) -> tuple[bytes, bytes]:
    """The half-open range of stored paths that lie below `folder`."""
    low = os.fsencode(os.path.join(folder, ""))
    return low, low[:-1] + bytes([low[-1] + 1])


def within(path: bytes, folder: bytes) -> bool:
    """Whether the stored `path` is `folder` or lies below it."""
    return path == folder or path.startswith(os.path.join(folder, b""))


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())

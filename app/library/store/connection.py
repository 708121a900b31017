"""One open index: its connection, transactions and snapshots.

SQL on each table is in the module that owns the table: `photos`, `contents`, `vectors`, `tags` and so on, next to this
one. No other folder holds SQL.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from app.library.errors import LibraryError, explain
from app.library.store import schema
from mobileclip.files import PathLike

Ids = NDArray[np.int64]
"""Ids of photos or contents, int64 (n,)."""


def _explained(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(cursor: "_Cursor", *args: Any) -> Any:
        try:
            return method(cursor, *args)
        except sqlite3.Error as error:
            raise explain(error, cursor.connection.path) from error

    return call


class _Cursor(sqlite3.Cursor):
    """Raises a LibraryError for every SQLite error, at once or while rows are read."""

    connection: "_Connection"
    execute = _explained(sqlite3.Cursor.execute)
    executemany = _explained(sqlite3.Cursor.executemany)
    executescript = _explained(sqlite3.Cursor.executescript)
    fetchone = _explained(sqlite3.Cursor.fetchone)
    fetchall = _explained(sqlite3.Cursor.fetchall)
    __next__ = _explained(sqlite3.Cursor.__next__)


class _Connection(sqlite3.Connection):
    """A connection in autocommit; transactions are explicit."""

    path: Path

    def cursor(self, factory: Any = _Cursor) -> Any:
        try:
            return super().cursor(factory)
        except sqlite3.Error as error:  # closed, or used in another thread
            raise explain(error, self.path) from error

    def execute(self, *args: Any) -> Any:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        return self.cursor().executemany(*args)

    def executescript(self, *args: Any) -> Any:
        return self.cursor().executescript(*args)


class Store:
    """One open index; a connection for one thread. Use it in a `with` block, which closes it.

    Every SQLite error arrives as a LibraryError with one plain line.
    """

    def __init__(self, path: PathLike, *, create: bool = False) -> None:
        """Open the index at `path`.

        Args:
            path: the SQLite file.
            create: create the file and its folder if they are missing.

        Raises:
            LibraryError: missing (and `create` is false), not ours, made by a newer version, or not writable.
        """
        self.path = Path(path)
        self.sql: sqlite3.Connection = _connect(self.path, create=create)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the store can't be used any more."""
        self.sql.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all writes inside the block, or none of them if it raises."""
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
        """All reads inside the block see the same moment, no matter what other processes write."""
        self.sql.execute("BEGIN")
        try:
            yield
        finally:
            self.sql.execute("COMMIT")

    def stamp(self) -> str:
        """A text that changes whenever a search could give another answer; unique to this index file."""
        rows = dict(self.sql.execute("SELECT key, value FROM meta WHERE key IN ('identity', 'changes')"))
        return f"{rows['identity']}:{rows['changes']}"

    def empty(self, *, keep_decisions: bool) -> None:
        """Delete all rows and overwrite their space on disk.

        Args:
            keep_decisions: keep corrections, custom labels and excluded patterns.
        """
        with self.transaction():
            schema.empty(self.sql, keep_decisions=keep_decisions)
        # Deleted rows stay legible in the file until it is rewritten.
        self.sql.execute("VACUUM")
        self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _connect(path: Path, *, create: bool) -> _Connection:
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LibraryError(f"cannot make the index folder {path.parent}: {error.strerror}") from None
    elif not path.exists():
        raise LibraryError(f"there is no index at {path}")
    try:
        connection = sqlite3.connect(
            path, timeout=schema.BUSY_SECONDS, isolation_level=None, cached_statements=256, factory=_Connection
        )
    except sqlite3.Error as error:
        raise explain(error, path) from None
    connection.path = path
    try:
        schema.prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection

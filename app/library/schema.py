"""The tables of the index, and the one way to open them.

A photo is a place on disk; a content is what lies there, known by its hash. Vectors and tags hang on
contents, so that a moved file keeps them and two copies share them. File names are bytes on most systems and
need not be text, so paths are stored as the bytes that the system uses (`os.fsencode`).
"""

import sqlite3
import uuid
from pathlib import Path

from app.library.errors import LibraryError, explain

APPLICATION_ID = 0x70434C50  # "pCLP", seen by `file` and checked before anything is written
VERSION = 1
BUSY_SECONDS = 20.0

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE roots (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    read_at REAL                          -- when it was last read to the end, Unix seconds
);

CREATE TABLE contents (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    tagged_by TEXT,                       -- the label set whose decisions are in tags
    orphaned_at REAL                      -- since when no photo holds this content
);

CREATE TABLE photos (
    id INTEGER PRIMARY KEY,
    root_id INTEGER NOT NULL REFERENCES roots ON DELETE CASCADE,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    content_id INTEGER NOT NULL REFERENCES contents
);
CREATE INDEX photos_by_content ON photos (content_id);
CREATE INDEX photos_by_root ON photos (root_id);

CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    dim INTEGER NOT NULL
);

CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    model_id INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
    content_id INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE,
    vector BLOB NOT NULL,                 -- float16, little endian, dim of the model
    UNIQUE (model_id, content_id)
);
CREATE INDEX vectors_by_content ON vectors (content_id);

CREATE TABLE tags (
    content_id INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE,
    label TEXT NOT NULL,
    score REAL NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('model', 'you')),
    PRIMARY KEY (content_id, label)
) WITHOUT ROWID;

CREATE TABLE failures (
    path BLOB PRIMARY KEY,
    root_id INTEGER NOT NULL REFERENCES roots ON DELETE CASCADE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    failed_at REAL NOT NULL
) WITHOUT ROWID;
"""

# Whatever decides which vectors a search may see moves the counter, so that no writer can forget to.
_COUNTED = (
    "INSERT ON photos",
    "DELETE ON photos",
    "UPDATE OF content_id ON photos",
    "INSERT ON vectors",
    "DELETE ON vectors",
    "UPDATE ON vectors",
)


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open the index at `path` in WAL mode with foreign keys on; autocommit, transactions are explicit.

    Args:
        path: the SQLite file.
        create: make the file and its folder where they are missing.

    Raises:
        LibraryError: not there (and `create` is false), not ours, made by a newer version, or not writable.
    """
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LibraryError(f"cannot make the index folder {path.parent}: {error.strerror}") from None
    elif not path.exists():
        raise LibraryError(f"there is no index at {path}")
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=256)
    except sqlite3.Error as error:
        raise explain(error, path) from None
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise explain(error, path) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _pragma(connection, "user_version")
    if version > VERSION:
        raise LibraryError(
            f"the index {path} was made by a newer pocketclip (schema {version}; this one reads"
            f" {VERSION}); update pocketclip or set POCKETCLIP_HOME to another folder"
        )
    connection.execute("PRAGMA foreign_keys = ON")
    # With WAL, NORMAL keeps the file whole after a crash of any kind; only a power cut may cost the last
    # commits.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        _create(connection, path)
    elif _pragma(connection, "application_id") != APPLICATION_ID:
        raise LibraryError(f"{path} is not a pocketclip index; move it away or set POCKETCLIP_HOME")


def _create(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have made the tables while this one waited for the lock.
        if _pragma(connection, "user_version") == 0:
            if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
                raise LibraryError(f"{path} is not a pocketclip index; move it away or set POCKETCLIP_HOME")
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            for number, event in enumerate(_COUNTED):
                connection.execute(
                    f"CREATE TRIGGER count_{number} AFTER {event} BEGIN"
                    " UPDATE meta SET value = value + 1 WHERE key = 'changes'; END"
                )
            connection.execute("INSERT INTO meta VALUES ('changes', 0), ('identity', ?)", (uuid.uuid4().hex,))
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

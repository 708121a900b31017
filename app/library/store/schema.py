"""The tables of the index: how they are created, upgraded and emptied.

A photo is a place on disk; a content is what is there, known by its hash. Vectors and tags belong to contents, so that
a moved file keeps them and two copies share them. What a person decides belongs to the hash itself and outlives even
the content. File names are bytes on most systems and need not be text, so paths are stored as the bytes that the
system uses (`os.fsencode`).

A new index is created as the first version and upgraded like any old one: there is one description of every version.
"""

import sqlite3
import time
import uuid
from pathlib import Path

from app.library.errors import LibraryError

APPLICATION_ID = 0x70434C50  # "pCLP", seen by `file` and checked before anything is written
VERSION = 2
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

# Version 2: dates and sizes for a screen, and what a person decides.
_SECOND = """
ALTER TABLE photos ADD COLUMN taken REAL NOT NULL DEFAULT 0;       -- see app.library.files.exif.Facts
ALTER TABLE photos ADD COLUMN taken_from TEXT NOT NULL DEFAULT 'file' CHECK (taken_from IN ('camera', 'file'));
ALTER TABLE photos ADD COLUMN width INTEGER;                       -- upright, in pixels; NULL until the header is read
ALTER TABLE photos ADD COLUMN height INTEGER;
UPDATE photos SET taken = coalesce(
    CAST(strftime('%s', mtime_ns / 1000000000, 'unixepoch', 'localtime') AS REAL), 0);
CREATE INDEX photos_by_time ON photos (taken DESC, id DESC);
CREATE INDEX photos_without_facts ON photos (id) WHERE width IS NULL;
CREATE INDEX tags_by_label ON tags (label, score);

CREATE TABLE corrections (
    hash BLOB NOT NULL,
    label TEXT NOT NULL,
    verdict INTEGER NOT NULL CHECK (verdict IN (0, 1)),
    decided_at REAL NOT NULL,
    PRIMARY KEY (hash, label)
) WITHOUT ROWID;
CREATE INDEX corrections_by_label ON corrections (label);
INSERT INTO corrections SELECT c.hash, t.label, 1, strftime('%s') FROM tags t JOIN contents c ON c.id = t.content_id
    WHERE t.source = 'you';

CREATE TABLE own_labels (
    name TEXT PRIMARY KEY,
    phrases TEXT NOT NULL,                -- a JSON list
    sensitivity REAL NOT NULL,
    made_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE own_fits (                   -- a custom label fitted to one model; made again if missing
    model_id INTEGER NOT NULL REFERENCES models ON DELETE CASCADE,
    name TEXT NOT NULL REFERENCES own_labels ON DELETE CASCADE,
    vector BLOB NOT NULL,                 -- float32, little endian
    threshold REAL NOT NULL,
    slope REAL NOT NULL,
    PRIMARY KEY (model_id, name)
) WITHOUT ROWID;

CREATE TABLE decided (                    -- labels whose tags follow another rule than the bundle's, and which
    label TEXT PRIMARY KEY,
    rule TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE searches (words TEXT PRIMARY KEY, searched_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE excluded (pattern TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_UPGRADES = {2: _SECOND}

MADE_FROM_PHOTOS = ("tags", "vectors", "failures", "photos", "contents", "roots", "decided", "searches", "models")
DECISIONS = ("corrections", "own_fits", "own_labels", "excluded")
"""All tables but `meta`: what indexing can restore, and what only a person can. In an order that foreign keys allow."""

# Whatever decides which vectors a search may see moves the counter, so that no writer can forget to.
_COUNTED = (
    "INSERT ON photos",
    "DELETE ON photos",
    "UPDATE OF content_id ON photos",
    "INSERT ON vectors",
    "DELETE ON vectors",
    "UPDATE ON vectors",
)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Switch to WAL with foreign keys on; create the tables of an empty file, upgrade old ones.

    Raises:
        LibraryError: not an index of ours, made by a newer version, or not writable.
    """
    version = _pragma(connection, "user_version")
    if version > VERSION:
        raise LibraryError(
            f"the index {path} was made by a newer pocketclip (schema {version}; this one reads"
            f" {VERSION}); update pocketclip or set POCKETCLIP_HOME to another folder"
        )
    connection.execute("PRAGMA foreign_keys = ON")
    # With WAL, NORMAL keeps the file whole after a crash of any kind; only a power cut may cost the last
    # commits.
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    if version and _pragma(connection, "application_id") != APPLICATION_ID:
        raise LibraryError(f"{path} is not a pocketclip index; move it away or set POCKETCLIP_HOME")
    if version < VERSION:
        _upgrade(connection, path)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, which SQLite refuses at once, without its timeout, while another process does."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except LibraryError as error:
            cause = error.__cause__
            busy = isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > end:
                raise
        time.sleep(0.02)


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables or upgrade old ones, all steps or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        version = _pragma(connection, "user_version")
        if version == 0:
            _create(connection, path)
        for number in range(max(version, 1) + 1, VERSION + 1):
            _run(connection, _UPGRADES[number])
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        # After a full disk SQLite has often rolled back on its own.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def empty(connection: sqlite3.Connection, *, keep_decisions: bool) -> None:
    """Delete the rows of all tables; with `keep_decisions`, not what a person decided."""
    for table in (*MADE_FROM_PHOTOS, *(() if keep_decisions else DECISIONS)):
        connection.execute(f"DELETE FROM {table}")


def _create(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise LibraryError(f"{path} is not a pocketclip index; move it away or set POCKETCLIP_HOME")
    _run(connection, _TABLES)
    for number, event in enumerate(_COUNTED):
        connection.execute(
            f"CREATE TRIGGER count_{number} AFTER {event} BEGIN"
            " UPDATE meta SET value = value + 1 WHERE key = 'changes'; END"
        )
    connection.execute("INSERT INTO meta VALUES ('changes', 0), ('identity', ?)", (uuid.uuid4().hex,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _run(connection: sqlite3.Connection, script: str) -> None:
    # Not executescript, which would commit what came before.
    lines = (line.partition("--")[0] for line in script.splitlines())
    for statement in "\n".join(lines).split(";"):
        if statement.strip():
            connection.execute(statement)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

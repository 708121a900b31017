"""What can go wrong with an index, in words for the person who owns it."""

import sqlite3
from pathlib import Path

from mobileclip.errors import PocketclipError


class LibraryError(PocketclipError):
    """An index that cannot be opened, read or written."""


class IndexBusyError(LibraryError):
    """Another process is indexing into the same index."""


class NothingIndexedError(LibraryError):
    """A question to an index that does not exist yet or holds nothing for this model."""


# SQLite's extended result names start with their family, e.g. SQLITE_IOERR_WRITE.
_WORDS = {
    "SQLITE_FULL": "the disk is full while writing the index {path}; free some space and try again",
    "SQLITE_READONLY": "the index {path} is read-only; change its permissions or set POCKETCLIP_HOME",
    "SQLITE_CANTOPEN": "cannot open the index {path}; check its permissions or set POCKETCLIP_HOME",
    "SQLITE_NOTADB": "{path} is not a pocketclip index; move it away and index again",
    "SQLITE_CORRUPT": "the index {path} is damaged; move it away and index again (photos are never touched)",
    "SQLITE_BUSY": "the index {path} is being written by another process; try again in a moment",
    "SQLITE_IOERR": "the disk refused to read or write the index {path} ({detail}); is it full or unplugged?",
}


def explain(error: sqlite3.Error, path: Path) -> LibraryError:
    """Turn what SQLite says about the index at `path` into one line that says what to do."""
    name = getattr(error, "sqlite_errorname", "")
    for family, words in _WORDS.items():
        if name.startswith(family):
            return LibraryError(words.format(path=path, detail=error))
    return LibraryError(f"the index {path} cannot be used: {error}")

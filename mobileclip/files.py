"""The type of paths that callers pass, and atomic writes of files and folders."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

__all__ = ["PHOTO_SUFFIXES", "PathLike", "atomic_write", "new_folder", "sync_folder", "write_bytes"]

PathLike = str | os.PathLike[str]
"""What every public function that takes a path accepts."""

PHOTO_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .tif .tiff .bmp .avif .heic .heif".split()  # noqa: SIM905 (reads as a list)
)
"""Suffixes of files that may be photos, in lower case. Whether they are, the decoder decides."""


@contextmanager
def atomic_write(path: PathLike, *, sync: bool = True) -> Iterator[Path]:
    """Replace a file as a whole: yields a temporary path to write to, which is renamed to `path` at the end.

    Readers see either the old file or the new one. With `sync`, this also holds after a power cut, because the data and
    the folder entry are on disk before this returns. If the block raises, `path` stays as it was and the temporary file
    is removed.

    Args:
        path: the file to replace or create; its folder must exist.
        sync: wait for the disk. Only caches that check their files on reading may skip this.

    Raises:
        OSError: the file can't be written, for example because the disk is full.
    """
    target = Path(path)
    # Not tempfile.mkstemp: only the owner can read its files.
    part = target.with_name(f".{target.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield part
        if sync:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(target.parent)


def write_bytes(path: PathLike, data: bytes, *, sync: bool = True) -> None:
    """Write a file with `atomic_write`."""
    with atomic_write(path, sync=sync) as part:
        part.write_bytes(data)


@contextmanager
def new_folder(path: PathLike) -> Iterator[Path]:
    """Create a folder as a whole: yields a temporary folder to fill, which is renamed to `path` at the end.

    If the block raises, or the process is killed, there is no folder at `path`.

    Args:
        path: missing, or an empty folder; its parents are created.

    Raises:
        OSError: a file can't be written, or there is something else at `path`.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{target.name[:100]}-", dir=target.parent) as scratch:
        part = Path(scratch) / "new"
        part.mkdir()
        yield part
        with suppress(FileNotFoundError):
            target.rmdir()  # refuses a folder that isn't empty
        part.rename(target)
    sync_folder(target.parent)


def sync_folder(folder: PathLike) -> None:
    """Wait until a folder's entries are on disk, on systems where a folder can be opened."""
    if os.name == "nt":  # Windows can't open folders, and writes their entries together with the files
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse to sync folders.
        with suppress(OSError):
            os.fsync(number)
    finally:
        os.close(number)

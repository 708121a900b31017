"""Paths as callers give them, and files that are replaced whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["PHOTO_SUFFIXES", "PathLike", "atomic_write", "sync_folder", "write_bytes"]

PathLike = str | os.PathLike[str]
"""What every public function that takes a path accepts."""

PHOTO_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .tif .tiff .bmp .avif .heic .heif".split()  # noqa: SIM905 (reads as a list)
)
"""Suffixes of files that are worth opening, in lower case; the decoder decides what is really inside."""


@contextmanager
def atomic_write(path: PathLike, *, sync: bool = True) -> Iterator[Path]:
    """Replace a file as a whole: write to the path that this yields, and it takes the name of `path` at the end.

    A reader sees either the old file or the new one. With `sync`, the data and the folder entry are on disk before
    this returns, so the same holds after a power cut. If the block raises, `path` stays as it was and the partial
    file is removed.

    Args:
        path: the file to replace or create; its folder must exist.
        sync: wait for the disk. Only a cache whose files are checked when they are read may skip this.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    target = Path(path)
    # Not tempfile.mkstemp, whose files only their owner may read.
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
    """Write a file as a whole, see `atomic_write`."""
    with atomic_write(path, sync=sync) as part:
        part.write_bytes(data)


def sync_folder(folder: PathLike) -> None:
    """Wait until the names in a folder are on disk, on systems where a folder can be opened."""
    if os.name == "nt":  # Windows cannot open folders, and writes names with their files
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse to sync folders.
        with suppress(OSError):
            os.fsync(number)
    finally:
        os.close(number)

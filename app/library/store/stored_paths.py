"""Paths as the index stores them: the bytes that the system uses, because file names need not be text."""

# A prefix of paths needs the closing separator, which Path drops.
# ruff: noqa: PTH118

import os


def below(folder: str) -> tuple[bytes, bytes]:
    """The half-open range of stored paths below `folder`."""
    low = os.fsencode(os.path.join(folder, ""))
    return low, low[:-1] + bytes([low[-1] + 1])


def within(path: bytes, folder: bytes) -> bool:
    """Whether the stored `path` is `folder` or lies below it."""
    return path == folder or path.startswith(os.path.join(folder, b""))

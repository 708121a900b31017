"""Find the files that a recipe names, and write files as a whole."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mobileclip.errors import PocketclipError, one_line
from mobileclip.files import PathLike, atomic_write


def locate(name: str, base: PathLike) -> Path:
    """Resolve `package:relative/path`, an absolute path, or a path relative to `base`.

    Raises:
        PocketclipError: the package isn't installed, or the file or folder doesn't exist.
    """
    package, colon, inside = name.partition(":")
    if colon and package.isidentifier():
        try:
            path = Path(str(importlib.resources.files(package))) / inside
        except ModuleNotFoundError as error:
            raise PocketclipError(
                f"the package {package} is needed: pip install {package.replace('_', '-')}"
            ) from error
    else:
        path = Path(base) / name
    if not path.exists():
        raise PocketclipError(f"{path}: no such file or folder")
    return path


def write_whole(path: PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Write a file as a whole, and the folders above it if they don't exist; see `mobileclip.files.atomic_write`.

    Args:
        path: the file.
        write: writes the content to an open file.

    Raises:
        PocketclipError: the disk is full, or the folder isn't writable.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part, part.open("wb") as stream:
            write(stream)
    # torch reports a failed write as a RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise PocketclipError(f"{path}: cannot be written ({reason})") from error

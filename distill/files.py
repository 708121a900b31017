"""Where a recipe's files are: beside it, below the data folder, or inside an installed package; and whole writes."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike


def locate(name: str, base: PathLike) -> Path:
    """Resolve `package:relative/path`, an absolute path, or a path relative to `base`.

    Raises:
        PocketclipError: the package is not installed or there is no such file.
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


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that is there whole or not at all, even if the machine stops in between.

    Args:
        path: the file; its folder is made where it is missing.
        write: fills an open file.

    Raises:
        PocketclipError: the disk is full, or the folder cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    # torch reports a failed write as a RuntimeError.
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise PocketclipError(f"{path}: cannot be written ({reason})") from error

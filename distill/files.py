"""Find the files that a recipe names, and write files as a whole."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mobileclip.errors import PocketclipError, one_line
from mobileclip.files import PathLike, atomic_write

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12 on


def locate(name: str, base: PathLike) -> Path:
    """Resolve `package:relative/path`, an absolute path, or a path relative to `base`.

    Raises:
        PocketclipError: the package isn't installed, or the file or folder doesn't exist.
    """
    package, inside = _split_package(name)
    if package:
        try:
            path = Path(str(importlib.resources.files(package))) / inside
        except ModuleNotFoundError as error:
            raise PocketclipError(
                f"the package {package} is needed: pip install {package.replace('_', '-')}"
            ) from error
    else:
        path = Path(base) / Path(name).expanduser()
    if not path.exists():
        raise PocketclipError(f"{path}: no such file or folder")
    return path


def locate_weights(name: str, base: PathLike) -> Path:
    """As `locate`, but a path that doesn't exist below `base` is relative to the current folder.

    So a recipe that ships can name weights that its user has downloaded.

    Args:
        name: what a recipe names.
        base: the recipe's folder.

    Raises:
        PocketclipError: the package isn't installed, or the file or folder is in neither place.
    """
    path, here = Path(name).expanduser(), Path.cwd()
    if _split_package(name)[0] or path.is_absolute() or (Path(base) / path).exists():
        return locate(name, base)
    if not (here / path).exists():
        raise PocketclipError(f"{name}: no such file or folder, neither in {here} nor next to the recipe")
    return here / path


def _split_package(name: str) -> tuple[str, str]:
    """Split `package:relative/path`; the package is "" if the name has none."""
    package, colon, inside = name.partition(":")
    return (package, inside) if colon and package.isidentifier() else ("", name)


def write_whole(path: PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Write a file as a whole, and the folders above it if they don't exist; see `mobileclip.files.atomic_write`.

    Args:
        path: the file.
        write: writes the content to an open file.

    Raises:
        PocketclipError: the disk is full, or the folder isn't writable.
    """
    target, streams = Path(path), []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part, _Stream(FileIO(part, "wb")) as stream:
            streams.append(stream)
            write(stream)
    # torch and zipfile report a failed write as something else, such as "unexpected pos 4513984".
    except (OSError, RuntimeError) as error:
        cause = next((stream.failure for stream in streams if stream.failure), error)
        reason = getattr(cause, "strerror", None) or one_line(cause)
        raise PocketclipError(f"{path}: cannot be written ({reason})") from error


class _Stream(BufferedWriter):
    """A stream that remembers why a write failed."""

    failure: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise

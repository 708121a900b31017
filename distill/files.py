"""Where a recipe's files are: beside it, below the data folder, or inside an installed package."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from mobileclip.errors import PocketclipError


def locate(name: str, base: Path) -> Path:
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
        path = base / name
    if not path.exists():
        raise PocketclipError(f"{path}: no such file or folder")
    return path

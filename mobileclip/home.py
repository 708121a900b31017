"""The user's own folder of pocketclip, as far as the model side must know it."""

import os
from pathlib import Path

__all__ = ["HOME_VARIABLE", "cache_folder", "data_folder", "models_folder"]

HOME_VARIABLE = "POCKETCLIP_HOME"


def data_folder() -> Path | None:
    """The folder of the index and of pulled models; None where neither a variable nor a package tells it.

    Nothing is made on disk.
    """
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home).expanduser().absolute()
    try:
        from platformdirs import PlatformDirs
    except ImportError:  # a phone, where the app alone knows its folders
        return None
    return PlatformDirs("pocketclip", appauthor=False).user_data_path


def models_folder() -> Path | None:
    """Where `pocketclip models pull` puts bundles, each in a folder of its name; None as in `data_folder`."""
    data = data_folder()
    return data / "models" if data else None


def cache_folder() -> Path | None:
    """The folder of files that can be made again at any time, or None as in `data_folder`. Nothing is created."""
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home).expanduser().absolute() / "cache"
    try:
        from platformdirs import PlatformDirs
    except ImportError:
        return None
    return PlatformDirs("pocketclip", appauthor=False).user_cache_path

"""The folders for pocketclip's own files, which are never stored among the photos."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Folders", "models_folder", "user_folders"]

_VARIABLE = "POCKETCLIP_HOME"


@dataclass(frozen=True)
class Folders:
    """The folders of one installation. Each is created when something is first written to it.

    Attributes:
        data: the index and pulled models; worth a backup.
        cache: files that can be rebuilt at any time.
        config: settings.
    """

    data: Path
    cache: Path
    config: Path

    @property
    def index(self) -> Path:
        """The library's SQLite file."""
        return self.data / "index.db"

    @property
    def models(self) -> Path:
        """Where `pocketclip models pull` puts bundles, each in a folder with its name."""
        return self.data / "models"


def user_folders() -> Folders:
    """Find the folders: below `$POCKETCLIP_HOME` if it is set, otherwise where the operating system wants them.

    Raises:
        ImportError: the variable isn't set and platformdirs isn't installed, as on a phone, where only the app knows
            its folders.
    """
    home = os.environ.get(_VARIABLE)
    if home:
        base = Path(home).expanduser().absolute()
        return Folders(base, base / "cache", base / "config")
    from platformdirs import PlatformDirs

    system = PlatformDirs("pocketclip", appauthor=False)
    return Folders(system.user_data_path, system.user_cache_path, system.user_config_path)


def models_folder() -> Path | None:
    """`Folders.models`, or None if the folders aren't known (see `user_folders`)."""
    try:
        return user_folders().models
    except ImportError:
        return None

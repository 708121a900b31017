"""Where pocketclip keeps its own files: never among the photos."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Folders", "models_folder", "user_folders"]

_VARIABLE = "POCKETCLIP_HOME"


@dataclass(frozen=True)
class Folders:
    """The folders of one installation. None is created before something is written to it.

    Attributes:
        data: the index and pulled models, worth a backup.
        cache: what can be rebuilt at any time.
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
        """Where `pocketclip models pull` puts bundles, each in a folder of its name."""
        return self.data / "models"


def user_folders() -> Folders:
    """Find the folders: below `$POCKETCLIP_HOME` if it is set, else where the system keeps such files.

    Raises:
        ImportError: the variable isn't set and platformdirs isn't installed, as on a phone, where the app alone knows
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
    """`Folders.models`, or None where nothing tells the folders."""
    try:
        return user_folders().models
    except ImportError:
        return None

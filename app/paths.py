"""Where pocketclip keeps its own files: never among the photos."""

import os
from dataclasses import dataclass
from pathlib import Path

from mobileclip.home import HOME_VARIABLE


@dataclass(frozen=True)
class Places:
    """The folders of one installation; none of them is made before something is written to it.

    Attributes:
        data: the index, which a person may want in a backup.
        cache: what can be made again at any time.
        config: settings.
    """

    data: Path
    cache: Path
    config: Path

    @property
    def index(self) -> Path:
        """The SQLite file of the gallery."""
        return self.data / "index.db"


def places() -> Places:
    """Find the folders: below `$POCKETCLIP_HOME` where it is set, else where the system wants such files."""
    home = os.environ.get(HOME_VARIABLE)
    if home:
        base = Path(home).expanduser().absolute()
        return Places(base, base / "cache", base / "config")
    from platformdirs import PlatformDirs

    system = PlatformDirs("pocketclip", appauthor=False)
    return Places(system.user_data_path, system.user_cache_path, system.user_config_path)

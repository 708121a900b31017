"""What the gallery remembers between two runs: a small JSON file in the configuration folder."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mobileclip.files import write_bytes


@dataclass
class Settings:
    """Choices and state of the window.

    Attributes:
        dark: the dark theme.
        cell: wanted side of a photo in the grid, in dp; columns follow from it and the window.
        width, height: of the window, in dp; 0 for the default.
        screen: the name of the one that was open.
    """

    dark: bool = False
    cell: float = 132.0
    width: int = 0
    height: int = 0
    screen: str = "photos"


def load_settings(path: Path) -> Settings:
    """Read the file; values that are missing, unknown or of the wrong type fall back to the default."""
    settings = Settings()
    try:
        stored: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return settings
    for field in fields(settings):
        default = getattr(settings, field.name)
        value = stored.get(field.name) if isinstance(stored, dict) else None
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is type(default):
            setattr(settings, field.name, value)
    settings.cell = min(max(settings.cell, 40.0), 400.0)
    return settings


def save_settings(settings: Settings, path: Path) -> bool:
    """Write the file, whole or not at all; whether it could be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps(asdict(settings)).encode())
    except OSError:
        return False
    return True

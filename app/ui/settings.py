"""What the gallery remembers of itself between two runs: one small JSON file in the configuration folder."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

MIN_COLUMNS, MAX_COLUMNS = 2, 24


@dataclass
class Settings:
    """Choices and state of the window.

    Attributes:
        dark: the dark theme.
        cell: side that a photo in the grid is to have, in dp; columns follow from it and the window.
        width, height: of the window, in dp; 0 for the system's choice.
        screen: the one that was open.
    """

    dark: bool = False
    cell: float = 132.0
    width: int = 0
    height: int = 0
    screen: str = "photos"


def load_settings(path: Path) -> Settings:
    """Read the file; whatever is missing, unknown or of the wrong kind falls back to the default."""
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
    part = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(settings), file)
        Path(part).replace(path)
    except OSError:
        if part:
            Path(part).unlink(missing_ok=True)
        return False
    return True

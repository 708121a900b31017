"""Open the gallery: first the settings that Kivy reads when it is imported, then the window."""

import logging
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mobileclip.errors import PocketclipError
from mobileclip.extras import MissingExtraError
from mobileclip.home import Folders

if TYPE_CHECKING:
    from app.ui.app import GalleryApp
    from mobileclip.model import Model

LEAST_SIZE = 360, 480


class WindowError(PocketclipError):
    """No window can be opened for the gallery."""


def prepare(folders: Folders) -> None:
    """Keep Kivy from reading our arguments, logging to files and writing to the user's home folder."""
    os.environ.setdefault("KIVY_NO_ARGS", "1")
    os.environ.setdefault("KIVY_NO_FILELOG", "1")
    os.environ.setdefault("KIVY_NO_CONFIG", "1")
    # Warnings and tracebacks go to stderr as usual; Kivy would redirect stderr.
    os.environ.setdefault("KIVY_LOG_MODE", "PYTHON")
    if "KIVY_HOME" not in os.environ:
        os.environ["KIVY_HOME"] = str(_writable_folder(folders.cache / "kivy"))


def _writable_folder(wanted: Path) -> Path:
    """Create the folder, or a temporary one if the disk is read-only."""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if os.access(wanted, os.W_OK):
            return wanted
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="pocketclip-"))


def configure(width: int, height: int) -> None:
    """Set up window and input, before the window exists.

    Args:
        width, height: of the window, in dp; 0 for the default.
    """
    from kivy.config import Config

    # Kivy logs a missing xsel as critical. What really goes wrong raises an exception.
    logging.getLogger("kivy").setLevel(logging.CRITICAL + 1)
    Config.set("graphics", "multisamples", "4")
    Config.set("graphics", "minimum_width", str(LEAST_SIZE[0]))
    Config.set("graphics", "minimum_height", str(LEAST_SIZE[1]))
    Config.set("kivy", "exit_on_escape", "0")
    Config.set("input", "mouse", "mouse,disable_multitouch")
    # Touch screens reach us through SDL; Kivy would open their devices a second time if it has the permission.
    for name, value in list(Config.items("input")):
        if value.startswith("probesysfs"):
            Config.remove_option("input", name)
    if width and height:
        Config.set("graphics", "width", str(max(width, LEAST_SIZE[0])))
        Config.set("graphics", "height", str(max(height, LEAST_SIZE[1])))
    else:
        Config.set("graphics", "width", "1180")
        Config.set("graphics", "height", "780")


def make_app(folders: Folders, load_model: "Callable[[], Model]", roots: Sequence[str] = ()) -> "GalleryApp":
    """The application, ready to run; for the arguments see `run`."""
    from app.ui.app import GalleryApp
    from app.ui.session import Session

    return GalleryApp(lambda deliver: Session(folders, load_model, deliver, roots))


def run(folders: Folders, load_model: "Callable[[], Model]", roots: Sequence[str] = ()) -> None:
    """Show the gallery until its window is closed.

    Args:
        folders: where the index, the cache and the settings are.
        load_model: opens the model bundle; called in a worker thread when first needed.
        roots: folders of photos to index at once, in addition to those already indexed.

    Raises:
        MissingExtraError: Kivy isn't installed.
        WindowError: there is no screen.
    """
    from app.ui.settings import load_settings

    if find_spec("kivy") is None:
        raise MissingExtraError("the gallery", "ui", "Kivy")
    prepare(folders)
    settings = load_settings(folders.config / "gallery.json")
    configure(settings.width, settings.height)
    from kivy.core.window import Window

    if Window is None:
        raise WindowError("no window can be opened here; is there a screen? The other commands work without one")
    app = make_app(folders, load_model, roots)
    # The end of a login session, or a `kill`, closes the gallery as usual.
    signal.signal(signal.SIGTERM, lambda *_: app.end_soon())
    try:
        app.run()
    finally:
        app.on_stop()

"""Open the gallery: settings that Kivy reads before it is imported, then the window."""

import logging
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mobileclip.errors import PocketclipError
from mobileclip.home import Folders

if TYPE_CHECKING:
    from app.ui.app import GalleryApp
    from mobileclip.model import Model

LEAST_SIZE = 360, 480


class WindowError(PocketclipError):
    """There is no window to show the gallery in."""


def prepare(places: Folders) -> None:
    """Keep Kivy from reading our arguments, from logging to files and from writing to the person's home folder."""
    os.environ.setdefault("KIVY_NO_ARGS", "1")
    os.environ.setdefault("KIVY_NO_FILELOG", "1")
    os.environ.setdefault("KIVY_NO_CONFIG", "1")
    # Warnings and tracebacks stay on stderr, in the usual form; Kivy would take stderr over.
    os.environ.setdefault("KIVY_LOG_MODE", "PYTHON")
    if "KIVY_HOME" not in os.environ:
        os.environ["KIVY_HOME"] = str(_own_folder(places.cache / "kivy"))


def _own_folder(wanted: Path) -> Path:
    """The folder, made; a temporary one where the disk is read-only."""
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if os.access(wanted, os.W_OK):
            return wanted
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="pocketclip-"))


def configure(width: int, height: int) -> None:
    """Window and input; before the window is made."""
    from kivy.config import Config

    # To Kivy a missing xsel is critical; what really goes wrong is raised, not logged.
    logging.getLogger("kivy").setLevel(logging.CRITICAL + 1)
    Config.set("graphics", "multisamples", "4")
    Config.set("graphics", "minimum_width", str(LEAST_SIZE[0]))
    Config.set("graphics", "minimum_height", str(LEAST_SIZE[1]))
    Config.set("kivy", "exit_on_escape", "0")
    Config.set("input", "mouse", "mouse,disable_multitouch")
    # Touch screens reach us through SDL; Kivy would open their devices a second time, where it may.
    for name, value in list(Config.items("input")):
        if value.startswith("probesysfs"):
            Config.remove_option("input", name)
    if width and height:
        Config.set("graphics", "width", str(max(width, LEAST_SIZE[0])))
        Config.set("graphics", "height", str(max(height, LEAST_SIZE[1])))
    else:
        Config.set("graphics", "width", "1180")
        Config.set("graphics", "height", "780")


def make_app(places: Folders, load_model: "Callable[[], Model]", folders: Sequence[str] = ()) -> "GalleryApp":
    """The application, ready to run; see `run`."""
    from app.ui.app import GalleryApp
    from app.ui.session import Session

    return GalleryApp(lambda deliver: Session(places, load_model, deliver, folders))


def run(places: Folders, load_model: "Callable[[], Model]", folders: Sequence[str] = ()) -> None:
    """Show the gallery until its window is closed.

    Args:
        places: where the index, the cache and the settings lie.
        load_model: opens the model bundle; called in a worker thread when first needed.
        folders: to be indexed at once, beside those that are known.

    Raises:
        WindowError: Kivy is not installed, or there is no screen.
    """
    from app.ui.settings import load_settings

    if find_spec("kivy") is None:
        raise WindowError("the gallery needs Kivy; install it with: pip install 'pocketclip[ui]'")
    prepare(places)
    settings = load_settings(places.config / "gallery.json")
    configure(settings.width, settings.height)
    from kivy.core.window import Window

    if Window is None:
        raise WindowError("no window can be opened here; is there a screen? The other commands work without one")
    app = make_app(places, load_model, folders)
    # A session that ends, or somebody's `kill`, is an end like any other.
    signal.signal(signal.SIGTERM, lambda *_: app.end_soon())
    try:
        app.run()
    finally:
        app.on_stop()

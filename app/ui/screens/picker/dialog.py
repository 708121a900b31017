"""Choose a folder, by tapping through folders or by typing a path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kivy.properties import NumericProperty, ObjectProperty, StringProperty

from app.ui.kit.layers import Dialog
from app.ui.kit.shell import Shell
from app.ui.kit.strings import n, t
from app.ui.kit.widgets import load_layout
from app.ui.session import subfolders
from mobileclip.errors import PocketclipError


def first_folder() -> str:
    """The folder to begin with: the user's pictures, or the home folder."""
    home = Path.home()
    pictures = home / "Pictures"
    return str(pictures if pictures.is_dir() else home)


def exists(path: str) -> bool:
    """Whether there is a folder; true if that can't be found out, because its parent is closed to us."""
    try:
        return Path(path).is_dir()
    except PermissionError:
        return True


class FolderPicker(Dialog):
    """The dialog; `picked` is called with the absolute path."""

    path = StringProperty("")
    parent_height = NumericProperty(640)
    path_field = ObjectProperty(None)
    found = ObjectProperty(None)
    note = ObjectProperty(None)

    def __init__(self, picked: Callable[[str], None], start: str = "", **kwargs: Any) -> None:
        super().__init__(title=t("picker.title"), widest=520, **kwargs)
        self.move_to_body("holder", "found", "note")
        self.add_action(t("action.cancel"), lambda: None)
        self.use = self.add_action(t("picker.use"), lambda: picked(self.path), "filled")
        self.go(start or first_folder())

    def open(self, shell: Shell) -> None:
        self.parent_height = shell.height
        super().open(shell)

    def go(self, path: str) -> None:
        """Show what is in a folder; one that can't be opened says why and can't be used."""
        path = str(Path(path).expanduser().absolute())
        self.path = self.path_field.text = path
        try:
            names, photos = subfolders(path)
        except PocketclipError:
            self.found.data = []
            self.note.text = t("picker.closed" if exists(path) else "picker.missing")
            self.use.disabled = True
            return
        self.use.disabled = False
        self.found.data = [
            {"text": name, "value": str(Path(path, name)), "icon": "folder", "note": "", "pick": self.go}
            for name in names
        ]
        self.found.scroll_y = 1
        notes = [] if names else [t("picker.empty")]
        notes += [t("picker.photos", photos=n("photos", photos))] if photos else []
        self.note.text = " ".join(notes)

    def up(self) -> None:
        """Go to the parent folder."""
        self.go(str(Path(self.path).parent))


load_layout(__file__)

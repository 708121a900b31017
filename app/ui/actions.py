"""What can be done with photos on any screen: read them, copy their paths, give them a label."""

from collections.abc import Callable, Sequence
from typing import Any

from app.library.gallery import Photo
from app.ui.kit import layers
from app.ui.kit.shell import Shell
from app.ui.kit.strings import n, t
from app.ui.session import Session
from mobileclip.errors import PocketclipError


class Actions:
    """See `app.ui.host.PhotoActions`.

    Args:
        session: the open library.
        shell: where dialogs and messages appear.
        trouble: shows an error as a message.
    """

    def __init__(self, session: Session, shell: Shell, trouble: Callable[[PocketclipError], None]) -> None:
        self._session, self._shell, self._trouble = session, shell, trouble

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Read photos by their ids, in this thread; none if the library can't be read."""
        if self._session.quick is None:
            return []
        try:
            return self._session.quick.photos(ids)
        except PocketclipError as error:
            self._trouble(error)
            return []

    def copy_paths(self, ids: Sequence[int]) -> None:
        """Put the paths of photos on the clipboard, one per line."""
        paths = [photo.path for photo in self.photos_of(ids)]
        if paths:
            # Imported late: it looks for the system's clipboard programs, which would delay the first frame.
            from kivy.core.clipboard import Clipboard

            Clipboard.copy("\n".join(paths))
            layers.show_message(self._shell, n("message.copied", len(paths)))

    def label_photos(self, ids: Sequence[int], then: Callable[[], None] = lambda: None) -> None:
        """Let the user choose a label, and give it to photos; `then` runs once it is given."""

        def correct(gallery: Any, label: str, verdict: bool | None) -> None:
            for photo_id in ids:
                gallery.correct(photo_id, label, verdict)

        def undo(label: str) -> None:
            tags_changed = self._session.tags_changed
            self._session.ask(lambda gallery: correct(gallery, label, None), lambda _: tags_changed(), self._trouble)

        def given(label: str) -> None:
            then()
            self._session.tags_changed()
            message = n("message.labeled", len(ids), label=label)
            layers.show_message(self._shell, message, t("action.undo"), lambda: undo(label))

        def picked(label: str) -> None:
            self._session.ask(lambda gallery: correct(gallery, label, True), lambda _: given(label), self._trouble)

        self.pick_label(t("photo.add"), picked, free=True)

    def pick_label(self, title: str, picked: Callable[[str], None], *, free: bool) -> None:
        """Let the user choose an existing label, or with `free` type a new one."""
        choices = [(label, label, "") for label in self._session.labels]
        layers.PickDialog(picked, choices, "tag", free, title=title, hint=t("pick.filter")).open(self._shell)

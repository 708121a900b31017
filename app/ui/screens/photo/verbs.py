"""What the panel of an open photo offers: find where something is, accept or reject labels, open a similar photo."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.ui.host import Host
from app.ui.kit import layers
from app.ui.kit.strings import t
from app.ui.screens.photo.model import PhotoModel


class PhotoVerbs:
    """The actions of one open photo, which `.kv` calls by name.

    Args:
        host: the application.
        model: the open photo.
        finding: called when a search inside the photo begins.
        open_similar: opens one of the similar photos, given all their ids and its position.
    """

    def __init__(
        self,
        host: Host,
        model: PhotoModel,
        finding: Callable[[], None],
        open_similar: Callable[[NDArray[np.int64], int], None],
    ) -> None:
        self._host, self._model, self._finding, self._open_similar = host, model, finding, open_similar

    def find(self, text: str) -> None:
        """Show where in the photo a text or a label matches; nothing for ""."""
        self._model.find(text)
        if text:
            self._finding()

    def add_label(self) -> None:
        """Let the user choose a label, and give it to the photo."""
        self._host.actions.pick_label(
            t("photo.add"), lambda label: self._correct(label, True, "message.added"), free=True
        )

    def accept(self, label: str) -> None:
        """Confirm that a label is right."""
        self._correct(label, True, "message.accepted")

    def reject(self, label: str) -> None:
        """Mark a label as wrong."""
        self._correct(label, False, "message.rejected")

    def undo(self, label: str) -> None:
        """Remove the user's verdict on a label."""
        self._model.correct(label, None)

    def open_similar(self, index: int) -> None:
        """Open one of the similar photos."""
        self._open_similar(np.array(self._model.similar, np.int64), index)

    def _correct(self, label: str, verdict: bool, message: str) -> None:
        def done() -> None:
            layers.show_message(self._host.shell, t(message, label=label), t("action.undo"), lambda: self.undo(label))

        self._model.correct(label, verdict, done)

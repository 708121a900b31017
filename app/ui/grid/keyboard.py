"""The keyboard in a grid: a cursor that moves from photo to photo, opens and chooses."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.ui.grid.rows import Move
from app.ui.grid.selection import Selection
from app.ui.grid.viewport import Viewport

MOVES: dict[str, Move] = {
    "left": "left", "right": "right", "up": "up", "down": "down", "home": "home", "end": "end",
    "pageup": "page_up", "pagedown": "page_down",
}  # fmt: skip
LARGER, SMALLER = ("+", "=", "numpadadd"), ("-", "numpadsubstract")
"""Kivy's names of the keys, its spelling included."""

ZOOM = 1.15


class Keyboard:
    """Handles the keys of one grid.

    Args:
        viewport: where the photos are.
        selection: which of them are chosen.
        open_photo: opens the photo at a place.
        zoom: makes photos larger or smaller by a factor.
        changed: called when the cursor has moved.

    Attributes:
        ids: of the photos shown, int64 (n,).
        cursor: the place in `ids` where the keyboard is; None before the first key.
        ring: whether the cursor is drawn: from a key until the next touch.
    """

    def __init__(
        self,
        viewport: Viewport,
        selection: Selection,
        *,
        open_photo: Callable[[int], None],
        zoom: Callable[[float], None],
        changed: Callable[[], None],
    ) -> None:
        self._viewport, self._selection = viewport, selection
        self._open, self._zoom, self._changed = open_photo, zoom, changed
        self.ids: NDArray[np.int64] = np.empty(0, np.int64)
        self.cursor: int | None = None
        self.ring = False

    def show(self, ids: NDArray[np.int64], *, stay: bool) -> None:
        """Move in other photos; with `stay` the cursor follows its photo."""
        photo_id = int(self.ids[self.cursor]) if stay and self.cursor is not None else -1
        found = np.flatnonzero(ids == photo_id)
        self.ids, self.cursor = ids, int(found[0]) if len(found) else None

    @property
    def targets(self) -> list[int]:
        """Photos that an action is about: the chosen ones, else the one at the cursor."""
        if len(self._selection):
            return self._selection.ids
        return [int(self.ids[self.cursor])] if self.cursor is not None else []

    def press(self, key: str, modifiers: set[str]) -> bool:
        """Handle a key; whether it meant something here."""
        if not len(self.ids):
            return False
        if key in MOVES:
            self._move(MOVES[key])
            if "shift" in modifiers:
                self._selection.stretch(self.ids, int(self.ids[self.cursor or 0]))
        elif key in ("enter", "numpadenter") and self.cursor is not None:
            self._open(self.cursor)
        elif key == "spacebar" and self.cursor is not None:
            self._selection.toggle(int(self.ids[self.cursor]))
        elif key == "a" and {"ctrl", "meta"} & modifiers:
            self._selection.all(self.ids)
        elif key == "escape" and len(self._selection):
            self._selection.clear()
        elif key in LARGER or key in SMALLER:
            self._zoom(ZOOM if key in LARGER else 1 / ZOOM)
        else:
            return False
        return True

    def go_to(self, index: int) -> None:
        """Put the cursor on a place, and show it."""
        self.cursor = index
        self._viewport.reveal(index)
        self._changed()

    def _move(self, move: Move) -> None:
        self.ring = True
        rows, (top, bottom) = self._viewport.rows, self._viewport.visible()
        if self.cursor is not None:
            self.go_to(rows.step(self.cursor, move, bottom - top))
        else:
            self.go_to(rows.span(top, bottom)[0] if top else 0)

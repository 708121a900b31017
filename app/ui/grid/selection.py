"""Which photos are chosen."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


class Selection:
    """The ids of the chosen photos, and where a range begins.

    Args:
        changed: called after each change.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._ids: dict[int, None] = {}
        self._anchor: int | None = None
        self._changed = changed

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, photo_id: object) -> bool:
        return photo_id in self._ids

    @property
    def ids(self) -> list[int]:
        """The chosen photos, in the order in which they were chosen."""
        return list(self._ids)

    def toggle(self, photo_id: int) -> None:
        """Choose a photo, or no longer."""
        if photo_id in self._ids:
            del self._ids[photo_id]
        else:
            self._ids[photo_id] = None
        self._anchor = photo_id
        self._changed()

    def stretch(self, shown: NDArray[np.int64], photo_id: int) -> None:
        """Choose everything between the photo toggled last and this one, in the order shown."""
        ends = [np.flatnonzero(shown == end) for end in (self._anchor, photo_id) if end is not None]
        if len(ends) < 2 or not all(len(end) for end in ends):
            self.toggle(photo_id)
            return
        first, last = sorted(int(end[0]) for end in ends)
        self._ids.update(dict.fromkeys(shown[first : last + 1].tolist()))
        self._changed()

    def all(self, shown: NDArray[np.int64]) -> None:
        """Choose all that is shown."""
        self._ids = dict.fromkeys(shown.tolist())
        self._changed()

    def keep(self, shown: Sequence[int] | NDArray[np.int64]) -> None:
        """Drop what isn't shown any more."""
        remaining = set(np.asarray(shown).tolist())
        gone = [photo_id for photo_id in self._ids if photo_id not in remaining]
        for photo_id in gone:
            del self._ids[photo_id]
        if gone:
            self._changed()

    def clear(self) -> None:
        """Choose nothing."""
        if self._ids:
            self._ids.clear()
            self._anchor = None
            self._changed()

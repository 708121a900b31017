"""One photo: labels and corrections, details, where something is in it, and similar photos."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.library.gallery import Details, Photo, PhotoTag, Where
from app.ui.kit.strings import DAYS, MONTHS, file_size, t
from app.ui.session import Session
from mobileclip.errors import PocketclipError

SIMILAR = 12

Part = Literal["photo", "tags", "details", "similar", "where", "trouble"]
"""What of a `PhotoModel` has changed; "photo" means all of it."""


class PhotoModel:
    """The open photo, in a list to step through.

    Answers that arrive after the photo has changed are dropped.

    Attributes:
        ids: the list.
        index: position of the photo in the list.
        photo: None if it has left the library.
        tags: the user's first, then the best, and rejected ones last.
        details: None while they are read.
        where, asked_where: the heat map and its text; None and "" without one.
        similar: ids of similar photos, best first.
        trouble: what went wrong, in one line.
    """

    def __init__(self, session: Session, ids: NDArray[np.int64], index: int, changed: Callable[[Part], None]) -> None:
        self._session, self._changed = session, changed
        self.ids, self.index = ids, index
        self.photo: Photo | None = None
        self.tags: list[PhotoTag] = []
        self.details: Details | None = None
        self.where: Where | None = None
        self.asked_where = ""
        self.similar: list[int] = []
        self.trouble = ""

    def open(self) -> None:
        """Read everything about the photo at `index`."""
        photos = self._session.quick.photos([int(self.ids[self.index])]) if self._session.quick else []
        self.photo = photos[0] if photos else None
        self.details, self.where, self.asked_where, self.similar, self.trouble = None, None, "", [], ""
        self.tags = []
        self._session.drop("where")
        if self.photo is not None and self._session.quick is not None:
            self.tags = self._session.quick.tags(self.photo.id)
            photo_id = self.photo.id
            self._ask(lambda gallery: gallery.details(photo_id), self._details_are, "details")
            self._ask(lambda gallery: gallery.similar(photo_id, SIMILAR), self._similar_are, "similar", quiet=True)
        self._changed("photo")

    def step(self, by: int) -> bool:
        """Go to another photo of the list; returns False at its ends."""
        if not 0 <= self.index + by < len(self.ids):
            return False
        self.index += by
        self.open()
        return True

    def neighbor(self, by: int) -> Photo | None:
        """The photo at this offset in the list, or None."""
        at = self.index + by
        if not 0 <= at < len(self.ids) or self._session.quick is None:
            return None
        photos = self._session.quick.photos([int(self.ids[at])])
        return photos[0] if photos else None

    # labels

    def correct(self, label: str, verdict: bool | None, then: Callable[[], None] = lambda: None) -> None:
        """Accept (True) or reject (False) a label, or undo that (None)."""
        if self.photo is None:
            return
        photo_id = self.photo.id

        def corrected(tags: list[PhotoTag]) -> None:
            self._session.tags_changed()
            if self.photo is not None and self.photo.id == photo_id:
                self.tags = tags
                self._changed("tags")
            then()

        self._session.ask(lambda gallery: gallery.correct(photo_id, label, verdict), corrected, self._failed)

    # where

    def find(self, text: str) -> None:
        """Show where a text matches in the photo; an empty text hides the map."""
        text = text.strip()
        self.trouble = ""
        if not text or self.photo is None:
            self._session.drop("where")
            self.where, self.asked_where = None, ""
            self._changed("where")
            return
        photo_id = self.photo.id
        self.asked_where = text
        self._ask(lambda gallery: gallery.where(photo_id, text), self._where_is, "where")

    @property
    def where_line(self) -> str:
        """What the map shows, in one line."""
        if self.where is None:
            return ""
        return t("photo.where.found" if self.where.present else "photo.where.weak", text=self.asked_where)

    def _ask(self, call: Callable[[Any], Any], then: Callable[[Any], None], lane: str, quiet: bool = False) -> None:
        photo_id = self.photo.id if self.photo else -1

        def current(answer: Any) -> None:
            if self.photo is not None and self.photo.id == photo_id:
                then(answer)

        self._session.ask(call, current, (lambda _: None) if quiet else self._failed, lane)

    def _details_are(self, details: Details) -> None:
        self.details = details
        self._changed("details")

    def _similar_are(self, results: Any) -> None:
        self.similar = [int(photo_id) for photo_id in results.ids]
        self._changed("similar")

    def _where_is(self, where: Where) -> None:
        self.where = where
        self._changed("where")

    def _failed(self, error: PocketclipError) -> None:
        self.trouble = str(error)
        self._changed("trouble")


def describe(details: Details) -> list[tuple[str, str]]:
    """Details as pairs of name and value; unknown ones are omitted."""
    taken = details.taken
    when = f"{DAYS[taken.weekday()]}, {taken.day} {MONTHS[taken.month - 1]} {taken.year}, {taken:%H:%M}"
    if details.taken_from == "file":
        when += f" ({t('photo.taken.file')})"
    elif details.offset_minutes is not None:
        sign, minutes = "+-"[details.offset_minutes < 0], abs(details.offset_minutes)
        when += f" UTC{sign}{minutes // 60}:{minutes % 60:02d}"
    lines = [(t("photo.taken"), when)]
    sides = f"{details.width} × {details.height}" if details.width and details.height else ""
    parts = [sides, details.format or "", file_size(details.size)]
    lines.append((t("photo.size"), " · ".join(part for part in parts if part)))
    shot = [details.exposure, details.aperture, details.iso, details.focal_length]
    for what, value in (
        ("photo.camera", details.camera),
        ("photo.lens", details.lens),
        ("photo.exposure", " · ".join(str(part) for part in shot if part)),
    ):
        if value:
            lines.append((t(what), str(value)))
    if details.latitude is not None and details.longitude is not None:
        lines.append((t("photo.place"), format_coordinates(details.latitude, details.longitude)))
    return [*lines, (t("photo.file"), details.path)]


def format_coordinates(latitude: float, longitude: float) -> str:
    """Coordinates for people to read."""
    return f"{abs(latitude):.5f}° {'NS'[latitude < 0]}, {abs(longitude):.5f}° {'EW'[longitude < 0]}"

"""What to look for, as one value: `Query`. Understands text, and knows nothing about the index."""

import calendar
import os.path
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from app.library.store.filter import EVERYTHING, Filter
from mobileclip.files import PHOTO_SUFFIXES

_WEIGHTED = re.compile(r"(\d+(?:\.\d+)?):(.*)", re.DOTALL)
_MAX_WEIGHT = 1e4
_DAY = re.compile(r"(\d{1,4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?")
_DASHES = "-−–"


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query; a negative weight asks for less of it.

    Attributes:
        text: what to look for, or the path of the photo file to resemble.
        weight: how much it counts.
        is_photo: whether `text` is the path of a photo.
        photo_id: a photo of the index to resemble, instead of a text.
    """

    text: str = ""
    weight: float = 1.0
    is_photo: bool = False
    photo_id: int | None = None


@dataclass(frozen=True)
class Query:
    """What to look for; without terms, a query only filters.

    Attributes:
        terms: what results resemble; their vectors are added up.
        without: texts; photos that show one of them are dropped.
        filter: which photos may be results.
    """

    terms: tuple[Term, ...] = ()
    without: tuple[str, ...] = ()
    filter: Filter = EVERYTHING


def parse_term(text: str, sign: float = 1.0) -> Term:
    """Read one part of a query: text or the path of a photo, either with a weight in front, as in `2:cat`.

    A word is a path only if it looks like one: a file named "cat" must not capture the search for cats.

    Args:
        text: what the user wrote.
        sign: -1 asks for less of it.

    Raises:
        ValueError: empty, a weight out of range, or a photo that doesn't exist.
    """
    weighted = _WEIGHTED.fullmatch(text)
    weight, content = (float(weighted[1]), weighted[2]) if weighted else (1.0, text)
    if not content.strip():
        raise ValueError("the query is empty")
    if not 0 < weight < _MAX_WEIGHT:
        raise ValueError(f"a weight must be between 0 and {_MAX_WEIGHT:.0f}, not {weight:g}")
    if Path(content).suffix.lower() in PHOTO_SUFFIXES or content.startswith(("./", "../", "/", "~/")):
        # Not Path.expanduser, which raises for an unknown user.
        path = os.path.expanduser(content)  # noqa: PTH111
        if not Path(path).is_file():
            raise ValueError(f"there is no photo {content}")
        return Term(path, sign * weight, is_photo=True)
    return Term(content, sign * weight)


def split_typed(text: str) -> tuple[str, tuple[str, ...]]:
    """Split off the words with a minus in front: "beach -people" → "beach", ("people",).

    A minus inside a word or on its own isn't one.
    """
    wanted, without = [], []
    for word in text.split():
        if len(word) > 1 and word[0] in _DASHES and word[1:].strip(_DASHES):
            without.append(word[1:])
        else:
            wanted.append(word)
    return " ".join(wanted).strip(f" {_DASHES}"), tuple(without)


def parse_day(text: str, *, end: bool = False) -> date | None:
    """Read a day, month or year, as in 2024-05-31, 2024-05 or 2024.

    Args:
        text: what the user wrote; surrounding spaces don't matter.
        end: take the last day of a month or year, not the first.

    Returns:
        The day, or None for an empty text.

    Raises:
        ValueError: anything else, or a day that doesn't exist.
    """
    text = text.strip()
    if not text:
        return None
    match = _DAY.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        year, month, day = (None if part is None else int(part) for part in match.groups())
        assert year is not None
        month = (12 if end else 1) if month is None else month
        return date(year, month, (calendar.monthrange(year, month)[1] if end else 1) if day is None else day)
    except ValueError:
        raise ValueError(f"{text!r} isn't a date; write 2024, 2024-05 or 2024-05-31") from None

"""Texts as people type them into a search box: with a typo, other spelling, another number, fewer or more words.

A student that reads these, while its teacher reads the text as it was, learns that they mean the same.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np


def _read_spellings() -> tuple[tuple[str, str], ...]:
    text = (Path(__file__).parent / "spellings.csv").read_text("utf-8")
    return tuple((row["british"], row["american"]) for row in csv.DictReader(text.splitlines()))


SPELLINGS: Final = _read_spellings()
"""British and American spellings of words that photos show."""
_OTHER: Final = {**dict(SPELLINGS), **{american: british for british, american in SPELLINGS}}

FRAMES: Final = ("photo of {}", "a photo of {}", "picture of {}", "pictures of {}", "an image of {}", "{} photo")
_KEYBOARD: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_ARTICLE: Final = re.compile(r"^(a|an|the|some) ", re.IGNORECASE)
_FRAME: Final = re.compile(r"^(a |the )?(close-up )?(photo|picture|snapshot|image) of ", re.IGNORECASE)
_WORD: Final = re.compile(r"[A-Za-z]{4,}")


def respell(text: str, random: np.random.Generator) -> str:
    """Replace British spellings by American ones and the other way around; a text without any gets a typo."""
    found = re.sub(r"[A-Za-z]+", lambda word: _OTHER.get(word[0].lower(), word[0]), text)
    return found if found != text else mistype(text, random)


def mistype(text: str, random: np.random.Generator) -> str:
    """Make one mistake in one word of at least four letters: drop, double, swap or replace a letter.

    The first letter stays, as it nearly always does when people type (Pollock and Zamora 1984).
    """
    words = list(_WORD.finditer(text))
    if not words:
        return text
    start, stop = words[int(random.integers(len(words)))].span()
    at = int(random.integers(start + 1, stop))
    kind = int(random.integers(4))
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    if kind == 2 and at + 1 < stop:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + _neighbor(text[at], random) + text[at + 1 :]


def _neighbor(letter: str, random: np.random.Generator) -> str:
    """Return a letter that is next to this one on the keyboard."""
    row = next(row for row in _KEYBOARD if letter.lower() in row)
    at = row.index(letter.lower())
    beside = row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    return beside[int(random.integers(len(beside)))]


def reframe(text: str, random: np.random.Generator) -> str:
    """Remove "a photo of" or add it, or leave out an article."""
    bare = text.rstrip(" .")
    if (shorter := _FRAME.sub("", bare)) != bare:
        return shorter
    if (shorter := _ARTICLE.sub("", bare)) != bare and random.integers(2):
        return shorter
    return FRAMES[int(random.integers(len(FRAMES)))].format(bare)


def repunctuate(text: str, random: np.random.Generator) -> str:
    """Remove all punctuation, or end with other marks."""
    bare = re.sub(r"[^\w\s'-]", "", text).strip()
    return bare if bare != text else text + ("!", "?", ".", " ...")[int(random.integers(4))]


def renumber(text: str, random: np.random.Generator) -> str:
    """Turn the last word from singular into plural, or the other way around, by the common endings."""
    bare = text.rstrip(" .")
    if re.search(r"[a-z]{3,}(?<!s)s$", bare):
        return bare[:-1]
    if re.search(r"[a-z]{2,}(s|x|ch|sh)$", bare):
        return bare + "es"
    return bare + "s" if re.search(r"[a-z]{3,}$", bare) else mistype(text, random)


CHANGES: Final[tuple[Callable[[str, np.random.Generator], str], ...]] = (
    mistype,
    mistype,
    respell,
    reframe,
    repunctuate,
    renumber,
)
"""Mistakes are the most frequent."""


def retype(text: str, random: np.random.Generator) -> str:
    """Return a text as somebody could type it; all randomness comes from the generator."""
    return CHANGES[int(random.integers(len(CHANGES)))](text, random)

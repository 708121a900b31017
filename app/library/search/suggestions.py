"""What to suggest while someone types a search."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Suggestion:
    """What the person may be typing: the name of a label, or a past search."""

    text: str
    kind: Literal["label", "search"]


def suggest(labels: Iterable[str], searches: Sequence[str], text: str, limit: int) -> list[Suggestion]:
    """Labels and past searches that begin with what was typed, then those that have a word that begins with it.

    Args:
        labels: names to choose from.
        searches: past searches, the latest first.
        text: what was typed so far; an empty text gives the latest searches.
        limit: how many at most.
    """
    typed = text.casefold().strip()
    if not typed:
        return [Suggestion(words, "search") for words in searches[:limit]]
    ranked = []
    known = [Suggestion(label, "label") for label in sorted(labels)]
    for order, candidate in enumerate([*known, *(Suggestion(words, "search") for words in searches)]):
        name = candidate.text.casefold()
        if name != typed and (name.startswith(typed) or f" {typed}" in name):
            ranked.append((not name.startswith(typed), order, candidate))
    found: dict[str, Suggestion] = {}
    for _, _, candidate in sorted(ranked, key=lambda entry: entry[:2]):
        found.setdefault(candidate.text.casefold(), candidate)
    return list(found.values())[:limit]

"""One album a label, the queue of doubts, and what to suggest while someone types."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.library.labels.rules import Rules
from app.library.search.timeline import Photo, photo_of, photos, photos_with
from app.library.store.matrix import Matrix
from app.library.store.store import Rows, Store

# A label is in doubt up to this many logits from as likely as not: 27 % to 73 %.
_DOUBT_LOGITS = 1.0
_DOUBTS_PER_LABEL = 5
_COVERS = 12
_REVIEW_ROWS = 4096
_KEPT_SEARCHES = 200


@dataclass(frozen=True)
class Album:
    """All photos with one label.

    Attributes:
        label: its name.
        count: photos, copies counted each.
        cover: one that a person gave the label to, else the one it is surest on; the newest of those.
        own: whether the label is the person's own.
    """

    label: str
    count: int
    cover: Photo
    own: bool


@dataclass(frozen=True)
class Doubt:
    """A label that the model is not sure of on a photo; `given` says whether it gave it in the end."""

    photo: Photo
    label: str
    score: float
    given: bool


@dataclass(frozen=True)
class Suggestion:
    """What the person may be typing: the name of a label, or a search of the past."""

    text: str
    kind: Literal["label", "search"]


def albums(store: Store) -> list[Album]:
    """The albums that hold photos, the fullest first."""
    own = {name for (name,) in store.sql.execute("SELECT name FROM own_labels")}
    found = []
    for label, count in _photos_a_label(store).items():
        row = store.sql.execute(_COVER, (label,)).fetchone() if count > 0 else None
        if row is not None:
            found.append(Album(label, count, photo_of(row), label in own))
    return sorted(found, key=lambda album: (-album.count, album.label))


# The newest of the surest few; a person's own tags are the surest of all.
_COVER = f"""
SELECT p.id, p.content_id, c.hash, p.path, p.taken, p.taken_from, p.width, p.height, p.size
FROM (
    SELECT content_id, score, source FROM tags WHERE label = ? AND content_id IN (SELECT content_id FROM photos)
    ORDER BY score DESC LIMIT {_COVERS}
) t JOIN photos p ON p.content_id = t.content_id JOIN contents c ON c.id = p.content_id
ORDER BY t.source DESC, p.taken DESC, p.id DESC LIMIT 1
"""


def _photos_a_label(store: Store) -> dict[str, int]:
    """How many photos have each label: its contents, put right by those that several photos hold, or none."""
    counts = dict(store.sql.execute("SELECT label, count(*) FROM tags GROUP BY label").fetchall())
    several = "SELECT content_id, count(*) - 1 AS more FROM photos GROUP BY content_id HAVING count(*) > 1"
    away = "SELECT id, -1 FROM contents WHERE id NOT IN (SELECT content_id FROM photos)"
    query = (
        f"SELECT t.label, sum(x.more) FROM ({several} UNION ALL {away}) x JOIN tags t ON t.content_id = x.content_id"
    )
    for label, more in store.sql.execute(f"{query} GROUP BY t.label"):
        counts[label] += more
    return counts


def doubts(store: Store, rules: Rules, matrix: Matrix, limit: int) -> list[Doubt]:
    """What a person's word would help most with: labels nearest to as likely as not, given or just not given.

    At most five of one label, so that one bad label does not fill the screen. What has been decided is never asked.

    Args:
        store: the open index.
        rules: all labels as they are given now.
        matrix: all vectors of the model.
        limit: how many at most.
    """
    decided = store.decided()
    names = [label.name for label in rules.labels]
    if not names or len(matrix.ids) == 0:
        return []
    thresholds = np.array([label.threshold for label in rules.labels], np.float32)
    slopes = np.array([label.slope for label in rules.labels], np.float32)
    # Enough of each label that the decided ones among them may be left out.
    most = _DOUBTS_PER_LABEL + max(Counter(label for _, label in decided).values(), default=0)
    nearest: list[list[tuple[float, int, float]]] = [[] for _ in names]  # (distance, content id, logit) a label
    for start in range(0, len(matrix.ids), _REVIEW_ROWS):
        rows = np.asarray(matrix.rows[start : start + _REVIEW_ROWS])
        logits: Rows = ((rows @ rules.vectors.T - thresholds) * slopes).T
        distances = np.abs(logits)
        for label in np.flatnonzero(distances.min(axis=1) < _DOUBT_LOGITS).tolist():
            # No nearer than what this label has already, and no more than could be needed.
            bound = nearest[label][-1][0] if len(nearest[label]) == _DOUBTS_PER_LABEL else _DOUBT_LOGITS
            places = np.flatnonzero(distances[label] < bound)
            if len(places) > most:
                places = places[np.argpartition(distances[label, places], most - 1)[:most]]
            found = [
                (float(distances[label, place]), int(matrix.ids[start + place]), float(logits[label, place]))
                for place in places.tolist()
                if (int(matrix.ids[start + place]), names[label]) not in decided
            ]
            nearest[label] = sorted([*nearest[label], *found])[:_DOUBTS_PER_LABEL]
    ranked = sorted((*entry, names[label]) for label, entries in enumerate(nearest) for entry in entries)[:limit]
    held = photos_with(store, [content for _, content, _, _ in ranked])
    rows_of = {photo.id: photo for photo in photos(store, [ids[0] for ids in held.values()])}
    return [
        Doubt(rows_of[held[content][0]], label, float(0.5 + 0.5 * np.tanh(0.5 * logit)), logit >= 0)
        for _, content, logit, label in ranked
        if content in held and held[content][0] in rows_of
    ]


def remember_search(store: Store, words: str) -> None:
    """Keep a search for later suggestions; the oldest beyond a few hundred are forgotten."""
    words = " ".join(words.split())
    if not words:
        return
    with store.transaction():
        store.sql.execute("INSERT OR REPLACE INTO searches VALUES (?, ?)", (words, time.time()))
        store.sql.execute(
            "DELETE FROM searches WHERE words NOT IN (SELECT words FROM searches ORDER BY searched_at DESC LIMIT ?)",
            (_KEPT_SEARCHES,),
        )


def past_searches(store: Store, limit: int) -> list[str]:
    """Searches of the past, the latest first."""
    query = "SELECT words FROM searches ORDER BY searched_at DESC, words LIMIT ?"
    return [row[0] for row in store.sql.execute(query, (limit,))]


def suggest(labels: Iterable[str], searches: Sequence[str], text: str, limit: int) -> list[Suggestion]:
    """Labels and past searches that go on from what was typed: those that begin with it, then those with such a word.

    Args:
        labels: names to choose from.
        searches: past searches, the latest first.
        text: what was typed so far; nothing gives the latest searches.
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
    seen: dict[str, Suggestion] = {}
    for _, _, candidate in sorted(ranked, key=lambda entry: entry[:2]):
        seen.setdefault(candidate.text.casefold(), candidate)
    return list(seen.values())[:limit]

"""The tables `tags` and `decided`: which labels each content has, and by which rules they were given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.library.store import contents
from app.library.store.connection import Store

Source = Literal["model", "you"]


@dataclass(frozen=True, slots=True)
class Tag:
    """A label on a photo; `score` is a calibrated probability, `source` who gave it."""

    label: str
    score: float
    source: Source


# A person's tags


def put_own_tag(store: Store, content_id: int, label: str) -> None:
    """Give a content a label because a person said so."""
    store.sql.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, 1, 'you')", (content_id, label))


def restore_own_tags(store: Store, content_id: int, content_hash: bytes) -> None:
    """Give a content all labels that a person accepted on it, also before it was last removed."""
    store.sql.execute(
        "INSERT INTO tags SELECT ?, label, 1, 'you' FROM corrections WHERE hash = ? AND verdict = 1"
        " ON CONFLICT DO UPDATE SET score = 1, source = 'you'",
        (content_id, content_hash),
    )


# The model's tags


def put_tags(store: Store, content_id: int, tags: Sequence[tuple[str, float]], tagged_by: str) -> None:
    """Replace the model's tags of one content by (label, score) pairs; labels that a person decided on stay."""
    store.sql.execute("DELETE FROM tags WHERE content_id = ? AND source = 'model'", (content_id,))
    store.sql.executemany(
        "INSERT INTO tags SELECT ?1, ?2, ?3, 'model' WHERE NOT EXISTS ("
        " SELECT 1 FROM contents c JOIN corrections k ON k.hash = c.hash WHERE c.id = ?1 AND k.label = ?2)"
        " ON CONFLICT DO NOTHING",
        [(content_id, label, score) for label, score in tags],
    )
    contents.set_tagged_by(store, [content_id], tagged_by)


def replace_tags(store: Store, ids: Sequence[int], tags: Iterable[tuple[int, str, float]], tagged_by: str) -> None:
    """Replace the model's tags of many contents at once.

    Args:
        store: the open index.
        ids: of the contents.
        tags: (content id, label, score) of their new tags, without labels that a person decided on.
        tagged_by: fingerprint of the label set.
    """
    store.sql.executemany("DELETE FROM tags WHERE content_id = ? AND source = 'model'", [(each,) for each in ids])
    store.sql.executemany("INSERT INTO tags VALUES (?, ?, ?, 'model')", tags)
    contents.set_tagged_by(store, ids, tagged_by)


def set_scores(store: Store, label: str, scores: Iterable[tuple[int, float]]) -> None:
    """Give one label to contents, or change its score: (content id, score) pairs."""
    rows = [(content_id, label, score) for content_id, score in scores]
    store.sql.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, 'model')", rows)


def remove_tag(store: Store, label: str, ids: Iterable[int]) -> None:
    """Remove one label from contents, whoever gave it."""
    store.sql.executemany("DELETE FROM tags WHERE (content_id, label) = (?, ?)", [(each, label) for each in ids])


def scores_by_model(store: Store, label: str) -> dict[int, float]:
    """Content id → score of one label, where the model gave it."""
    query = "SELECT content_id, score FROM tags WHERE label = ? AND source = 'model'"
    return dict(store.sql.execute(query, (label,)).fetchall())


# Read


def tags_of_content(store: Store, content_id: int) -> list[Tag]:
    """The tags of one content, best first."""
    query = "SELECT label, score, source FROM tags WHERE content_id = ? ORDER BY score DESC, label"
    return [Tag(*row) for row in store.sql.execute(query, (content_id,))]


def tags_of_photo(store: Store, photo_id: int) -> list[tuple[Tag, bool | None]]:
    """The tags of one photo, each with a person's verdict: the person's own first, then by score."""
    query = (
        "SELECT t.label, t.score, t.source, k.verdict FROM photos p JOIN contents c ON c.id = p.content_id"
        " JOIN tags t ON t.content_id = c.id LEFT JOIN corrections k ON (k.hash, k.label) = (c.hash, t.label)"
        " WHERE p.id = ? ORDER BY t.source DESC, t.score DESC, t.label"
    )
    rows = store.sql.execute(query, (photo_id,))
    return [
        (Tag(label, score, source), None if verdict is None else bool(verdict))
        for label, score, source, verdict in rows
    ]


def contents_with_label(store: Store, label: str) -> list[int]:
    """Ids of the contents that have a label."""
    return [row[0] for row in store.sql.execute("SELECT content_id FROM tags WHERE label = ?", (label,)).fetchall()]


def given_labels(store: Store) -> list[str]:
    """Every label that any content has."""
    return [row[0] for row in store.sql.execute("SELECT DISTINCT label FROM tags")]


def count_tags(store: Store) -> int:
    """How many tags there are."""
    return int(store.sql.execute("SELECT count(*) FROM tags").fetchone()[0])


def count_photos_by_label(store: Store) -> dict[str, int]:
    """How many photos have each label: its contents, corrected for those that several photos hold, or none."""
    counts = dict(store.sql.execute("SELECT label, count(*) FROM tags GROUP BY label").fetchall())
    copies = "SELECT content_id, count(*) - 1 AS more FROM photos GROUP BY content_id HAVING count(*) > 1"
    orphans = "SELECT id, -1 FROM contents WHERE id NOT IN (SELECT content_id FROM photos)"
    query = (
        f"SELECT t.label, sum(x.more) FROM ({copies} UNION ALL {orphans}) x JOIN tags t ON t.content_id = x.content_id"
        " GROUP BY t.label"
    )
    for label, more in store.sql.execute(query):
        counts[label] += more
    return counts


# Rules other than the bundle's


def rules_in_force(store: Store) -> Mapping[str, str]:
    """Label → a text that stands for its rule, for labels whose tags follow another rule than the bundle's."""
    return dict(store.sql.execute("SELECT label, rule FROM decided").fetchall())


def set_rule(store: Store, label: str, rule: str | None) -> None:
    """Record by which rule a label was given; None for the bundle's."""
    store.sql.execute("DELETE FROM decided WHERE label = ?", (label,))
    if rule is not None:
        store.sql.execute("INSERT INTO decided VALUES (?, ?)", (label, rule))


def forget_label(store: Store, label: str) -> None:
    """Remove all tags of a label, and its rule."""
    store.sql.execute("DELETE FROM tags WHERE label = ?", (label,))
    store.sql.execute("DELETE FROM decided WHERE label = ?", (label,))

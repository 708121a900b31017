"""What a person decided: this label is right on this photo, or wrong. It wins over any model, for ever.

A decision hangs on the hash of the photo's content. It outlives a new bundle, a move, a copy, and the index's memory
of the photo; only the person takes it back. Every decision moves the threshold of its label
(`app.library.labels.rules.refit`), and all of them can leave as training data.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from app.library.errors import LibraryError
from app.library.store.store import Source, Store


@dataclass(frozen=True, slots=True)
class PhotoTag:
    """A label on a photo, or one that a person rejected.

    Attributes:
        label: its name.
        score: a calibrated probability; 1 for a person's own, 0 for a rejected one.
        source: who gave it.
        verdict: True ✓, False ✗, None where nobody has decided.
    """

    label: str
    score: float
    source: Source
    verdict: bool | None


@dataclass(frozen=True, slots=True)
class Correction:
    """One decision.

    Attributes:
        paths: of the photos with this content that are in the index now; often one, none while they are away.
        key: the content's hash in hex.
        label: what was decided on.
        verdict: True ✓, False ✗.
        decided_at: Unix seconds.
    """

    paths: tuple[str, ...]
    key: str
    label: str
    verdict: bool
    decided_at: float


def correct(store: Store, photo_id: int, label: str, verdict: bool | None) -> None:
    """Decide on a label of a photo, or take the decision back with None.

    The threshold follows with `app.library.labels.tags.refresh`, and so does the model's own tag after an undo.

    Raises:
        LibraryError: the photo is gone from the index, or the label has no name.
    """
    label = " ".join(label.split())
    if not label:
        raise LibraryError("a label needs a name")
    with store.transaction():
        row = store.sql.execute(
            "SELECT c.id, c.hash FROM photos p JOIN contents c ON c.id = p.content_id WHERE p.id = ?", (photo_id,)
        ).fetchone()
        if row is None:
            raise LibraryError("this photo is not in the index any more")
        content_id, key = row
        if verdict is None:
            store.sql.execute("DELETE FROM corrections WHERE (hash, label) = (?, ?)", (key, label))
            store.sql.execute("UPDATE contents SET tagged_by = NULL WHERE id = ?", (content_id,))
        else:
            store.sql.execute(
                "INSERT INTO corrections VALUES (?, ?, ?, ?) ON CONFLICT (hash, label) DO UPDATE SET"
                " verdict = excluded.verdict, decided_at = excluded.decided_at",
                (key, label, verdict, time.time()),
            )
        if verdict is True:
            store.sql.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, 1, 'you')", (content_id, label))
        else:
            store.sql.execute("DELETE FROM tags WHERE (content_id, label) = (?, ?)", (content_id, label))


def tags_of(store: Store, photo_id: int) -> list[PhotoTag]:
    """A photo's labels: the person's, then the model's, best first, then those that were rejected."""
    rows = store.sql.execute(
        "SELECT t.label, t.score, t.source, k.verdict FROM photos p JOIN contents c ON c.id = p.content_id"
        " JOIN tags t ON t.content_id = c.id LEFT JOIN corrections k ON (k.hash, k.label) = (c.hash, t.label)"
        " WHERE p.id = ? ORDER BY t.source DESC, t.score DESC, t.label",
        (photo_id,),
    )
    found = [PhotoTag(row[0], row[1], row[2], None if row[3] is None else bool(row[3])) for row in rows]
    rejected = store.sql.execute(
        "SELECT k.label FROM photos p JOIN contents c ON c.id = p.content_id JOIN corrections k ON k.hash = c.hash"
        " WHERE p.id = ? AND k.verdict = 0 ORDER BY k.label",
        (photo_id,),
    )
    return found + [PhotoTag(row[0], 0.0, "you", False) for row in rejected]


def corrections(store: Store) -> Iterator[Correction]:
    """All decisions, by the photo's first path and by label; those of photos that are away come last."""
    rows = store.sql.execute(
        "SELECT k.hash, k.label, k.verdict, k.decided_at, (SELECT min(p.path) FROM photos p"
        " JOIN contents c ON c.id = p.content_id WHERE c.hash = k.hash) AS first FROM corrections k"
        " ORDER BY first IS NULL, first, k.hash, k.label"
    ).fetchall()
    paths = "SELECT p.path FROM photos p JOIN contents c ON c.id = p.content_id WHERE c.hash = ? ORDER BY p.path"
    for key, label, verdict, decided_at, _ in rows:
        held = tuple(os.fsdecode(path) for (path,) in store.sql.execute(paths, (key,)))
        yield Correction(held, key.hex(), label, bool(verdict), decided_at)

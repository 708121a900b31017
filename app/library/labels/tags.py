"""Labels for photos, from stored vectors alone: a new label or a correction needs no photo to be opened again."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from app.library.labels.rules import Rules, rules_of
from app.library.store.matrix import Matrix, load_matrix
from app.library.store.store import STORED, Store, on_sphere
from mobileclip.zeroshot import TAG_PROBABILITY

if TYPE_CHECKING:
    from mobileclip.model import Model

# A probability is shown with two digits.
_SCORE_STEP = 0.004


def label_fingerprint(model: "Model") -> str:
    """A hex text that changes whenever the same vectors could get other tags by the bundle's own rules."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (model.fingerprint.encode(), model.labels.dumps().encode(), model.label_vectors.tobytes()):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def refresh(store: Store, model: "Model", *, since: Rules | None = None, matrix: Matrix | None = None) -> int:
    """Bring all tags up to the label set, the person's own labels and the corrections.

    Args:
        store: the open index.
        model: whose vectors decide.
        since: rules by which photos may have been tagged meanwhile; what has changed since then is decided anew.
        matrix: the model's vectors where they are at hand.

    Returns:
        How many contents had all of their labels decided anew.
    """
    model_id = store.model_id(model.fingerprint)
    if model_id is None:
        return 0
    rules = rules_of(store, model, matrix)
    tagged_by = label_fingerprint(model)
    decided = 0
    undecided = "SELECT 1 FROM contents WHERE orphaned_at IS NULL AND tagged_by IS NOT ? LIMIT 1"
    if store.sql.execute(undecided, (tagged_by,)).fetchone():
        for ids, vectors in store.vector_blocks(model_id, model.dim, unless_tagged_by=tagged_by):
            _replace(store, ids.tolist(), rules.decide(on_sphere(vectors)), tagged_by)
            decided += len(ids)
    before = dict(store.sql.execute("SELECT label, rule FROM decided").fetchall())
    stale = _differing(before, rules.special)
    if since is not None:
        stale |= _differing(since.special, rules.special)
    if stale:
        _decide_again(store, model, rules, stale, matrix)
    return decided


def decide_photo(store: Store, model: "Model", photo_id: int) -> None:
    """Decide all labels of one photo anew, by the rules that hold now."""
    row = store.sql.execute(
        "SELECT v.content_id, v.vector FROM vectors v JOIN models m ON m.id = v.model_id AND m.fingerprint = ?"
        " JOIN photos p ON p.content_id = v.content_id WHERE p.id = ?",
        (model.fingerprint, photo_id),
    ).fetchone()
    if row is not None:
        vector = on_sphere(np.frombuffer(row[1], STORED).astype(np.float32)[None])
        (tags,) = rules_of(store, model).decide(vector)
        with store.transaction():
            store.put_tags(row[0], tags, label_fingerprint(model))


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    return {name for name in {*before, *now} if before.get(name) != now.get(name)}


def _replace(store: Store, ids: list[int], tags: list[list[tuple[str, float]]], tagged_by: str) -> None:
    """What `Store.put_tags` does, for thousands of contents at once."""
    rows = [(content_id, label, score) for content_id, given in zip(ids, tags, strict=True) for label, score in given]
    with store.transaction():
        decided = store.decided()
        store.sql.executemany("DELETE FROM tags WHERE content_id = ? AND source = 'model'", [(each,) for each in ids])
        store.sql.executemany(
            "INSERT INTO tags VALUES (?, ?, ?, 'model')", [row for row in rows if row[:2] not in decided]
        )
        store.sql.executemany("UPDATE contents SET tagged_by = ? WHERE id = ?", [(tagged_by, each) for each in ids])


def _decide_again(store: Store, model: "Model", rules: Rules, names: set[str], matrix: Matrix | None) -> None:
    """Decide a few labels anew for all photos, and remember by which rule."""
    matrix = load_matrix(store, model.fingerprint) if matrix is None else matrix
    with store.transaction():
        # What no photo holds at the moment is not in the matrix; should it come back, all of it is decided anew.
        store.sql.execute("UPDATE contents SET tagged_by = NULL WHERE orphaned_at IS NOT NULL")
        for name in sorted(names):
            given = _given(rules, name, matrix)
            for content_id, _ in store.decided(name):
                given.pop(content_id, None)
            before = dict(
                store.sql.execute("SELECT content_id, score FROM tags WHERE label = ? AND source = 'model'", (name,))
            )
            # Most tags of a label stay when its threshold moves; writing only what changes makes a correction quick.
            gone = [(content_id, name) for content_id in before.keys() - given.keys()]
            store.sql.executemany("DELETE FROM tags WHERE (content_id, label) = (?, ?)", gone)
            changed = [
                (content_id, name, score)
                for content_id, score in given.items()
                if abs(before.get(content_id, -1.0) - score) > _SCORE_STEP
            ]
            store.sql.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?, ?, 'model')", changed)
            store.sql.execute("DELETE FROM decided WHERE label = ?", (name,))
            if name in rules.special:
                store.sql.execute("INSERT INTO decided VALUES (?, ?)", (name, rules.special[name]))


def _given(rules: Rules, name: str, matrix: Matrix) -> dict[int, float]:
    """Content id → probability of one label, for all that it is given to."""
    if name not in rules.labels:
        return {}
    scores = rules.scores_of(name, matrix.rows)
    given = (scores >= TAG_PROBABILITY).nonzero()[0]
    return dict(zip(matrix.ids[given].tolist(), scores[given].tolist(), strict=True))

"""Search for a screen: words, a photo to be like, things that must not be seen, and filters, in any mix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.library.errors import LibraryError, NothingIndexedError
from app.library.search.rank import best_rows, no_vectors, strong_from
from app.library.search.timeline import EVERYTHING, Filter, contents_of, photos_with, timeline
from app.library.store.matrix import Matrix
from app.library.store.store import Ids, Rows, Store

if TYPE_CHECKING:
    from mobileclip.model import Model


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        words: free text, or nothing.
        like: id of a photo that the results should resemble, alone or together with the words.
        excluded: texts, none of which a result may show.
        only: which photos may be results.
    """

    words: str = ""
    like: int | None = None
    excluded: tuple[str, ...] = ()
    only: Filter = EVERYTHING


@dataclass(frozen=True)
class Results:
    """What was found.

    Attributes:
        ids: photo ids, int64 (n,), best first; copies of a photo stand side by side.
        scores: cosines with the query, float32 (n,).
        strong: the first so many are strong matches, see `app.library.search.rank.strong_from`.
    """

    ids: Ids
    scores: Rows
    strong: int


def find(store: Store, model: "Model", matrix: Matrix, query: Query, top: int = 300) -> Results:
    """The best photos for a query; for filters alone all that pass, newest first.

    An excluded text drops every photo that a search for it would call strong, and, where the text is the name of a
    label, every photo with that label: a firm promise, where taking the text's vector away from the query would only
    shift the order.

    Args:
        store: the open index.
        model: the bundle whose vectors to search.
        matrix: all of its vectors.
        query: see `Query`.
        top: at most so many contents.

    Raises:
        NothingIndexedError: the index holds no vectors of this model.
        LibraryError: the photo to be like is gone, or words and photo cancel one another out.
    """
    asks = bool(query.words.strip()) or query.like is not None
    if not asks and not query.excluded:
        ids = timeline(store, query.only).ids
        return Results(ids, np.zeros(len(ids), np.float32), len(ids))
    if len(matrix.ids) == 0:
        raise NothingIndexedError(no_vectors(store, model))
    presence = [label.threshold for label in model.labels]
    dropped = _excluded(store, model, matrix, query.excluded, presence)
    if not asks:
        ids = timeline(store, query.only).ids
        held = photos_with(store, dropped.tolist())
        ids = ids[~np.isin(ids, [photo for photos in held.values() for photo in photos])]
        return Results(ids, np.zeros(len(ids), np.float32), len(ids))
    vector, itself = _vector(store, model, matrix, query)
    scores = matrix.rows @ vector
    strong = strong_from(scores, None if query.like is not None else presence)
    allowed = None if query.only == EVERYTHING else contents_of(store, query.only)
    rows = best_rows(scores, allowed, np.concatenate([dropped, itself]), matrix.ids, top)
    return _results(store, matrix, scores, rows, strong, query.only)


def similar(store: Store, model: "Model", matrix: Matrix, photo_id: int, top: int) -> Results:
    """The photos that look most like one, by stored vectors alone; see `find`."""
    return find(store, model, matrix, Query(like=photo_id), top)


def _results(store: Store, matrix: Matrix, scores: Rows, rows: Sequence[int], strong: float, only: Filter) -> Results:
    contents = [int(matrix.ids[row]) for row in rows]
    held = photos_with(store, contents, only)
    pairs = [
        (photo, float(scores[row]))
        for row, content in zip(rows, contents, strict=True)
        for photo in held.get(content, ())
    ]
    found = np.array([score for _, score in pairs], np.float32)
    # best_rows sorts, so that the strong ones come first.
    return Results(np.array([photo for photo, _ in pairs], np.int64), found, int((found >= np.float32(strong)).sum()))


def _vector(store: Store, model: "Model", matrix: Matrix, query: Query) -> tuple[Rows, Ids]:
    """The query as a unit vector, and the content that it asks with."""
    total = np.zeros(matrix.rows.shape[1], np.float32)
    itself = np.empty(0, np.int64)
    if query.words.strip():
        total += model.encode_texts([query.words.strip()])[0]
    if query.like is not None:
        row = store.sql.execute("SELECT content_id FROM photos WHERE id = ?", (query.like,)).fetchone()
        place = int(np.searchsorted(matrix.ids, row[0])) if row else len(matrix.ids)
        if row is None or place == len(matrix.ids) or matrix.ids[place] != row[0]:
            raise LibraryError("this photo is not in the index any more, or not for this model; index again")
        total += matrix.rows[place]
        itself = np.array(row, np.int64)
    length = float(np.linalg.norm(total))
    if length < 1e-4:
        raise LibraryError("the words and the photo of this query cancel one another out; leave one away")
    return np.asarray(total / length, np.float32), itself


def _excluded(store: Store, model: "Model", matrix: Matrix, texts: Sequence[str], presence: Sequence[float]) -> Ids:
    """Ids of the contents that show any of the texts, int64 (n,)."""
    texts = [text.strip() for text in texts if text.strip()]
    found = [np.empty(0, np.int64)]
    for text, vector in zip(texts, model.encode_texts(texts) if texts else (), strict=True):
        scores = matrix.rows @ vector
        found.append(matrix.ids[scores >= strong_from(scores, presence)])
        tagged = store.sql.execute("SELECT content_id FROM tags WHERE label = ?", (text,)).fetchall()
        found.append(np.array([row[0] for row in tagged], np.int64))
    return np.unique(np.concatenate(found))

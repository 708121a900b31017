"""Find the photos that fit a query best, and tell strong matches from weak ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.library.errors import LibraryError, NothingIndexedError
from app.library.files.content import content_hash
from app.library.search.query import Query, Term
from app.library.search.timeline import timeline
from app.library.store import photos
from app.library.store.connection import Ids, Store
from app.library.store.contents import id_of_content
from app.library.store.filter import EVERYTHING, Filter
from app.library.store.matrix import Matrix
from app.library.store.tags import contents_with_label
from app.library.store.vectors import list_models
from mobileclip.vectors import Floats

if TYPE_CHECKING:
    from mobileclip.model import Model

OpenVectors = Callable[[], tuple["Model", Matrix]]
"""Opens the model and all of its vectors."""

# The median absolute deviation of a normal distribution, times this, is its standard deviation.
_MAD_TO_DEVIATION = 1.4826
STRONG_DEVIATIONS = 3.0
_SHORTEST = 1e-4


@dataclass(frozen=True)
class Results:
    """The photos that were found.

    Attributes:
        ids: photo ids, int64 (n,), best first; copies of a photo are next to each other. Newest first if the query
            only filters.
        scores: cosines with the query, float32 (n,); 0 if the query has no terms.
        strong: the first so many are strong matches, see `strong_from`.
    """

    ids: Ids
    scores: Floats
    strong: int


def search(store: Store, query: Query, open_vectors: OpenVectors, top: int = 300) -> Results:
    """The photos that fit a query best; all that pass, newest first, if the query has no terms.

    Photos of the query itself are left out. A text in `without` drops every photo that a search for it would call
    strong and, if the text is the name of a label, every photo with that label. That is a firm promise; subtracting
    the text's vector from the query would only shift the order.

    Args:
        store: the open index.
        query: what to look for.
        open_vectors: called only if the query has terms or `without`.
        top: at most so many contents; copies of one content don't count.

    Raises:
        NothingIndexedError: the index has no vectors of this model.
        PhotoError: a photo of the query can't be read.
        LibraryError: a photo of the query isn't in the index any more, or the terms cancel each other out.
    """
    if not query.terms and not query.without:
        return _everything(timeline(store, query.filter).ids)
    model, matrix = open_vectors()
    if len(matrix.ids) == 0:
        raise nothing_indexed(store, model)
    presence = [label.threshold for label in model.labels]
    dropped = _contents_that_show(store, model, matrix, query.without, presence)
    if not query.terms:
        ids = timeline(store, query.filter).ids
        held = photos.photos_with(store, dropped.tolist())
        return _everything(ids[~np.isin(ids, [photo for copies in held.values() for photo in copies])])
    scores = matrix.rows @ query_vector(store, model, matrix, query.terms)
    by_photo = any(term.is_photo or term.photo_id is not None for term in query.terms)
    strong = strong_from(scores, None if by_photo else presence)
    allowed = None if query.filter == EVERYTHING else photos.contents_of(store, query.filter)
    left_out = np.concatenate([dropped, _contents_of_terms(store, query.terms)])
    rows = best_rows(scores, allowed, left_out, matrix.ids, top)
    return _photos_of(store, matrix, scores, rows, strong, query.filter)


def query_vector(store: Store, model: "Model", matrix: Matrix, terms: Sequence[Term]) -> Floats:
    """The weighted sum of all terms, scaled to unit length so that scores stay cosines: float32 (d,).

    Raises:
        PhotoError: a photo of the query can't be read.
        LibraryError: a photo of the query isn't in the index any more, or the terms cancel each other out.
    """
    total = np.zeros(matrix.rows.shape[1], np.float32)
    texts = [term for term in terms if term.photo_id is None and not term.is_photo]
    files = [term for term in terms if term.is_photo]
    if texts:
        total += _weights(texts) @ model.encode_texts([term.text for term in texts])
    if files:
        total += _weights(files) @ model.encode_images([term.text for term in files])
    for term in terms:
        if term.photo_id is not None:
            total += np.float32(term.weight) * _stored_vector(store, matrix, term.photo_id)
    length = float(np.linalg.norm(total))
    if length < _SHORTEST:
        raise LibraryError("the parts of this query cancel each other out; change a weight or drop one")
    return np.asarray(total / length, np.float32)


def robust_deviation(scores: Floats) -> float:
    """The standard deviation that normal scores (n,) would have, hardly moved by outliers."""
    return _MAD_TO_DEVIATION * float(np.median(np.abs(scores - np.median(scores))))


def strong_from(scores: Floats, presence: Sequence[float] | None) -> float:
    """The cosine from which a result is a strong match, for one query over one library.

    No fixed cosine separates good results from bad ones: the limit moves with every query and every model. But two
    things are known. First, how the library scores on this query: most photos don't show what was asked for, so the
    median and the median absolute deviation describe the noise, and a photo STRONG_DEVIATIONS above it stands out.
    Second, the cosines at which this model's labels are present: the bundle has a threshold for each, fitted on labeled
    photos. Below their lower quartile hardly any text is really shown, even if a photo sticks out; above their upper
    quartile almost any text is, even if all photos show it and none sticks out.

    Measured with OpenAI's ViT-B/32 on 1,075 photos of Flickr8k and 500 of their captions, deviations alone: at 3,
    90 % of the photos are strong for their own caption, and 7 photos (median) are strong for a caption; at 4 it is
    54 % and 1, at 2.5 it is 97 % and 21.

    Args:
        scores: cosines of the whole library with the query, float32 (n,).
        presence: the thresholds of the model's labels, or None for a query by photo, whose cosines are on another
            scale.
    """
    outlying = float(np.median(scores)) + STRONG_DEVIATIONS * robust_deviation(scores)
    if presence is None or len(presence) == 0:
        return outlying
    hardly, almost_surely = np.quantile(np.asarray(presence), [0.25, 0.75])
    return float(min(max(outlying, hardly), almost_surely))


def best_rows(scores: Floats, allowed: Ids | None, without: Ids, ids: Ids, top: int) -> list[int]:
    """Row numbers of the `top` best scores, best first, equal ones by row.

    Args:
        scores: float32 (n,).
        allowed: content ids to choose from, ascending; None for all.
        without: content ids to leave out.
        ids: the content id of each row, int64 (n,).
        top: how many at most.
    """
    rows = np.arange(len(ids)) if allowed is None else np.flatnonzero(np.isin(ids, allowed, assume_unique=True))
    if len(without):
        rows = rows[~np.isin(ids[rows], without)]
    chosen = scores[rows]
    if top < len(rows):
        # Sorting all photos for the best ten would take longer than scoring them. argpartition doesn't keep the order
        # of equal scores; sorting the rows it picked restores it for the stable sort.
        keep = np.sort(np.argpartition(-chosen, top)[:top])
        rows, chosen = rows[keep], chosen[keep]
    return [int(row) for row in rows[np.argsort(-chosen, kind="stable")]]


def nothing_indexed(store: Store, model: "Model") -> NothingIndexedError:
    """Why a search can't find anything, and what to do about it."""
    others = [known.name for known in list_models(store) if known.vectors and known.fingerprint != model.fingerprint]
    if others:
        return NothingIndexedError(
            f"the photos were indexed with another model ({', '.join(others)}); run `pocketclip index` with"
            f" --model {model.name} first"
        )
    return NothingIndexedError("nothing is indexed yet; run `pocketclip index DIR` first")


def _everything(ids: Ids) -> Results:
    return Results(ids, np.zeros(len(ids), np.float32), len(ids))


def _photos_of(
    store: Store, matrix: Matrix, scores: Floats, rows: Sequence[int], strong: float, only: Filter
) -> Results:
    contents = [int(matrix.ids[row]) for row in rows]
    held = photos.photos_with(store, contents, only)
    pairs = [
        (photo, float(scores[row]))
        for row, content in zip(rows, contents, strict=True)
        for photo in held.get(content, ())
    ]
    ids = np.array([photo for photo, _ in pairs], np.int64)
    # best_rows sorts, so the strong ones come first.
    return Results(ids, np.array([score for _, score in pairs], np.float32), sum(score >= strong for _, score in pairs))


def _weights(terms: Sequence[Term]) -> Floats:
    return np.array([term.weight for term in terms], np.float32)


def _stored_vector(store: Store, matrix: Matrix, photo_id: int) -> Floats:
    content = photos.content_of(store, photo_id)
    row = len(matrix.ids) if content is None else int(np.searchsorted(matrix.ids, content[0]))
    if content is None or row == len(matrix.ids) or matrix.ids[row] != content[0]:
        raise LibraryError("this photo is not in the index any more, or not for this model; index again")
    return np.asarray(matrix.rows[row])


def _contents_of_terms(store: Store, terms: Sequence[Term]) -> Ids:
    """Ids of the contents that the query asks with, int64 (n,)."""
    known = [id_of_content(store, content_hash(term.text)) for term in terms if term.is_photo]
    held = [photos.content_of(store, term.photo_id) for term in terms if term.photo_id is not None]
    known += [content[0] for content in held if content is not None]
    return np.array([number for number in known if number is not None], np.int64)


def _contents_that_show(
    store: Store, model: "Model", matrix: Matrix, texts: Sequence[str], presence: Sequence[float]
) -> Ids:
    """Ids of the contents that show any of the texts, ascending, int64 (n,)."""
    texts = [text.strip() for text in texts if text.strip()]
    found = [np.empty(0, np.int64)]
    for text, vector in zip(texts, model.encode_texts(texts) if texts else (), strict=True):
        scores = matrix.rows @ vector
        found.append(matrix.ids[scores >= strong_from(scores, presence)])
        found.append(np.array(contents_with_label(store, text), np.int64))
    return np.unique(np.concatenate(found))

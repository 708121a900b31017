"""Find photos by words, by example, or by a weighted mix of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from app.library.errors import LibraryError, NothingIndexedError
from app.library.files.content import content_hash
from app.library.store.matrix import load_matrix
from app.library.store.store import Ids, Rows, Store

if TYPE_CHECKING:
    from mobileclip.model import Model

Strength = Literal["strong", "weak"]

# The median absolute deviation of a normal distribution, times this, is its standard deviation.
_MAD_TO_DEVIATION = 1.4826
STANDS_OUT = 3.0


@dataclass(frozen=True)
class Term:
    """One part of a query: words, or the path of a photo; a negative weight asks for less of it."""

    content: str
    weight: float = 1.0
    is_photo: bool = False


@dataclass(frozen=True)
class Hit:
    """A photo that was found; `score` is the cosine with the query, `strength` how it is to be read."""

    path: str
    score: float
    strength: Strength


def query_vector(model: "Model", terms: Sequence[Term]) -> Rows:
    """The weighted sum of all terms on the unit sphere: float32 (d,), so that scores stay cosines.

    Raises:
        PhotoError: a photo of the query cannot be read.
        LibraryError: the terms cancel one another out.
    """
    total = np.zeros(model.dim, np.float32)
    words = [term for term in terms if not term.is_photo]
    photos = [term for term in terms if term.is_photo]
    if words:
        vectors = model.encode_texts([term.content for term in words])
        total += np.array([term.weight for term in words], np.float32) @ vectors
    if photos:
        vectors = model.encode_images([term.content for term in photos])
        total += np.array([term.weight for term in photos], np.float32) @ vectors
    length = float(np.linalg.norm(total))
    if length < 1e-4:
        raise LibraryError("the parts of this query cancel one another out; change a weight or leave one away")
    return np.asarray(total / length, np.float32)


def robust_deviation(scores: Rows) -> float:
    """The standard deviation of normal scores (n,), hardly moved by the few that stand out."""
    return _MAD_TO_DEVIATION * float(np.median(np.abs(scores - np.median(scores))))


def strong_from(scores: Rows, presence: Sequence[float] | None) -> float:
    """The cosine from which a result counts as strong, for one query over one library.

    No fixed cosine separates good results from bad ones: the border moves with every query and every model.
    Two things are known, though. How the whole library scores on this very query: most photos do not show
    what was asked for, so median and median absolute deviation describe the noise, and a photo STANDS_OUT
    deviations above it is no accident. And at which cosine this model's labels are present, because the
    bundle carries a threshold for each, fitted on labelled photos: below the lower quartile of them hardly
    any text is really shown, whatever stands out; above the upper quartile almost any text is, also where the
    whole library shows it and nothing stands out.

    Measured with OpenAI's ViT-B/32 on 1,075 photos of Flickr8k and 500 of their captions, deviations alone: at 3,
    90 % of the photos are strong for their own caption, and 7 photos (median) are strong for a caption; at 4 it is
    54 % and 1, at 2.5 it is 97 % and 21.

    Args:
        scores: cosines of the whole library with the query, float32 (n,).
        presence: the thresholds of the model's labels, or None for a query by photo, which scores on another
            scale.
    """
    outstanding = float(np.median(scores)) + STANDS_OUT * robust_deviation(scores)
    if presence is None or len(presence) == 0:
        return outstanding
    hardly, almost_surely = np.quantile(np.asarray(presence), [0.25, 0.75])
    return float(min(max(outstanding, hardly), almost_surely))


def search(
    store: Store, model: "Model", terms: Sequence[Term], *, top: int = 10, folders: Sequence[str] = ()
) -> list[Hit]:
    """The `top` photos that fit the query best, best first; photos of the query itself are left out.

    Args:
        store: the open index.
        model: the bundle whose vectors to search.
        terms: the query.
        top: how many photos at most.
        folders: only photos at or below these; what is strong is still judged over the whole library.

    Raises:
        NothingIndexedError: the index holds no vectors of this model.
        PhotoError, LibraryError: see query_vector.
    """
    matrix = load_matrix(store, model.fingerprint)
    if len(matrix.ids) == 0:
        raise NothingIndexedError(no_vectors(store, model))
    scores = matrix.rows @ query_vector(model, terms)
    presence = None if any(term.is_photo for term in terms) else [label.threshold for label in model.labels]
    strong = strong_from(scores, presence)
    hits: list[Hit] = []
    for row in best_rows(scores, _allowed(store, folders), _asked_with(store, terms), matrix.ids, top):
        score = float(scores[row])
        strength: Strength = "strong" if score >= strong else "weak"
        paths = store.paths_of(int(matrix.ids[row]), folders)
        hits.extend(Hit(path, score, strength) for path in paths)
    return hits[:top]


def best_rows(scores: Rows, allowed: Ids | None, without: Ids, ids: Ids, top: int) -> list[int]:
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
        # Sorting a whole library for ten photos would cost more than scoring it.
        keep = np.sort(np.argpartition(-chosen, top)[:top])
        rows, chosen = rows[keep], chosen[keep]
    return [int(row) for row in rows[np.argsort(-chosen, kind="stable")]]


def _allowed(store: Store, folders: Sequence[str]) -> Ids | None:
    return store.contents_below(folders) if folders else None


def _asked_with(store: Store, terms: Sequence[Term]) -> Ids:
    known = (store.content_id(content_hash(term.content)) for term in terms if term.is_photo)
    return np.array([content_id for content_id in known if content_id is not None], np.int64)


def no_vectors(store: Store, model: "Model") -> str:
    """Why a search cannot find anything, and what to do about it."""
    others = [known.name for known in store.models() if known.vectors and known.fingerprint != model.fingerprint]
    if others:
        return (
            f"the photos were indexed with another model ({', '.join(others)}); run `pocketclip index` with"
            f" --model {model.name} first"
        )
    return "nothing is indexed yet; run `pocketclip index DIR` first"

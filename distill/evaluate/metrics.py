"""Rates from similarity matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
RECALLS = (1, 5, 10)
ROUNDS, COVERED = 1000, 0.95


def bootstrap(n: int, rate: Callable[[NDArray[np.intp]], float]) -> list[float]:
    """Return how far a rate may be off by the luck of the draw (Efron 1979, percentile interval).

    Args:
        n: photos. Photos are drawn, never captions: the captions of one photo stand or fall together.
        rate: computes the rate of a sample, given as photo numbers (n,) drawn with repetition.

    Returns:
        The two ends of the interval that covers 95 % of 1,000 samples; the same for the same data.
    """
    random = np.random.default_rng(0)
    rates = [rate(random.integers(0, n, n)) for _ in range(ROUNDS)]
    return [float(end) for end in np.nanquantile(rates, [(1 - COVERED) / 2, (1 + COVERED) / 2])]


def retrieval(photos: Floats, texts: Floats, owner: Sequence[int]) -> dict[str, Any]:
    """Measure recall@k in both directions, as CLIP papers count it.

    Args:
        photos: unit vectors (n, d).
        texts: unit vectors (m, d).
        owner: for each text the row of its photo, (m,).

    Returns:
        `text_to_photo`: share of texts whose photo is among the k nearest photos; `photo_to_text`: share of photos
        with *any* of their texts among the k nearest texts. Ties count against the model. `intervals`: the same
        shape, see `bootstrap`.
    """
    owners = np.asarray(owner)
    similarity = texts @ photos.T
    own = similarity[np.arange(len(texts)), owners]
    rank = (similarity >= own[:, None]).sum(axis=1)
    to_photo = {f"R@{k}": float((rank <= k).mean()) for k in RECALLS}
    captions = np.bincount(owners, minlength=len(photos))
    found = {k: np.bincount(owners, weights=rank <= k, minlength=len(photos)) for k in RECALLS}
    hits = np.zeros((len(photos), len(RECALLS)), dtype=bool)
    for row, scores in enumerate(similarity.T):
        mine = owners == row
        # The best of a photo's own texts, ranked among all others.
        best = (scores[~mine] >= scores[mine].max(initial=-np.inf)).sum() + 1
        hits[row] = [best <= k and bool(mine.any()) for k in RECALLS]
    to_text = {f"R@{k}": float(hits[:, i].mean()) for i, k in enumerate(RECALLS)}
    n, one = len(photos), np.ones(len(photos))
    spread = {
        "text_to_photo": {f"R@{k}": bootstrap(n, _share(found[k], captions)) for k in RECALLS},
        "photo_to_text": {f"R@{k}": bootstrap(n, _share(hits[:, i], one)) for i, k in enumerate(RECALLS)},
    }
    return {"text_to_photo": to_photo, "photo_to_text": to_text, "intervals": spread}


def _share(hits: NDArray[Any], of: NDArray[Any]) -> Callable[[NDArray[np.intp]], float]:
    """Return the rate of hits among the photos drawn, each photo counting as often as `of` says."""
    return lambda drawn: float(hits[drawn].sum() / of[drawn].sum())


def classification(photos: Floats, classes: Floats, labels: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Measure zero-shot accuracy: the nearest class wins.

    Args:
        photos: unit vectors (n, d).
        classes: unit vectors (c, d).
        labels: for each photo the rows of the classes that are right.

    Returns:
        `top1`, `top5` over photos, and `mean_per_class`: top-1 averaged over classes, a photo with several
        counting for each. `intervals`: the same names, see `bootstrap`.
    """
    order = np.argsort(-(photos @ classes.T), axis=1, kind="stable")
    top1 = np.array([order[i, 0] in right for i, right in enumerate(labels)])
    top5 = np.array([bool(set(order[i, :5]) & set(right)) for i, right in enumerate(labels)])
    member = np.zeros((len(classes), len(labels)), dtype=bool)
    for i, right in enumerate(labels):
        member[list(right), i] = True

    def mean_per_class(drawn: NDArray[np.intp]) -> float:
        photos_of, right_of = member[:, drawn].sum(axis=1), (member[:, drawn] & top1[drawn]).sum(axis=1)
        seen = photos_of > 0
        return float((right_of[seen] / photos_of[seen]).mean())

    n = len(labels)
    return {
        "top1": float(top1.mean()),
        "top5": float(top5.mean()),
        "mean_per_class": mean_per_class(np.arange(n)),
        "intervals": {
            "top1": bootstrap(n, _share(top1, np.ones(n))),
            "top5": bootstrap(n, _share(top5, np.ones(n))),
            "mean_per_class": bootstrap(n, mean_per_class),
        },
    }

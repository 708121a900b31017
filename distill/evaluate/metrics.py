"""Retrieval and zero-shot accuracy from unit vectors, as CLIP_benchmark defines them (LAION, `clip_benchmark/metrics`).

Where ours differ: ties count against the model, so that one that says the same of everything gets nothing (there, the
sort's order decides); and a photo may have several right classes (there, such sets are only measured by `map`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Numbers = NDArray[np.intp]

RECALLS = (1, 5, 10)
ROUNDS, COVERED = 1000, 0.95
CELLS = 2**23
"""Similarities held at a time: 32 MB, however many photos and texts there are."""

TIE = np.float32(5e-7)
"""Similarities as near as this are equal: the same vector's come out of a matrix product a bit apart."""


def bootstrap(n: int, rate: Callable[[Numbers], float]) -> list[float]:
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


def share(hits: NDArray[Any], of: NDArray[Any]) -> Callable[[Numbers], float]:
    """Return the rate of hits among the photos drawn, each photo counting as often as `of` says."""
    return lambda drawn: float(hits[drawn].sum() / max(of[drawn].sum(), 1e-12))


def ranks(queries: Floats, targets: Floats, asked: Numbers, right: Numbers) -> NDArray[np.int64]:
    """Return the rank of each query's nearest right target among all wrong ones, 1 for the best.

    Similarities are made a few rows at a time, so memory does not grow with the number of queries.

    Args:
        queries: unit vectors (n, d).
        targets: unit vectors (m, d).
        asked: rows of queries (p,), each with the right target beside it in `right`; no pair twice.
        right: rows of targets (p,).

    Returns:
        (n,); a query without a right target ranks behind everything. Equal similarities, and those that are no
        number, rank before.
    """
    order = np.argsort(asked, kind="stable")
    asked, right = np.asarray(asked)[order], np.asarray(right)[order]
    result = np.full(len(queries), np.iinfo(np.int64).max)
    rows = max(1, CELLS // max(1, len(targets)))
    for start in range(0, len(queries), rows):
        similarity = queries[start : start + rows] @ targets.T
        first, last = np.searchsorted(asked, (start, start + len(similarity)))
        row, own = asked[first:last] - start, similarity[asked[first:last] - start, right[first:last]]
        best = np.full(len(similarity), -np.inf, np.float32)
        np.fmax.at(best, row, own)
        best -= TIE
        behind = (similarity < best[:, None]).sum(axis=1)
        np.subtract.at(behind, row, own < best[row])
        count = np.bincount(row, minlength=len(similarity))
        rank = len(targets) - count - behind + 1
        result[start : start + rows][count > 0] = rank[count > 0]
    return result


def retrieval(photos: Floats, texts: Floats, owner: Sequence[int]) -> dict[str, Any]:
    """Measure recall@k in both directions, as CLIP papers count it.

    Args:
        photos: unit vectors (n, d).
        texts: unit vectors (m, d).
        owner: for each text the row of its photo, (m,).

    Returns:
        `text_to_photo`: share of texts whose photo is among the k nearest photos (CLIP_benchmark's
        `image_retrieval_recall@k`); `photo_to_text`: share of photos with *any* of their texts among the k nearest
        texts (`text_retrieval_recall@k`). `intervals`: the same shape, see `bootstrap`.
    """
    n, owners, texts_of_all = len(photos), np.asarray(owner), np.arange(len(texts))
    text_rank = ranks(texts, photos, texts_of_all, owners)
    photo_rank = ranks(photos, texts, owners, texts_of_all)
    captions = np.bincount(owners, minlength=n)
    spread: dict[str, dict[str, list[float]]] = {"text_to_photo": {}, "photo_to_text": {}}
    for k in RECALLS:
        found = np.bincount(owners, weights=text_rank <= k, minlength=n)
        spread["text_to_photo"][f"R@{k}"] = bootstrap(n, share(found, captions))
        spread["photo_to_text"][f"R@{k}"] = bootstrap(n, share(photo_rank <= k, np.ones(n)))
    return {
        "text_to_photo": {f"R@{k}": float((text_rank <= k).mean()) for k in RECALLS},
        "photo_to_text": {f"R@{k}": float((photo_rank <= k).mean()) for k in RECALLS},
        "intervals": spread,
    }


def classification(photos: Floats, classes: Floats, labels: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Measure zero-shot accuracy: the nearest class wins.

    Args:
        photos: unit vectors (n, d).
        classes: unit vectors (c, d).
        labels: for each photo the rows of the classes that are right.

    Returns:
        `top1` and `top5` over photos (CLIP_benchmark's `acc1`, `acc5`; of four classes or fewer the latter is always
        1, there not a number); `mean_per_class`, top-1 averaged over the classes that have photos, one with several
        counting for each (`mean_per_class_recall`). `intervals`: the same names, see `bootstrap`.
    """
    n = len(labels)
    photo = np.repeat(np.arange(n), [len(right) for right in labels])
    label = np.array([one for right in labels for one in right], dtype=np.intp)
    rank = ranks(photos, classes, photo, label)
    top1, top5 = rank <= 1, rank <= 5

    def mean_per_class(drawn: Numbers) -> float:
        times = np.bincount(drawn, minlength=n)[photo]
        photos_of = np.bincount(label, weights=times)
        right_of = np.bincount(label, weights=times * top1[photo])
        return float((right_of[photos_of > 0] / photos_of[photos_of > 0]).mean())

    return {
        "top1": float(top1.mean()),
        "top5": float(top5.mean()),
        "mean_per_class": mean_per_class(np.arange(n)),
        "intervals": {
            "top1": bootstrap(n, share(top1, np.ones(n))),
            "top5": bootstrap(n, share(top5, np.ones(n))),
            "mean_per_class": bootstrap(n, mean_per_class),
        },
    }

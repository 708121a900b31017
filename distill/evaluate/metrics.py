"""Retrieval and zero-shot accuracy from unit vectors, as CLIP_benchmark defines them (LAION, `clip_benchmark/metrics`).

Ours differ in two ways. Ties count against the model, so a constant model scores zero (in CLIP_benchmark the sort order
decides). A photo may have several correct classes (CLIP_benchmark measures these data sets only by `map`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileclip.vectors import Floats

Numbers = NDArray[np.intp]

RECALLS = (1, 5, 10)
ROUNDS, COVERED = 1000, 0.95
CELLS = 2**23
"""Similarities in memory at a time: 32 MB, for any number of photos and texts."""

TIE = np.float32(5e-7)
"""Similarities this close count as equal, because a matrix product rounds equal vectors differently."""


def bootstrap(n: int, rate: Callable[[Numbers], float]) -> list[float]:
    """Return the 95 % confidence interval of a rate (percentile bootstrap, Efron 1979).

    Args:
        n: number of photos. Photos are resampled, not captions, because captions of one photo aren't independent.
        rate: computes the rate of a sample, given as photo numbers (n,) drawn with replacement.

    Returns:
        Both ends of the interval that covers 95 % of 1,000 samples. The seed is fixed, so the result is reproducible.
    """
    random = np.random.default_rng(0)
    rates = [rate(random.integers(0, n, n)) for _ in range(ROUNDS)]
    return [float(end) for end in np.nanquantile(rates, [(1 - COVERED) / 2, (1 + COVERED) / 2])]


def share(hits: NDArray[Any], of: NDArray[Any]) -> Callable[[Numbers], float]:
    """Return a function that computes the rate of hits among the photos drawn, with weights `of`."""
    return lambda drawn: float(hits[drawn].sum() / max(of[drawn].sum(), 1e-12))


def ranks(queries: Floats, targets: Floats, asked: Numbers, right: Numbers) -> NDArray[np.int64]:
    """Return the rank of each query's best correct target among all wrong ones; 1 is the best.

    Similarities are computed a few rows at a time, so memory doesn't grow with the number of queries.

    Args:
        queries: unit vectors (n, d).
        targets: unit vectors (m, d).
        asked: rows of queries (p,).
        right: rows of their correct targets (p,); every pair is unique.

    Returns:
        (n,). A query without a correct target ranks last. Wrong targets with an equal or NaN similarity rank first.
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
    """Measure recall@k in both directions, as in the CLIP papers.

    Args:
        photos: unit vectors (n, d).
        texts: unit vectors (m, d).
        owner: the row of each text's photo, (m,).

    Returns:
        `text_to_photo`: share of texts whose photo is among the k nearest photos (CLIP_benchmark's
        `image_retrieval_recall@k`); `photo_to_text`: share of photos with *any* of their texts among the k nearest
        texts (`text_retrieval_recall@k`). `intervals` has the same structure, see `bootstrap`.
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
    """Measure zero-shot accuracy: the most similar class wins.

    Args:
        photos: unit vectors (n, d).
        classes: unit vectors (c, d).
        labels: the rows of each photo's correct classes.

    Returns:
        `top1` and `top5` over photos (CLIP_benchmark's `acc1` and `acc5`; with four classes or fewer, top-5 is 1 here
        and NaN there); `mean_per_class`, top-1 averaged over the classes that have photos, where a photo counts for
        each of its classes (`mean_per_class_recall`). `intervals` has the same names, see `bootstrap`.
    """
    n = len(labels)
    photo = np.repeat(np.arange(n), [len(right) for right in labels])
    label = np.array([row for right in labels for row in right], dtype=np.intp)
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

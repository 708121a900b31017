"""Rates from similarity matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
RECALLS = (1, 5, 10)


def retrieval(photos: Floats, texts: Floats, owner: Sequence[int]) -> dict[str, dict[str, float]]:
    """Measure recall@k in both directions, as CLIP papers count it.

    Args:
        photos: unit vectors (n, d).
        texts: unit vectors (m, d).
        owner: for each text the row of its photo, (m,).

    Returns:
        `text_to_photo`: share of texts whose photo is among the k nearest photos; `photo_to_text`: share of photos
        with *any* of their texts among the k nearest texts. Ties count against the model.
    """
    owners = np.asarray(owner)
    similarity = texts @ photos.T
    own = similarity[np.arange(len(texts)), owners]
    rank = (similarity >= own[:, None]).sum(axis=1)
    to_photo = {f"R@{k}": float((rank <= k).mean()) for k in RECALLS}
    hits = np.zeros((len(photos), len(RECALLS)), dtype=bool)
    for row, scores in enumerate(similarity.T):
        mine = owners == row
        # The best of a photo's own texts, ranked among all others.
        best = (scores[~mine] >= scores[mine].max(initial=-np.inf)).sum() + 1
        hits[row] = [best <= k and bool(mine.any()) for k in RECALLS]
    to_text = {f"R@{k}": float(hits[:, i].mean()) for i, k in enumerate(RECALLS)}
    return {"text_to_photo": to_photo, "photo_to_text": to_text}


def classification(photos: Floats, classes: Floats, labels: Sequence[Sequence[int]]) -> dict[str, float]:
    """Measure zero-shot accuracy: the nearest class wins.

    Args:
        photos: unit vectors (n, d).
        classes: unit vectors (c, d).
        labels: for each photo the rows of the classes that are right.

    Returns:
        `top1`, `top5` over photos, and `mean_per_class`: top-1 averaged over classes, a photo with several
        counting for each.
    """
    order = np.argsort(-(photos @ classes.T), axis=1, kind="stable")
    top1 = np.array([order[i, 0] in right for i, right in enumerate(labels)])
    top5 = np.array([bool(set(order[i, :5]) & set(right)) for i, right in enumerate(labels)])
    per_class = []
    for number in range(len(classes)):
        members = [i for i, right in enumerate(labels) if number in right]
        if members:
            per_class.append(float(top1[members].mean()))
    return {
        "top1": float(top1.mean()),
        "top5": float(top5.mean()),
        "mean_per_class": float(np.mean(per_class)),
    }

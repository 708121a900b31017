"""The known limits of CLIP, measured: does a photo prefer its caption to the same caption with one word made wrong?

A model that matches bags of words does well on `colour` and `person` and stays near chance, 50 %, on `number` and
`position` (the idea of minimal pairs: Yuksekgonul et al. 2023; Hsieh et al. 2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.evaluate.encoders import Encoder, Floats
from distill.evaluate.metrics import bootstrap, share


def _both_ways(*pairs: tuple[str, str]) -> dict[str, str]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


PROBES: Mapping[str, Mapping[str, str]] = {
    "number": {**_both_ways(("two", "three")), "four": "two", "five": "two", "several": "one"},
    "position": _both_ways(
        ("left", "right"), ("above", "below"), ("over", "under"), ("in front of", "behind"), ("inside", "outside")
    ),
    "colour": {
        **_both_ways(("red", "blue"), ("black", "white"), ("green", "yellow"), ("pink", "orange")),
        "brown": "black",
        "purple": "green",
    },
    "person": _both_ways(("man", "woman"), ("boy", "girl"), ("men", "women"), ("boys", "girls")),
}
"""What is swapped for what, by what it probes."""


def minimal_pair(caption: str, swaps: Mapping[str, str]) -> str | None:
    """Return the caption with its first such word or phrase swapped, or None where it has none."""
    pattern = r"\b(" + "|".join(sorted(swaps, key=len, reverse=True)) + r")\b"
    changed, count = re.subn(pattern, lambda found: swaps[found[1].lower()], caption, count=1, flags=re.IGNORECASE)
    return changed if count else None


def measure_limits(
    encoder: Encoder, photos: Floats, texts: Floats, captions: Sequence[str], owner: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Measure, for each probe, how often a photo is nearer to its own caption than to the wrong one.

    Args:
        encoder: for the changed captions.
        photos: unit vectors (n, d).
        texts: unit vectors (m, d) of the captions.
        captions: (m,).
        owner: for each caption the row of its photo, (m,).

    Returns:
        For each probe with a caption to change: `n`, `accuracy` and its `interval`, see `bootstrap`; chance is 0.5.
        Ties count as wrong.
    """
    result: dict[str, dict[str, Any]] = {}
    for probe, swaps in PROBES.items():
        changed = [(row, wrong) for row, text in enumerate(captions) if (wrong := minimal_pair(text, swaps))]
        if not changed:
            continue
        rows = np.array([row for row, _ in changed])
        which, photo = np.unique(np.asarray(owner)[rows], return_inverse=True)
        own = photos[which][photo]
        altered = encoder.encode_texts([text for _, text in changed])
        better = (own * texts[rows]).sum(axis=1) > (own * altered).sum(axis=1)
        rate = share(np.bincount(photo, weights=better), np.bincount(photo))
        interval = bootstrap(len(which), rate)
        result[probe] = {"n": len(changed), "accuracy": float(better.mean()), "interval": interval}
    return result

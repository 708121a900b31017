"""Measure known limits of CLIP: does a photo prefer its caption to the same caption with one wrong word?

A model that matches bags of words does well on `color` and `person` and stays near chance, 50 %, on `number` and
`position` (minimal pairs: Yuksekgonul et al. 2023; Hsieh et al. 2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.evaluate.encoders import DualEncoder
from distill.evaluate.metrics import bootstrap, share
from mobileclip.vectors import Floats


def _both_ways(*pairs: tuple[str, str]) -> dict[str, str]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


PROBES: Mapping[str, Mapping[str, str]] = {
    "number": {**_both_ways(("two", "three")), "four": "two", "five": "two", "several": "one"},
    "position": _both_ways(
        ("left", "right"), ("above", "below"), ("over", "under"), ("in front of", "behind"), ("inside", "outside")
    ),
    "color": {
        **_both_ways(("red", "blue"), ("black", "white"), ("green", "yellow"), ("pink", "orange")),
        "brown": "black",
        "purple": "green",
    },
    "person": _both_ways(("man", "woman"), ("boy", "girl"), ("men", "women"), ("boys", "girls")),
}
"""For each probe, the words to swap and their replacements."""


def minimal_pair(caption: str, swaps: Mapping[str, str]) -> str | None:
    """Return the caption with the first of these words or phrases swapped, or None if it contains none."""
    pattern = r"\b(" + "|".join(sorted(swaps, key=len, reverse=True)) + r")\b"
    changed, count = re.subn(pattern, lambda found: swaps[found[1].lower()], caption, count=1, flags=re.IGNORECASE)
    return changed if count else None


def measure_limits(
    encoder: DualEncoder, photos: Floats, texts: Floats, captions: Sequence[str], owner: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Measure, for each probe, how often a photo is closer to its own caption than to the wrong one.

    Args:
        encoder: encodes the changed captions.
        photos: unit vectors (n, d).
        texts: unit vectors (m, d) of the captions.
        captions: (m,).
        owner: the row of each caption's photo, (m,).

    Returns:
        For each probe that applies to a caption: `n`, `accuracy` and its `interval` (see `bootstrap`). Chance is 0.5;
        ties count as wrong.
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

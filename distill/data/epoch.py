"""Which photos an epoch draws, and in which order; the seed and the epoch's number determine both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Shares = Sequence[tuple[float, Sequence[int]]]
"""For each source, the share of its photos that an epoch draws, and the number of photos in each of its shards. Photos
are numbered across all shards of all sources."""

SHUFFLE_WINDOW = 2**16
"""Photos that are shuffled together. Larger sources are shuffled by shard first, so that a batch reads few shards."""


def epoch_size(sources: Shares) -> int:
    """Return the number of photos that an epoch draws."""
    counts = [(share, sum(sizes)) for share, sizes in sources]
    return sum(int(share) * count + round(share % 1 * count) for share, count in counts)


def draw_epoch(sources: Shares, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw the photos of an epoch: each source by its share, in its own order, evenly mixed with the other sources."""
    random = np.random.default_rng((seed, epoch))
    orders, start = [np.zeros(0, np.int64)], 0
    for share, sizes in sources:
        rounds = [shuffle_shards(sizes, random) for _ in range(int(share))]
        rounds.append(shuffle_shards(sizes, random)[: round(share % 1 * sum(sizes))])
        orders.append(start + np.concatenate(rounds))
        start += sum(sizes)
    source_of = random.permutation(np.repeat(np.arange(len(orders)), [len(order) for order in orders]))
    mixed = np.empty(len(source_of), np.int64)
    for number, order in enumerate(orders):
        mixed[source_of == number] = order
    return mixed


def shuffle_shards(
    sizes: Sequence[int], random: np.random.Generator, window: int = SHUFFLE_WINDOW
) -> NDArray[np.int64]:
    """Shuffle the photos of shards with these sizes: first the shards, then the photos within windows."""
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    shards = random.permutation(len(sizes))
    order = np.concatenate([np.arange(0), *(np.arange(starts[i], starts[i + 1]) for i in shards)]).astype(np.int64)
    for start in range(0, len(order), window):
        random.shuffle(order[start : start + window])
    return order


def draw_text_index(random: np.random.Generator, captions: int, synthetic: int) -> int:
    """Draw an index into captions followed by synthetic captions.

    Both kinds are equally likely, as in MobileCLIP, where both losses have the same weight.
    """
    if synthetic and random.integers(2):
        return captions + int(random.integers(synthetic))
    return int(random.integers(captions))

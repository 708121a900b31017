"""Photos of a batch that aren't each other's negatives, because they show the same or have the same caption."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.distributed import Gather, alone

_SEED = 20260101  # any number, but the same on every process


def merge_groups(groups: Tensor, texts: Tensor) -> Tensor:
    """Join the groups of photos that have the same text, in chains of any length.

    Args:
        groups: what each photo shows (n,) integers; equal for photos that show the same.
        texts: the text of each photo (n,) integers; equal for equal texts.

    Returns:
        New group numbers (n,) int64, from 0; equal for photos with the same group, the same text, or a chain of both.
    """
    links = [torch.unique(ids, return_inverse=True)[1] for ids in (groups, texts)]
    merged = torch.arange(len(groups), device=groups.device)
    while True:
        before = merged
        for link in links:
            smallest = torch.full_like(merged, len(merged)).scatter_reduce(0, link, merged, "amin")
            merged = smallest[link]
        if torch.equal(before, merged):
            return merged


def group_texts(groups: Tensor, tokens: Tensor, gather: Gather = alone, rank: int = 0) -> tuple[Tensor, Tensor]:
    """Group the photos and texts of a batch, so that equal captions are positives of all their photos.

    Captions are compared by their tokens, which don't depend on case and white space.

    Args:
        groups: what each photo shows (n,) int64, at least 0.
        tokens: token ids (m, length), m ≥ n. The first n texts belong to the photos, the others have no photo.
        gather: gathers the rows of all processes, which have equal numbers of photos and texts.
        rank: the number of this process.

    Returns:
        Group numbers of the photos (n,) and of the texts (m,), int64, the same on every process.
    """
    n, m = len(groups), len(tokens)
    generator = torch.Generator().manual_seed(_SEED)
    # A sum with random 64-bit factors, modulo 2⁶⁴, is a hash of a row.
    factors = torch.randint(-(2**62), 2**62, (tokens.shape[1],), generator=generator).to(tokens.device)
    texts = gather((tokens.long() * factors).sum(dim=1))
    shown = gather(torch.cat([groups, groups.new_full((m - n,), -1)]))
    # A text without a photo is in a group that no photo has, unless a photo has the same text.
    own = -1 - torch.arange(len(shown), device=shown.device)
    merged = merge_groups(torch.where(shown < 0, own, shown), texts)[rank * m : (rank + 1) * m]
    return merged[:n], merged

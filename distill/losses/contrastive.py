"""The contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor


def positives(rows: Tensor, columns: Tensor) -> Tensor:
    """Mark which pairs mean the same.

    Args:
        rows: group ids (n,), integers; equal ids share their meaning.
        columns: group ids (m,).

    Returns:
        Targets (n, m) float: each row is spread evenly over its positives and sums to 1 (0 where it has none).
    """
    same = (rows[:, None] == columns[None, :]).float()
    return same / same.sum(dim=1, keepdim=True).clamp_min(1)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows of the cross-entropy with soft targets."""
    return -(targets * torch.log_softmax(logits, dim=-1)).sum(dim=-1).mean()


def info_nce(image: Tensor, text: Tensor, scale: Tensor, groups: Tensor, text_groups: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE with several positives (CLIP, Radford et al. 2021, figure 3; UniCL, Yang et al. 2022).

    Args:
        image: unit vectors (n, d).
        text: unit vectors (m, d), m ≥ n; the first n belong to the photos, the rest are only negatives.
        scale: the logit scale itself, not its logarithm.
        groups: ids (n,) of what the photos show; with all ids different this is plain InfoNCE.
        text_groups: ids (m,) of the texts; the same as `groups` where there are no further texts.

    Returns:
        A scalar.
    """
    text_groups = groups if text_groups is None else text_groups
    logits = scale * image @ text.T
    n = len(image)
    to_text = _cross_entropy(logits, positives(groups, text_groups))
    to_image = _cross_entropy(logits[:, :n].T, positives(text_groups[:n], groups))
    return (to_text + to_image) / 2

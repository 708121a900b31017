"""Contrastive losses: they pull each pair together and push all other combinations apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from distill.distributed import Gather, alone, everyone
from distill.losses.registry import LossInputs, Need, register


def positives(rows: Tensor, columns: Tensor) -> Tensor:
    """Return which pairs are positives.

    Args:
        rows: group ids (n,), integers; equal ids have the same meaning.
        columns: group ids (m,).

    Returns:
        Targets (n, m) float32. Each row is spread evenly over its positives and sums to 1, or 0 without positives.
    """
    same = (rows[:, None] == columns[None, :]).float()
    return same / same.sum(dim=1, keepdim=True).clamp_min(1)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy with soft targets, averaged over rows."""
    return -(targets * torch.log_softmax(logits, dim=-1)).sum(dim=-1).mean()


def info_nce(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    groups: Tensor,
    text_groups: Tensor | None = None,
    gather: Gather = alone,
) -> Tensor:
    """Symmetric InfoNCE with several positives (CLIP, Radford et al. 2021, figure 3; UniCL, Yang et al. 2022).

    Args:
        image: unit vectors (n, d).
        text: unit vectors (m, d), m ≥ n. The first n belong to the photos, and the rest are only negatives.
        scale: the logit scale, not its logarithm.
        groups: ids (n,) of what the photos show. If all differ, this is plain InfoNCE.
        text_groups: ids (m,) of the texts; by default `groups`.
        gather: gathers the rows of all processes, so that each compares its own rows with all of them.

    Returns:
        A scalar. Its mean over the processes is the loss of the whole batch.
    """
    text_groups = groups if text_groups is None else text_groups
    n = len(image)
    to_text = _cross_entropy(scale * image @ gather(text).T, positives(groups, gather(text_groups)))
    to_image = _cross_entropy(scale * text[:n] @ gather(image).T, positives(text_groups[:n], gather(groups)))
    return (to_text + to_image) / 2


def siglip(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    groups: Tensor,
    text_groups: Tensor | None = None,
    gather: Gather = alone,
    chunk: int = 0,
) -> Tensor:
    """Pairwise sigmoid loss (SigLIP, Zhai et al. 2023, section 3.2, algorithm 1).

    Args:
        image: unit vectors (n, d).
        text: unit vectors (m, d).
        scale: the logit scale, not its logarithm; SigLIP starts at 10.
        bias: added to all logits; SigLIP starts at −10, which suits large batches.
        groups: ids (n,) of what the photos show.
        text_groups: ids (m,) of the texts, by default `groups`.
        gather: gathers the rows of all processes.
        chunk: number of texts to compare at a time, 0 for all. Chunks need less memory, and one more matrix product
            in the backward pass.

    Returns:
        A scalar: the sum over the texts, averaged over photos.
    """
    texts, ids = gather(text), gather(groups if text_groups is None else text_groups)
    total = image.new_zeros(())
    for some, some_ids in zip(texts.split(chunk or len(texts)), ids.split(chunk or len(ids)), strict=True):
        part = checkpoint(_pairs, image, some, scale, bias, groups, some_ids, use_reentrant=False)
        total = total + torch.as_tensor(part)
    return total / len(image)


def _pairs(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, groups: Tensor, ids: Tensor) -> Tensor:
    sign = 2.0 * (groups[:, None] == ids[None, :]).to(image.dtype) - 1
    return -F.logsigmoid(sign * (scale * image @ text.T + bias)).sum()


@register("contrastive", weight=1.0)
def _contrastive(step: LossInputs) -> Tensor:
    """InfoNCE between photos and texts."""
    return info_nce(step.image, step.text, step.scale, step.groups, step.text_groups, everyone)


@register("siglip", Need.BIAS)
def _siglip(step: LossInputs) -> Tensor:
    """The pairwise sigmoid loss between photos and texts, with a learned bias."""
    bias, chunk = step.needed("bias"), step.settings.siglip_chunk
    return siglip(step.image, step.text, step.scale, bias, step.groups, step.text_groups, everyone, chunk)

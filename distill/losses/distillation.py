"""Losses that pull a student towards a teacher."""

from __future__ import annotations

import torch
from torch import Tensor


def affinity(student: Tensor, teacher: Tensor) -> Tensor:
    """Affinity mimicking (TinyCLIP, Wu et al. 2023, section 3.1): cross-entropy to the teacher's similarities.

    Args:
        student: scaled logits (n, m).
        teacher: scaled logits (n, m), constant.

    Returns:
        A scalar: KL divergence averaged over rows, so that a perfect student scores 0.
    """
    target = torch.log_softmax(teacher, dim=-1)
    return (target.exp() * (target - torch.log_softmax(student, dim=-1))).sum(dim=-1).mean()


def feature(student: Tensor, teacher: Tensor) -> Tensor:
    """Feature distillation (CLIP-KD, Yang et al. 2024, section 3.2) between unit vectors (n, d).

    Returns:
        The mean squared distance of a pair, 2 − 2·cosine: summed over dimensions, not averaged as CLIP-KD does.
    """
    return (student - teacher).square().sum(dim=-1).mean()


def relational(student: Tensor, teacher: Tensor, student_temperature: float, teacher_temperature: float) -> Tensor:
    """KL between two spaces' pairwise geometries (relational distillation, Park et al. 2019).

    The two spaces need not share a dimension: only who is near whom is learned.

    Args:
        student: unit vectors (n, d).
        teacher: unit vectors (n, e) of the same items, constant.
        student_temperature: divides the student's cosines.
        teacher_temperature: divides the teacher's cosines.
    """
    itself = torch.eye(len(student), dtype=torch.bool, device=student.device)
    logits = (student @ student.T / student_temperature).masked_fill(itself, -1e4)
    target = (teacher @ teacher.T / teacher_temperature).masked_fill(itself, -1e4)
    return affinity(logits, target)

"""Losses: small pure functions on tensors. Rows of `image` and `text` are unit vectors."""

from distill.losses.contrastive import info_nce, positives, siglip
from distill.losses.distillation import (
    TeacherEmbeddings,
    affinity,
    augmented,
    ensemble,
    feature,
    gradient,
    info_nce_gradients,
    interactive,
    relational,
    soft_sigmoid,
)

__all__ = [
    "TeacherEmbeddings",
    "affinity",
    "augmented",
    "ensemble",
    "feature",
    "gradient",
    "info_nce",
    "info_nce_gradients",
    "interactive",
    "positives",
    "relational",
    "siglip",
    "soft_sigmoid",
]

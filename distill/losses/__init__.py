"""Losses: pure functions of tensors, and the registry that recipes choose from.

Importing a module with losses registers them, so a new module needs an import here.
"""

from distill.losses.contrastive import info_nce, positives, siglip
from distill.losses.distillation import (
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
from distill.losses.registry import LOSSES, Loss, LossInputs, LossSettings, Need, TeacherEmbeddings, average, register

__all__ = [
    "LOSSES",
    "Loss",
    "LossInputs",
    "LossSettings",
    "Need",
    "TeacherEmbeddings",
    "affinity",
    "augmented",
    "average",
    "ensemble",
    "feature",
    "gradient",
    "info_nce",
    "info_nce_gradients",
    "interactive",
    "positives",
    "register",
    "relational",
    "siglip",
    "soft_sigmoid",
]

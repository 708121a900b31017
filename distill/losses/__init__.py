"""Losses: small pure functions on tensors. Rows of `image` and `text` are unit vectors."""

from distill.losses.contrastive import info_nce, positives
from distill.losses.distillation import affinity, feature, relational

__all__ = ["affinity", "feature", "info_nce", "positives", "relational"]

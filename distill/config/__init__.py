"""Recipes: frozen dataclasses that check themselves, read from TOML."""

from distill.config.recipe import Recipe
from distill.config.sources import PHOTO_TEMPLATES, PhotoSource, Reinforcement, TextSource
from distill.config.teachers import AlignedPairConfig, BackboneConfig, CheckpointConfig, OpenClipConfig
from distill.config.training import LossConfig, OptimConfig, Stage, Validation
from mobileclip.tables import build

__all__ = [
    "PHOTO_TEMPLATES",
    "AlignedPairConfig",
    "BackboneConfig",
    "CheckpointConfig",
    "LossConfig",
    "OpenClipConfig",
    "OptimConfig",
    "PhotoSource",
    "Recipe",
    "Reinforcement",
    "Stage",
    "TextSource",
    "Validation",
    "build",
]

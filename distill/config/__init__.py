"""Recipes: frozen dataclasses that validate themselves, read from TOML."""

from distill.config.recipe import Recipe
from distill.config.sources import PHOTO_TEMPLATES, PhotoSource, Reinforcement, TextSource
from distill.config.teachers import AlignedPairConfig, BackboneConfig, CheckpointConfig, OpenClipConfig, TeacherConfig
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
    "TeacherConfig",
    "TextSource",
    "Validation",
    "build",
]

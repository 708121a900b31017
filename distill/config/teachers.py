"""Who teaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mobileclip.errors import ConfigError


@dataclass(frozen=True)
class BackboneConfig:
    """A frozen timm classifier, of which the pooled features are used."""

    trunk: str
    """A timm name."""
    weights: str
    """A path, or `package:relative/path`."""
    px: int = 224
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    mirror: bool = False
    """Average the features of a photo and its mirror image, at twice the cost."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the backbone's arithmetic."""


@dataclass(frozen=True)
class AlignedPairConfig:
    """Two frozen encoders and the two heads that align them (LiT, Zhai et al. 2022, with both sides locked)."""

    backbones: tuple[BackboneConfig, ...]
    """One or more; their features are joined. The first one's classifier gives the posterior."""
    sentences: str
    """A sentence-transformers folder: a path, or `package:relative/path`."""
    sentence_layers: tuple[int, ...] = ()
    """Hidden layers of the sentence encoder whose means over tokens join its vector: they tell words apart that mean
    nearly the same."""
    sentence_strongest: bool = False
    """Whether the last layer's maximum over tokens joins it too."""
    embed_dim: int = 512
    heads: int = 1
    """Pairs of heads, each fitted from weights of its own. Their vectors are joined, which averages their similarities,
    and taken down to `embed_dim` by their principal directions."""
    hidden: int = 1024
    dropout: float = 0.3
    epochs: int = 40
    batch: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.05
    logit_scale: float = 40.0
    """The temperature at which the student mimics this teacher."""
    posterior_weight: float = 0.5
    """KL to the backbone's own class posterior over `a photo of a <class>`; 0 switches it off."""
    class_names: str = ""
    """The names of the classifier's classes: a CSV below the data folder, `file,label`, in the order of its files; or
    `open_clip`, ImageNet's 1,000 as open_clip calls them, of whom fewer are ambiguous ("drake", "crane")."""
    class_texts: Mapping[str, str] = field(default_factory=dict)
    """How to call a class in a text where its own name misleads."""
    conse_weight: float = 0.0
    """Adds to a photo's vector, this many times as long, what the classifier saw in it: the mean of the ten likeliest
    classes' text vectors, weighted by their probabilities (ConSE, Norouzi et al. 2014), each taken from the mean of all
    classes. 0 switches it off."""
    geometry_weight: float = 0.0
    """Relational KL to the pairwise geometry of `geometry_vectors`, another teacher's text vectors."""
    geometry_texts: str = ""
    """A table below the data folder with a column `prompt`, one row for each vector."""
    geometry_vectors: str = ""
    """An .npy file below the data folder, float32 (texts, d)."""

    def __post_init__(self) -> None:
        if self.heads < 1 or not self.backbones:
            raise ConfigError("aligned needs heads ≥ 1 and at least one [[aligned.backbones]]")


@dataclass(frozen=True)
class OpenClipConfig:
    """Any open_clip model: its name and a path to weights, or `local-dir:` and a folder. Nothing is downloaded."""

    model: str
    pretrained: str = ""

    logit_scale: float = 0.0
    """At which the student mimics its similarities; 0 for the model's own."""

    def __post_init__(self) -> None:
        if self.logit_scale < 0:
            raise ConfigError(f"open_clip teacher {self.model}: logit_scale cannot be negative")


@dataclass(frozen=True)
class CheckpointConfig:
    """A student of ours, or any checkpoint that `pocketclip evaluate` reads, as a teacher."""

    path: str
    """A folder or a file: a path, or `package:relative/path`."""
    logit_scale: float = 0.0
    """At which the student mimics its similarities; 0 for the model's own."""

    def __post_init__(self) -> None:
        if self.logit_scale < 0:
            raise ConfigError(f"checkpoint teacher {self.path}: logit_scale cannot be negative")

"""The image tower: a timm trunk, and the head that maps its features to the embedding."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileclip.errors import ConfigError
from mobileclip.towers.attention_pool import AttentionPool, join_maps
from mobileclip.towers.config import ImageConfig

RIDGE = 1e-3
"""Regularization of the fitted local projection, relative to the mean of the features' second moments."""


class ClassVectors(nn.Module):
    """A classifier whose probabilities weight one vector per class: ConSE (Norouzi et al. 2014) as a layer.

    Args:
        width: of the features.
        classes: number of classes.
        embed_dim: width of the embedding.
    """

    def __init__(self, width: int, classes: int, embed_dim: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, classes)
        self.vectors = nn.Linear(classes, embed_dim, bias=False)
        nn.init.normal_(self.vectors.weight, std=embed_dim**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, width) to unit vectors (n, embed_dim)."""
        return F.normalize(self.vectors(self.classifier(features).softmax(dim=-1)), dim=-1)

    @torch.no_grad()
    def set_vectors(self, vectors: Tensor) -> None:
        """Initialize the classes' vectors from those of their names, (classes, embed_dim).

        Their mean is subtracted: it is the same for all photos, and would pull each of them toward the texts closest to
        it (hubs, Radovanović et al. 2010).
        """
        self.vectors.weight.copy_((vectors - vectors.mean(dim=0)).T)


class ImageTower(nn.Module):
    """Pixels to vectors.

    Args:
        config: the trunk and the head.
        embed_dim: width of the embedding.
    """

    places: Tensor | None

    def __init__(self, config: ImageConfig, embed_dim: int) -> None:
        super().__init__()
        self.trunk = timm.create_model(config.trunk, pretrained=False, num_classes=0, **config.options)
        self.dropout = nn.Dropout(config.dropout)
        width = self.trunk.head_hidden_size or self.trunk.num_features
        self.projection = nn.Linear(width, embed_dim, bias=config.bias)
        nn.init.normal_(self.projection.weight, std=width**-0.5)
        if config.bias:
            nn.init.zeros_(self.projection.bias)
        self.hidden = self.classes = self.attention = None
        if config.hidden:
            self.hidden = nn.Sequential(
                nn.Linear(width, config.hidden),
                nn.ReLU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.hidden, embed_dim),
            )
        self.width, self.maps = width, 0
        if config.attention:
            self.maps, side = config.attention.maps, config.attention.side
            channels = map_channels(self.trunk, self.maps)
            self.attention = AttentionPool(config.attention, channels, embed_dim)
            self.width += side**2 * channels
        if config.classes:
            self.classes = ClassVectors(width, config.classes, embed_dim)
        self.class_share = config.class_share
        # The local projection of a head that isn't linear. The name is part of the checkpoint format.
        self.register_buffer("places", torch.zeros(embed_dim, width) if config.head_has_branches else None)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels, (n, 3, s, s) float, to vectors (n, embed_dim), not yet of unit length.

        A tensor (n, width) counts as `features` of the trunk.
        """
        return self.project(pixels) if pixels.ndim == 2 else self.with_map(pixels)[0]

    def with_map(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, with the trunk's last feature map, (n, c, h, w) if the trunk is convolutional."""
        last, maps = run_trunk(self.trunk, pixels, self.maps)
        return self._head(self.trunk.forward_head(last), join_maps(maps) if maps else None), last

    def features(self, pixels: Tensor) -> Tensor:
        """Return all that the head sees of the trunk (n, width): pooled features, then the places of the maps, if any.

        Args:
            pixels: normalized pixels, (n, 3, s, s) float.
        """
        return trunk_features(self.trunk, pixels, self.maps)

    def project(self, features: Tensor) -> Tensor:
        """Map the trunk's `features`, (n, width), to vectors (n, embed_dim), not yet of unit length."""
        if self.attention is None:
            return self._head(features, None)
        pooled, places = features.tensor_split([self.projection.in_features], dim=1)
        return self._head(pooled, places.unflatten(1, (-1, self.attention.embed.in_features)))

    def _head(self, pooled: Tensor, places: Tensor | None) -> Tensor:
        """Map pooled features (n, c) and places (n, side², channels) to vectors (n, embed_dim)."""
        dropped = self.dropout(pooled)
        vectors = self.projection(dropped)
        if self.hidden is not None:
            vectors = vectors + self.hidden(dropped)
        if self.attention is not None:
            vectors = F.normalize(vectors, dim=-1) + F.normalize(self.attention(places), dim=-1)
        if self.classes is not None:
            vectors = F.normalize(vectors, dim=-1) + self.class_share * self.classes(pooled)
        return vectors

    def local_projection(self) -> tuple[Tensor, Tensor | None] | None:
        """Return weight (embed_dim, width) and bias of the projection for single locations of the feature map.

        A linear projection commutes with the mean over locations, so it is the head itself if that is linear. Otherwise
        it is the approximation from `fit_local_projection`, or None before that was called.
        """
        if self.places is None:
            return self.projection.weight, self.projection.bias
        return (self.places, None) if self.places.any() else None

    @torch.no_grad()
    def fit_local_projection(self, pooled: Tensor, vectors: Tensor) -> float:
        """Fit the linear projection that approximates the head best (ridge regression).

        Args:
            pooled: pooled features of many photos, (n, width).
            vectors: what the head makes of these photos, (n, embed_dim).

        Returns:
            The mean cosine between the projection's vectors and the head's.
        """
        assert self.places is not None
        rows, wanted = pooled.double(), F.normalize(vectors.double(), dim=-1)
        moments = rows.T @ rows
        moments.diagonal().add_(RIDGE * float(moments.diagonal().mean()))
        self.places.copy_(torch.linalg.solve(moments, rows.T @ wanted).T)
        return float((F.normalize(pooled @ self.places.T, dim=-1) * wanted).sum(dim=-1).mean())

    def last_layers(self) -> list[nn.Linear]:
        """Return the layers whose outputs are in the embedding space."""
        last = [self.projection]
        if self.hidden is not None:
            outer = self.hidden[-1]
            assert isinstance(outer, nn.Linear)
            last.append(outer)
        if self.attention is not None:
            last.append(self.attention.projection)
        if self.classes is not None:
            last.append(self.classes.vectors)
        return last


def run_trunk(trunk: Any, pixels: Tensor, maps: int) -> tuple[Tensor, list[Tensor]]:
    """Run a timm trunk up to its pooling.

    Args:
        trunk: the trunk.
        pixels: normalized pixels, (n, 3, s, s) float.
        maps: number of feature maps to return, see `AttentionConfig`.

    Returns:
        What `forward_head` takes, and the output of each of the last stages, (n, c, h, w).
    """
    if not maps:
        return trunk.forward_features(pixels), []
    last, found = trunk.forward_intermediates(pixels, indices=maps)
    return last, found


def trunk_features(trunk: Any, pixels: Tensor, maps: int) -> Tensor:
    """Return the pooled features of a timm trunk, joined with the places of its last feature maps (n, width).

    For the arguments, see `run_trunk`.
    """
    last, found = run_trunk(trunk, pixels, maps)
    pooled: Tensor = trunk.forward_head(last, pre_logits=True)
    return torch.cat([pooled, join_maps(found).flatten(1)], dim=1) if found else pooled


def map_channels(trunk: nn.Module, maps: int) -> int:
    """Return how many channels the last feature maps of a timm trunk have together.

    Raises:
        ConfigError: the trunk has no such maps.
    """
    infos = list(getattr(trunk, "feature_info", []))[-maps:]
    if len(infos) < maps or not hasattr(trunk, "forward_intermediates"):
        raise ConfigError(f"image.attention: a {type(trunk).__name__} doesn't have {maps} feature maps")
    return sum(int(info["num_chs"]) for info in infos)

"""The image tower: a timm trunk and a projection into the shared space."""

from __future__ import annotations

import timm
from torch import Tensor, nn

from mobileclip.towers.config import ImageConfig


class ImageTower(nn.Module):
    """Pixels to vectors.

    Args:
        config: which trunk.
        embed_dim: width of the shared space.
    """

    def __init__(self, config: ImageConfig, embed_dim: int) -> None:
        super().__init__()
        self.trunk = timm.create_model(config.trunk, pretrained=False, num_classes=0, **config.options)
        self.dropout = nn.Dropout(config.dropout)
        width = self.trunk.head_hidden_size or self.trunk.num_features
        self.projection = nn.Linear(width, embed_dim, bias=config.bias)
        nn.init.normal_(self.projection.weight, std=width**-0.5)
        if config.bias:
            nn.init.zeros_(self.projection.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels, (n, 3, s, s) float, to vectors (n, embed_dim), not yet of unit length."""
        return self.projection(self.dropout(self.trunk(pixels)))

"""Attention pooling: learned queries attend to the places of the trunk's last feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileclip.towers.config import AttentionConfig


class AttentionPool(nn.Module):
    """One pre-norm cross-attention layer, as the pooling of Set Transformer (Lee et al. 2019, section 3.2).

    Average pooling forgets which features were seen together. The queries weigh the places by what they show.

    Args:
        config: the shape of the layer.
        channels: channels of a place, over all maps.
        embed_dim: width of the embedding.
    """

    def __init__(self, config: AttentionConfig, channels: int, embed_dim: int) -> None:
        super().__init__()
        width = config.width
        self.heads, self.side, self.drop_places = config.heads, config.side, config.drop_places
        self.embed = nn.Linear(channels, width)
        self.positions = nn.Parameter(0.02 * torch.randn(config.side**2, width))
        self.queries = nn.Parameter(0.02 * torch.randn(config.queries, width))
        self.ln_places = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.ln_mlp = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4 * width)
        self.proj = nn.Linear(4 * width, width)
        self.ln_final = nn.LayerNorm(width)
        self.drop = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.queries * width, embed_dim)

    def forward(self, places: Tensor) -> Tensor:
        """Map places (n, side², channels) to vectors (n, embed_dim), not yet of unit length.

        For pictures of another size, whose maps have another side, the positions are interpolated.
        """
        places, positions = self._thin(places, self._positions(math.isqrt(places.shape[1])))
        x = self.ln_places(self.embed(places) + positions)
        k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.kv(x).chunk(2, dim=-1))
        # The queries are the same for all photos; the expanded batch lets every engine use its own attention.
        q = self.q(self.queries).expand(places.shape[0], -1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.queries + self.drop(self.out(attended))
        x = x + self.drop(self.proj(F.gelu(self.fc(self.ln_mlp(x)))))
        return self.projection(self.drop(self.ln_final(x).flatten(1)))

    def _positions(self, side: int) -> Tensor:
        if side == self.side:
            return self.positions
        known = self.positions.T.unflatten(1, (self.side, self.side))[None]
        return F.interpolate(known, size=(side, side), mode="bilinear", align_corners=False)[0].flatten(1).T

    def _thin(self, places: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return places and positions; in training, random ones, the same number for each photo."""
        if not self.training or not self.drop_places:
            return places, positions
        keep = places.shape[1] - round(self.drop_places * places.shape[1])
        chosen = torch.rand(places.shape[:2], device=places.device).argsort(dim=1)[:, :keep]
        return places.gather(1, chosen[:, :, None].expand(-1, -1, places.shape[2])), positions[chosen]


def join_maps(maps: Sequence[Tensor]) -> Tensor:
    """Bring feature maps to the size of the last one, and join their channels.

    Args:
        maps: (n, c, h, w), each with half the resolution of the one before.

    Returns:
        (n, h · w, sum of channels) of the last map's h and w, row by row.
    """
    joined = list(maps[-1:])
    for earlier in reversed(maps[:-1]):
        while earlier.shape[-1] > maps[-1].shape[-1]:
            earlier = F.avg_pool2d(earlier, 3, stride=2, padding=1)
        joined.append(earlier)
    return torch.cat(joined, dim=1).flatten(2).transpose(1, 2)

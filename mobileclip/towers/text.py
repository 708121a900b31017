"""The text tower: CLIP's pre-norm transformer (Radford et al. 2021, section 2.4), of any size.

With `repmixers` it is the hybrid of MobileCLIP-S0 (Vasu et al. 2024, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileclip.towers.config import TextConfig
from mobileclip.towers.repmixer import RepMixerBlock


def quick_gelu(x: Tensor) -> Tensor:
    """The approximation of GELU that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Self-attention and a four times wider MLP, each after a LayerNorm and with a residual connection."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.causal, self.dropout = config.heads, config.causal, config.dropout
        self.ln_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 4 * width)
        self.proj = nn.Linear(4 * width, width)
        self.drop = nn.Dropout(config.dropout)
        self.activation = quick_gelu if config.activation == "quick_gelu" else F.gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, length, width) to the same shape."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.ln_1(x)).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.causal)
        x = x + self.drop(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.drop(self.proj(self.activation(self.fc(self.ln_2(x)))))


class TextTower(nn.Module):
    """Token ids to vectors.

    Args:
        config: the transformer's shape.
        embed_dim: width of the embedding.
    """

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Parameter(torch.empty(config.context_length, width))
        layers = [Block(config) for _ in range(config.layers)]
        ends = [RepMixerBlock(width), RepMixerBlock(width)] if config.repmixers else []
        self.blocks = nn.ModuleList([*ends[:1], *layers, *ends[1:]])
        self.ln_final = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embed_dim, bias=False)
        self._initialize()

    def _initialize(self) -> None:
        """Draw random weights as CLIP does, with residual branches scaled down by depth."""
        width, layers = self.config.width, self.config.layers
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        for block in self._blocks():
            nn.init.normal_(block.qkv.weight, std=width**-0.5)
            nn.init.normal_(block.out.weight, std=(2 * layers * width) ** -0.5)
            nn.init.normal_(block.fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.proj.weight, std=(2 * layers * width) ** -0.5)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def _blocks(self) -> Iterator[Block]:
        return (block for block in self.blocks if isinstance(block, Block))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids, (n, length ≤ context length) integers, to vectors (n, embed_dim), not yet of unit length.

        The end token is the last id of the vocabulary and occurs once in each row; padding is 0.
        """
        x = self.token_embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        # A mask rather than argmax and gather, because all export formats support it.
        end = (tokens == self.config.vocab_size - 1).unsqueeze(-1)
        pooled = (x * end.to(x.dtype)).sum(dim=1)
        return self.projection(self.ln_final(pooled))

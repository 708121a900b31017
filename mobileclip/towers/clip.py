"""CLIP: an image tower, a text tower and the logit scale."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobileclip.towers.config import ModelConfig
from mobileclip.towers.image import ImageTower
from mobileclip.towers.text import TextTower

MAX_LOG_SCALE = math.log(100)


class CLIP(nn.Module):
    """An image tower and a text tower with a shared embedding space.

    `logit_scale` is the logarithm of the scale, as in CLIP (Radford et al. 2021, section 2.4).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config.image, config.embed_dim)
        self.text = TextTower(config.text, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(config.init_logit_scale)))
        self.reparameterized = False

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map normalized pixels (n, 3, s, s) to unit vectors (n, embed_dim), float32.

        A tensor (n, width) counts as the trunk's pooled features of such pixels.
        """
        return F.normalize(self.image(pixels).float(), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Map token ids (n, length) to unit vectors (n, embed_dim), float32."""
        return F.normalize(self.text(tokens).float(), dim=-1)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep the scale between 1 and 100; to be called after each optimizer step."""
        self.logit_scale.clamp_(0, MAX_LOG_SCALE)


def create_model(name_or_path: str | Path | ModelConfig) -> CLIP:
    """Build a model with random weights from the name of a shipped model, a TOML path or a configuration.

    Raises:
        ConfigError: there is no such model.
    """
    config = name_or_path if isinstance(name_or_path, ModelConfig) else ModelConfig.load(name_or_path)
    return CLIP(config)

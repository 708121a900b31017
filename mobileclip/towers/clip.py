"""Two towers and one temperature."""

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
    """An image tower and a text tower that map into one space.

    `logit_scale` holds the logarithm of the scale, as CLIP stores it (Radford et al. 2021, section 2.4).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config.image, config.embed_dim)
        self.text = TextTower(config.text, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(config.init_logit_scale)))
        self.reparameterized = False

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels (n, 3, s, s) to unit vectors (n, embed_dim), float32.

        Rows (n, width) are taken for the trunk's features of such pixels.
        """
        return F.normalize(self.image(pixels).float(), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Map token ids (n, length) to unit vectors (n, embed_dim), float32."""
        return F.normalize(self.text(tokens).float(), dim=-1)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Hold the scale within 1 and 100; call it after each optimizer step."""
        self.logit_scale.clamp_(0, MAX_LOG_SCALE)


def create_model(name_or_path: str | Path | ModelConfig) -> CLIP:
    """Build a model with fresh weights from a shipped name, a TOML path or a configuration.

    Raises:
        ConfigError: there is no such model.
    """
    config = name_or_path if isinstance(name_or_path, ModelConfig) else ModelConfig.load(name_or_path)
    return CLIP(config)

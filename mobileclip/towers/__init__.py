"""Image and text towers in PyTorch."""

from mobileclip.towers.clip import CLIP, create_model
from mobileclip.towers.config import ImageConfig, ModelConfig, TextConfig, model_names
from mobileclip.towers.reparameterize import reparameterize

__all__ = ["CLIP", "ImageConfig", "ModelConfig", "TextConfig", "create_model", "model_names", "reparameterize"]

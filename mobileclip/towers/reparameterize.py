"""Structural reparameterization: branches that are trained separately are merged into one layer for inference."""

from __future__ import annotations

import copy
from typing import Protocol

from timm.layers import BatchNormAct2d
from timm.utils import reparameterize_model
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mobileclip.errors import PocketclipError
from mobileclip.towers.clip import CLIP
from mobileclip.towers.repmixer import RepMixerBlock

# Convolutions and the BatchNorm that follows each, by the class that contains them. timm merges branches into single
# convolutions but doesn't fold these, including the one in FastViT's feed-forward part.
_PAIRS = {
    "ConvNormAct": (("conv", "bn"),),
    "ConvNorm": (("conv", "bn"),),
    "ConvBnAct": (("conv", "bn1"),),
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "EfficientNet": (("conv_stem", "bn1"), ("conv_head", "bn2")),
}


class HoldsModel(Protocol):
    """A `mobileclip.checkpoints.Checkpoint`, or anything else with a model in it."""

    @property
    def model(self) -> CLIP:
        """The model."""


def reparameterize(model: CLIP | HoldsModel) -> CLIP:
    """Return a copy with branches merged and BatchNorm folded into convolutions, for inference only.

    The vectors stay the same up to float32 rounding (tested to 1e-4). The model itself isn't changed; a model that is
    already merged is only copied. A merged model can't be trained or saved, so keep the original.

    Raises:
        PocketclipError: the model is in training mode, where BatchNorm isn't a constant.
    """
    model = model if isinstance(model, CLIP) else model.model
    if any(module.training for module in model.modules()):
        raise PocketclipError("reparameterize: call model.eval() first; BatchNorm in training mode cannot be merged")
    fused = copy.deepcopy(model)
    if model.reparameterized:
        return fused
    reparameterize_model(fused.image.trunk, inplace=True)
    for module in list(fused.modules()):
        if isinstance(module, RepMixerBlock):
            module.fuse()
        for conv_name, norm_name in _PAIRS.get(type(module).__name__, ()):
            _fold(module, conv_name, norm_name)
    fused.reparameterized = True
    return fused.eval().requires_grad_(False)


def _fold(module: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fold the BatchNorm into the convolution; the activation that timm's BatchNorm includes stays."""
    conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        return
    setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
    rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    setattr(module, norm_name, rest)

"""Training that already computes in eight bits (quantization-aware training, Jacob et al. 2018, section 3)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.ao.quantization import FusedMovingAvgObsFakeQuantize, MovingAverageMinMaxObserver
from torch.func import functional_call

from mobileclip.towers import CLIP

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.Embedding)
"""Layers whose weights an export stores in eight bits."""
LEVELS = 127
MOVING = 0.01
"""How fast the ranges of activations follow those of a batch."""


class Rounding(nn.Module):
    """Rounds weights, and what enters the layers of the image tower, to eight bits on the way forward.

    The gradient passes straight through, so the weights below stay precise and learn to bear the rounding. What is
    rounded is what the export stores and computes: weights symmetrically, for each output channel or row of a table;
    activations between their smallest and largest value, for a whole tensor. The text tower is quantized dynamically
    and its activations are not rounded. Folding BatchNorm scales whole channels, which changes no rounded weight.

    Args:
        model: the student, whose layers get hooks.
        activations: whether to round these too.
    """

    def __init__(self, model: CLIP, activations: bool) -> None:
        super().__init__()
        self.ranges = nn.ModuleDict()
        if not activations:
            return
        for name, layer in model.image.named_modules():
            if isinstance(layer, LAYERS):
                self.ranges[name.replace(".", "/")] = observer = FusedMovingAvgObsFakeQuantize(
                    MovingAverageMinMaxObserver,
                    quant_min=0,
                    quant_max=255,
                    dtype=torch.quint8,
                    averaging_constant=MOVING,
                )
                layer.register_forward_pre_hook(partial(_round_inputs, observer))

    def run(self, tower: nn.Module, inputs: Tensor) -> Tensor:
        """Return what a tower of the model gives with rounded weights; not yet of unit length."""
        vectors: Tensor = functional_call(tower, rounded_weights(tower), (inputs,))
        return vectors


def _round_inputs(observer: nn.Module, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (observer(inputs[0].float()).to(inputs[0].dtype), *inputs[1:])


def rounded_weights(tower: nn.Module) -> dict[str, Tensor]:
    """Return the weights of all convolutions, linear layers and tables, rounded, by their names in the tower."""
    return {
        f"{name}.weight": round_channels(layer.weight)
        for name, layer in tower.named_modules()
        if isinstance(layer, LAYERS)
    }


def round_channels(weight: Tensor) -> Tensor:
    """Round a weight (channels, …) to 255 levels of each channel's largest magnitude; its gradient passes through."""
    with torch.no_grad():
        largest = weight.detach().abs().flatten(1).amax(dim=1)
        scale = torch.where(largest > 0, largest / LEVELS, torch.ones_like(largest))
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -LEVELS, LEVELS)


def observers(module: nn.Module) -> list[FusedMovingAvgObsFakeQuantize]:
    """Return all parts of a module that follow the ranges of activations."""
    return [part for part in module.modules() if isinstance(part, FusedMovingAvgObsFakeQuantize)]

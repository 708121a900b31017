"""Quantization-aware training (Jacob et al. 2018, section 3)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.ao.quantization import FusedMovingAvgObsFakeQuantize, MovingAverageMinMaxObserver
from torch.func import functional_call

from mobileclip.towers import CLIP

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.Embedding)
"""Layers whose weights an export stores as int8."""
LEVELS = 127
MOVING = 0.01
"""Weight of a new batch in the moving average of activation ranges."""


class FakeQuantizer(nn.Module):
    """Rounds weights and, optionally, the inputs of image tower layers to eight bits in the forward pass.

    The straight-through estimator passes gradients on, so the weights stay precise and become robust to rounding.
    Rounding matches the export: weights symmetrically per output channel or embedding row; activations per tensor,
    between their smallest and largest value. Activations of the text tower are not rounded, because the export
    quantizes them dynamically. Folding BatchNorm scales entire channels, which doesn't change rounded weights.

    Args:
        model: the student, whose layers get hooks.
        activations: also round activations.
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
        """Run a tower of the model with rounded weights; returns vectors (n, d) before normalization."""
        vectors: Tensor = functional_call(tower, rounded_weights(tower), (inputs,))
        return vectors


def _round_inputs(observer: nn.Module, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (observer(inputs[0].float()).to(inputs[0].dtype), *inputs[1:])


def rounded_weights(tower: nn.Module) -> dict[str, Tensor]:
    """Return the rounded weights of all convolutions, linear layers and embeddings by name."""
    return {
        f"{name}.weight": round_channels(layer.weight)
        for name, layer in tower.named_modules()
        if isinstance(layer, LAYERS)
    }


def round_channels(weight: Tensor) -> Tensor:
    """Round a weight (channels, …) to 255 levels per channel; gradients pass straight through."""
    with torch.no_grad():
        largest = weight.detach().abs().flatten(1).amax(dim=1)
        scale = torch.where(largest > 0, largest / LEVELS, torch.ones_like(largest))
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -LEVELS, LEVELS)


def observers(module: nn.Module) -> list[FusedMovingAvgObsFakeQuantize]:
    """Return all observers of activation ranges in a module."""
    return [part for part in module.modules() if isinstance(part, FusedMovingAvgObsFakeQuantize)]

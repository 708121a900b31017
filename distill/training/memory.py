"""Towers that trade time for memory, or start-up for speed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP


def recompute_activations(model: CLIP) -> None:
    """Keep only what enters each block, and compute the rest again in the backward pass (Chen et al. 2016).

    Raises:
        ConfigError: timm's trunk of this kind cannot.
    """
    try:
        model.image.trunk.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, NotImplementedError) as error:
        raise ConfigError(
            f"optim.checkpoint_activations: {model.config.image.trunk} cannot compute its activations again"
        ) from error
    for block in model.text.blocks:
        forward: Callable[[Tensor], Tensor] = block.forward
        block.forward = partial(checkpoint, forward, use_reentrant=False)


def compile_towers(model: CLIP) -> None:
    """Have torch.compile run both towers; the first steps take minutes, texts of other lengths compile once more."""
    model.image.compile()
    model.text.compile(dynamic=True)

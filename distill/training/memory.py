"""Trade time for memory, or startup time for speed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP


def recompute_activations(model: CLIP) -> None:
    """Keep only the inputs of each block and recompute activations in the backward pass (Chen et al. 2016).

    Raises:
        ConfigError: the timm trunk doesn't support it.
    """
    try:
        model.image.trunk.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, NotImplementedError) as error:
        raise ConfigError(f"optim.checkpoint_activations: {model.config.image.trunk} doesn't support it") from error
    for block in model.text.blocks:
        forward: Callable[[Tensor], Tensor] = block.forward
        block.forward = partial(checkpoint, forward, use_reentrant=False)


def compile_towers(model: CLIP) -> None:
    """Compile both towers with torch.compile; the first steps take minutes, and new text lengths may recompile."""
    model.image.compile()
    model.text.compile(dynamic=True)

"""The optimizer's groups, its rate over a run, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distill.config import OptimConfig
from distill.training.task import DistillTask


def parameter_groups(task: DistillTask, optim: OptimConfig) -> list[dict[str, object]]:
    """Split parameters by tower rate, and those that must not decay: biases, norms, embeddings, the scale.

    Returns:
        Groups with `params`, `lr`, `weight_decay`, and `rate`, the rate that the schedule multiplies.
    """
    rates = {"model.image.trunk.": optim.lr_trunk, "model.text.": optim.lr_text or optim.lr}
    groups: dict[tuple[float, float, bool], list[Tensor]] = {}
    for name, parameter in task.named_parameters():
        rate = next((rate for part, rate in rates.items() if name.startswith(part)), optim.lr)
        still = parameter.ndim < 2 or "embedding" in name or name.endswith("positions")
        # Shares and whole tensors cannot be updated in one call.
        key = (rate, 0.0 if still else optim.weight_decay, isinstance(parameter, DTensor))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "rate": rate, "weight_decay": decay}
        for (rate, decay, _), parameters in groups.items()
    ]


def phase(step: int, kinds: Sequence[bool], lengths: Sequence[int]) -> tuple[int, int]:
    """Find the phase that a step lies in: the epochs of one kind around it.

    Args:
        step: from 0.
        kinds: of each epoch, whether it is one of texts alone.
        lengths: of each epoch, in steps.

    Returns:
        The step's number within its phase, from 0, and the phase's steps.
    """
    begin = 0
    for _, epochs in groupby(zip(kinds, lengths, strict=True), key=itemgetter(0)):
        length = sum(steps for _, steps in epochs)
        if step < begin + length:
            return step - begin, length
        begin += length
    raise ValueError(f"the run has {begin} steps, so there is no step {step}")


def schedule(step: int, steps: int, warmup: int) -> float:
    """Return the share of the rate for a step: linear warm-up, then cosine to a hundredth.

    Args:
        step: from 0.
        steps: of the whole phase.
        warmup: steps, at most half of the phase.
    """
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2


class Average:
    """Exponential moving average of a model's weights and statistics.

    Args:
        model: whose average it is.
        decay: weight of what was there before; the first update copies.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move a little towards the model as it is now."""
        state: Mapping[str, Tensor] = model.state_dict()
        names = [name for name, value in state.items() if value.is_floating_point()]
        share = 1 - self.decay if self.updates else 1.0
        torch._foreach_lerp_([_own(self.values[name]) for name in names], [_own(state[name]) for name in names], share)
        for name in state.keys() - set(names):  # counters
            self.values[name].copy_(state[name])
        self.updates += 1


def _own(value: Tensor) -> Tensor:
    """This process's share of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value

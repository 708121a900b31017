"""Parameter groups, the learning rate schedule, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from distill.config import OptimConfig, Stage
from distill.training.task import DistillTask


def parameter_groups(task: DistillTask, optim: OptimConfig) -> list[dict[str, object]]:
    """Group parameters by learning rate and by weight decay.

    Only the weights of linear layers and convolutions decay: parameters named `weight` with two or more dimensions, and
    not those of embeddings. Biases, norms, scales, positions and tokens don't, whatever a trunk calls them.

    Returns:
        Groups with `params`, `lr`, `weight_decay`, and `rate`, the base rate of the schedule.
    """
    rates = {"model.image.trunk.": optim.lr_trunk, "model.text.": optim.lr_text or optim.lr}
    groups: dict[tuple[float, float, bool], list[Tensor]] = {}
    for name, parameter in task.named_parameters():
        rate = next((rate for part, rate in rates.items() if name.startswith(part)), optim.lr)
        owner, _, last = name.rpartition(".")
        decays = (
            parameter.ndim >= 2
            and last in ("weight", "in_proj_weight")  # the second is nn.MultiheadAttention's
            and not isinstance(task.get_submodule(owner), nn.Embedding)
        )
        # Sharded and plain tensors can't be updated in one call.
        key = (rate, optim.weight_decay if decays else 0.0, isinstance(parameter, DTensor))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "rate": rate, "weight_decay": decay}
        for (rate, decay, _), parameters in groups.items()
    ]


def rate_factors(stages: Sequence[Stage], lengths: Sequence[int], optim: OptimConfig) -> Iterator[float]:
    """Yield the factor of the learning rates for each step of a run.

    Consecutive epochs of one kind, with photos or with texts only, are a phase with its own schedule.

    Args:
        stages: the stage of each epoch.
        lengths: steps of each epoch.
        optim: sets the schedule and the warmup.
    """
    for _, epochs in groupby(zip(stages, lengths, strict=True), key=lambda epoch: epoch[0].texts_only):
        phase = list(epochs)
        steps, position = sum(length for _, length in phase), 0
        for stage, length in phase:
            for step in range(position, position + length):
                yield stage.rate * schedule(step, steps, optim.warmup, optim.schedule)
            position += length


def schedule(step: int, steps: int, warmup: int, kind: str = "cosine") -> float:
    """Return the factor of the learning rate: linear warmup, then what `OptimConfig.schedule` says.

    Args:
        step: number within the phase, starting at 0.
        steps: number of steps in the phase.
        warmup: warmup steps, limited to half of the phase.
        kind: `cosine` or `linear`, which fall to a hundredth, or `constant`.
    """
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    falling = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[kind]
    return 0.01 + 0.99 * falling


class EMA:
    """Exponential moving average of a model's weights and BatchNorm statistics.

    The decay of update number n, starting at 0, is min(decay, (1 + n) / (10 + n)), as in TensorFlow's
    `ExponentialMovingAverage`: a tenth of all updates so far weighs most. With a constant decay d, a run of N steps
    would keep the share d^N of untrained weights.

    It gives the same averages as `torch.optim.swa_utils.AveragedModel` (a test compares them), but keeps tensors by
    name instead of a copy of the module. A copied module would include what training adds to it: hooks of fake
    quantization, compiled code, recomputed activations, and the parameter groups of FSDP. Tensors are also what run
    checkpoints store.

    Args:
        model: the model to average.
        decay: largest weight of the previous average; the first update copies the model.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the model's current weights."""
        state: Mapping[str, Tensor] = model.state_dict()
        names = [name for name, value in state.items() if value.is_floating_point()]
        ramped = min(self.decay, (1 + self.updates) / (10 + self.updates))
        share = 1 - ramped if self.updates else 1.0
        torch._foreach_lerp_(
            [_local(self.values[name]) for name in names], [_local(state[name]) for name in names], share
        )
        for name in state.keys() - set(names):  # counters
            self.values[name].copy_(state[name])
        self.updates += 1


def _local(value: Tensor) -> Tensor:
    """Return this process's shard of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value

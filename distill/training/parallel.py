"""One task on one process or many: whole copies (DDP), or a share of the weights each (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from distill.batch import Batch
from distill.distributed import size
from distill.training.task import DistillTask


class Parallel:
    """A task whose gradients become the mean over all processes.

    Args:
        task: on its device; under `fsdp` its towers' parameters are replaced by shares.
        strategy: `ddp` or `fsdp`; without other processes the task is left as it is.
    """

    def __init__(self, task: DistillTask, strategy: str) -> None:
        self.task = task
        self.module: nn.Module = task
        self.sharded: list[FSDPModule] = []
        if size() == 1:
            return
        if strategy == "fsdp":
            self.sharded = [_shard(task.model.image), _shard(task.model.text)]
        else:
            # Stages freeze parts and learn from texts alone, so not every parameter takes part in every step.
            self.module = DistributedDataParallel(task, find_unused_parameters=True)

    def __call__(self, batch: Batch, gradients: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the task's `forward`, of which `loss` may be sent back."""
        losses: dict[str, Tensor] = self.module(batch, gradients)
        return losses

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Let gradients add up on each process; the next backward pass outside brings all of them together."""
        if isinstance(self.module, DistributedDataParallel):
            with self.module.no_sync():
                yield
            return
        for tower in self.sharded:
            tower.set_requires_gradient_sync(False)
        yield
        for tower in self.sharded:
            tower.set_requires_gradient_sync(True)

    def gather(self) -> None:
        """Average the gradients that no hook does: under FSDP those of the losses' own parameters."""
        if self.sharded:
            for _, parameter in self.task.loss_parameters():
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= size()

    def clip(self, limit: float) -> Tensor:
        """Scale all gradients down to a norm of `limit` together; returns the norm that they had."""
        parameters = [p for p in self.task.parameters() if p.grad is not None]
        if not self.sharded:
            return nn.utils.clip_grad_norm_(parameters, limit)
        gradients = [p.grad for p in parameters if p.grad is not None]
        shares = [g.to_local() for g in gradients if isinstance(g, DTensor)]
        square = nn.utils.get_total_norm(shares).square()
        distributed.all_reduce(square)
        whole = [g for g in gradients if not isinstance(g, DTensor)]
        norm = (square + nn.utils.get_total_norm(whole).square()).sqrt() if whole else square.sqrt()
        nn.utils.clip_grads_with_norm_([p for p in parameters if isinstance(p, DTensor)], limit, norm)
        nn.utils.clip_grads_with_norm_([p for p in parameters if not isinstance(p, DTensor)], limit, norm)
        return norm


def _shard(tower: nn.Module) -> FSDPModule:
    """Share a tower's weights among the processes, block by block, so that one block at a time is whole."""
    trunk = getattr(tower, "trunk", tower)
    for name in ("blocks", "stages"):
        for block in getattr(trunk, name, ()):
            fully_shard(block)
    return fully_shard(tower)


def whole(state: Any) -> Any:
    """Join the shares of all tensors in a nested state, onto the CPU; every process must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    return type(state)(whole(value) for value in state) if isinstance(state, list | tuple) else state


@torch.no_grad()
def fill(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into targets of the same names, of which each may be a share.

    Raises:
        ValueError: names or shapes differ.
    """
    if targets.keys() != values.keys():
        raise ValueError(f"{sorted(targets.keys() ^ values.keys())[:3]} are in one of both only")
    for name, target in targets.items():
        if target.shape != values[name].shape:
            raise ValueError(f"{name} is {tuple(values[name].shape)}, not {tuple(target.shape)}")
        target.copy_(as_shared(values[name], target))


def as_shared(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor on the device of another, cut into shares as that one is."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value


def restore(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state whose tensors `whole` joined."""
    parameters: Iterable[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    shared = {
        number: {
            key: as_shared(value, parameter) if isinstance(value, Tensor) and value.shape == parameter.shape else value
            for key, value in state["state"][number].items()
        }
        for number, parameter in enumerate(parameters)
        if number in state["state"]
    }
    optimizer.load_state_dict({"state": shared, "param_groups": state["param_groups"]})

"""Run a task on one process or several, with copied weights (DDP) or sharded weights (FSDP2)."""

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
from distill.distributed import joined, size
from distill.training.task import DistillTask


class Parallel:
    """A task whose gradients are averaged over all processes.

    Args:
        task: the task, on its device; `fsdp` replaces its towers' parameters by shards.
        strategy: `ddp` or `fsdp`; ignored if torchrun didn't start this process.
    """

    def __init__(self, task: DistillTask, strategy: str) -> None:
        self.task = task
        self.module: nn.Module = task
        self.sharded: list[FSDPModule] = []
        if not joined():
            return
        if strategy == "fsdp":
            # DDP does this itself. Processes may have aligned the student by different photos.
            for value in task.state_dict().values():
                distributed.broadcast(value, 0)
            self.sharded = [_shard(task.model.image), _shard(task.model.text)]
        else:
            # Stages freeze parts or have no photos, so not every parameter is used in every step.
            self.module = DistributedDataParallel(task, find_unused_parameters=True)

    def __call__(self, batch: Batch, gradients: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the task's `forward`; call `backward` on `loss`."""
        losses: dict[str, Tensor] = self.module(batch, gradients)
        return losses

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Accumulate gradients locally; the next backward pass outside this context averages all of them."""
        if isinstance(self.module, DistributedDataParallel):
            with self.module.no_sync():
                yield
            return
        for tower in self.sharded:
            tower.set_requires_gradient_sync(False)
        yield
        for tower in self.sharded:
            tower.set_requires_gradient_sync(True)

    def average_loss_gradients(self) -> None:
        """Average the gradients of the losses' own parameters, which FSDP doesn't."""
        if self.sharded:
            for _, parameter in self.task.loss_parameters():
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= size()

    def clip(self, limit: float) -> Tensor:
        """Clip the norm of all gradients to `limit`; returns the norm before clipping."""
        parameters = [p for p in self.task.parameters() if p.grad is not None]
        if not self.sharded:
            return nn.utils.clip_grad_norm_(parameters, limit)
        gradients = [p.grad for p in parameters if p.grad is not None]
        shards = [g.to_local() for g in gradients if isinstance(g, DTensor)]
        # Without shards, because both towers are frozen, this would be on the CPU, where NCCL can't sum it.
        square = nn.utils.get_total_norm(shards).square().to(self.task.model.logit_scale.device)
        distributed.all_reduce(square)
        plain = [g for g in gradients if not isinstance(g, DTensor)]
        norm = (square + nn.utils.get_total_norm(plain).square()).sqrt() if plain else square.sqrt()
        nn.utils.clip_grads_with_norm_([p for p in parameters if isinstance(p, DTensor)], limit, norm)
        nn.utils.clip_grads_with_norm_([p for p in parameters if not isinstance(p, DTensor)], limit, norm)
        return norm


def _shard(tower: nn.Module) -> FSDPModule:
    """Shard a tower's weights block by block, so that only one block is complete at a time."""
    trunk = getattr(tower, "trunk", tower)
    for name in ("blocks", "stages"):
        for block in getattr(trunk, name, ()):
            fully_shard(block)
    return fully_shard(tower)


def gather_state(state: Any) -> Any:
    """Gather a nested state's tensors, complete and on the CPU; every process must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: gather_state(value) for key, value in state.items()}
    return type(state)(gather_state(value) for value in state) if isinstance(state, list | tuple) else state


@torch.no_grad()
def load_state(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy complete tensors into targets with the same names, which may be sharded.

    Raises:
        ValueError: names or shapes differ.
    """
    if targets.keys() != values.keys():
        raise ValueError(f"{sorted(targets.keys() ^ values.keys())[:3]} exist on one side only")
    for name, target in targets.items():
        if target.shape != values[name].shape:
            raise ValueError(f"{name} is {tuple(values[name].shape)}, not {tuple(target.shape)}")
        target.copy_(shard_like(values[name], target))


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """Move a complete tensor to the device of another, and shard it in the same way."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value


def gather_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, dict[str, Any]]:
    """Gather an optimizer's state by the names of a module's parameters; every process must call it.

    The positions that `Optimizer.state_dict` uses change with the number of processes, because sharded parameters are
    in separate groups.
    """
    state = optimizer.state
    return {name: gather_state(dict(state[value])) for name, value in module.named_parameters() if value in state}


def load_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, values: Mapping[str, Mapping[str, Any]]
) -> None:
    """Load what `gather_optimizer` returned; rates and other settings of the groups stay as they are.

    Raises:
        ValueError: a parameter isn't the module's, or has another shape.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    if unknown := values.keys() - set(names.values()):
        raise ValueError(f"the optimizer has no {min(unknown)}")
    state: dict[int, dict[str, Any]] = {}
    parameters: Iterable[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        if (name := names[parameter]) not in values:
            continue
        state[number] = dict(values[name])
        for key, value in values[name].items():
            if key == "step" or not isinstance(value, Tensor):
                continue
            if value.shape != parameter.shape:
                raise ValueError(f"{key} of {name} is {tuple(value.shape)}, not {tuple(parameter.shape)}")
            state[number][key] = shard_like(value, parameter)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

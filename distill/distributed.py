"""Several processes that train one student, and tensors gathered from all of them.

Losses compare each process's own rows with the columns of all processes. The gradient of a gathered tensor is the sum
over all processes, and DistributedDataParallel averages the gradients of parameters. Together they give exactly the
gradients of one process with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from mobileclip.errors import ConfigError, PocketclipError, one_line

Value = TypeVar("Value")

PREPARATION = timedelta(hours=24)
"""How long processes wait for each other outside of steps, such as while the first one computes teacher embeddings."""

_patient: distributed.ProcessGroup | None = None
"""The group that waits so long; None if there is only one process."""

Gather = Callable[[Tensor], Tensor]
"""Gathers a tensor (n, …) of every process into (processes · n, …), ordered by rank."""


class LostProcessError(PocketclipError):
    """Another process of the run ended, or doesn't answer."""


def alone(rows: Tensor) -> Tensor:
    """The `Gather` of a single process: returns its own rows."""
    return rows


def everyone(rows: Tensor) -> Tensor:
    """Gather the rows of all processes; gradients flow back to the process that a row came from.

    Every process must have the same number of rows.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    if not rows.requires_grad:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)
    joined: Tensor = _GatherRows.apply(rows)
    return joined


class _GatherRows(torch.autograd.Function):
    """all_gather with a gradient, made of operations that every backend has."""

    @staticmethod
    def forward(ctx: object, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total.chunk(distributed.get_world_size())[distributed.get_rank()]


def rank() -> int:
    """Return the number of this process, 0 if there is only one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def joined() -> bool:
    """Whether this process was started by torchrun, perhaps as the only one."""
    return distributed.is_initialized()


def barrier() -> None:
    """Wait until every process has arrived here, for up to `PREPARATION`."""
    if size() > 1:
        distributed.barrier(group=_patient)


def from_first_process(value: Value) -> Value:
    """Return the first process's value on every process. The value must be picklable."""
    if size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, group=_patient)
    return box[0]


def mean(values: Tensor) -> Tensor:
    """Average a tensor over all processes."""
    if size() == 1:
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total / size()


@contextmanager
def first_process_first() -> Iterator[None]:
    """Run a block on the first process and then on all others, which find its results in caches."""
    if rank():
        barrier()
    yield
    if not rank():
        barrier()


def seed_all(*numbers: int) -> None:
    """Seed torch's generators on every device with several numbers and the rank of this process."""
    state = np.random.SeedSequence((*numbers, rank())).generate_state(2)
    torch.manual_seed(int(state[0]) << 32 | int(state[1]))


@contextmanager
def joined_processes(device: str = "auto", timeout: float = 60.0) -> Iterator[torch.device]:
    """Join the other processes that `torchrun` started, if any; yields the device of this process.

    Args:
        device: see `choose_device`.
        timeout: minutes that a process waits for the others in a step, see `OptimConfig.timeout`.

    Raises:
        ConfigError: this machine has no such device.
        LostProcessError: another process ended, or didn't answer in time.
    """
    global _patient
    chosen = choose_device(device)
    if "RANK" not in os.environ:
        yield chosen
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=timedelta(minutes=timeout))
        group = distributed.new_group(backend="gloo", timeout=PREPARATION)
        _patient = group if isinstance(group, distributed.ProcessGroup) else None  # every process is a member
        yield chosen
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            raise LostProcessError(
                f"another process of this run ended, or doesn't answer ({one_line(error)}); see the messages before; "
                "torchrun --max-restarts restarts a run, which resumes from its last checkpoint"
            ) from error
        raise
    finally:
        _patient = None
        if distributed.is_initialized():
            distributed.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """Return the device `cpu`, `cuda` or `mps`; for `auto`, the first available one of cuda, mps and cpu.

    Raises:
        ConfigError: this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_available in available.items() if is_available)
    if not available[name]:
        raise ConfigError(f"optim.device: this machine has no {name}")
    return torch.device(name)

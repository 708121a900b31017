"""Several processes that train one student: who takes part, and batches joined over all of them.

Losses here compare each process's own rows with everyone's columns. The gradient of a joined tensor sums what every
process sends back, and DistributedDataParallel averages parameters' gradients, so that together they are exactly the
gradients of one process with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

Gather = Callable[[Tensor], Tensor]
"""Joins a tensor (n, …) of every process into (processes · n, …), in the order of the ranks."""


def alone(rows: Tensor) -> Tensor:
    """The `Gather` of a single process: its own rows are everyone's."""
    return rows


def everyone(rows: Tensor) -> Tensor:
    """Join the rows of all processes; gradients flow back to the process that a row came from.

    Every process must bring the same number of rows.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    if not rows.requires_grad:
        parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)
    joined: Tensor = _Join.apply(rows)
    return joined


class _Join(torch.autograd.Function):
    """all_gather with a gradient, in operations that every backend has."""

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
    """Number of this process, 0 where there is one alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def joined_processes() -> Iterator[None]:
    """Join the processes that `torchrun` started; nothing happens without it."""
    if "RANK" not in os.environ:
        yield
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()

"""Gradient caching: exact contrastive gradients of batches whose activations don't fit in memory.

GradCache (Gao et al. 2021, section 3) has three steps. Run all micro-batches through the towers and keep only their
embeddings. Compute the loss of the full batch and its gradients with respect to the embeddings. Run each micro-batch
again and backpropagate the gradients of its embeddings. This takes two forward passes, but memory for the activations
of one micro-batch only.

Both passes of a micro-batch use the same dropout and masks. BatchNorm normalizes each micro-batch separately, which
differs from the unsplit batch, and updates its running statistics only in the second pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distill.batch import Batch
from distill.distributed import seed_all
from distill.training.parallel import Parallel
from distill.training.qat import observers


def backward_in_parts(
    parallel: Parallel, batch: Batch, size: int, seed: tuple[int, ...], scaled: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Accumulate the gradients of a full batch in the parameters; returns the same as `DistillTask.losses`.

    Args:
        parallel: the task.
        batch: the full batch of this process.
        size: photos per micro-batch, or texts if there are no photos.
        seed: seed of dropout and masks.
        scaled: scales the loss before the backward pass, for float16.
    """
    task, parts = parallel.task, split(batch, size)
    with torch.no_grad(), untouched_statistics(task):
        encoded = []
        for number, part in enumerate(parts):
            seed_all(*seed, number)
            encoded.append(task.encode(part.pixels, part.tokens))
    vectors = {name: torch.cat([part[name] for part in encoded]).requires_grad_() for name in encoded[0]}
    losses = task.losses(vectors, batch)
    learned = {name: value for name, value in task.loss_parameters() if value.requires_grad}
    wanted = {**vectors, **learned}
    loss = scaled(losses["loss"]) if scaled else losses["loss"]
    gradients = dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values()), allow_unused=True), strict=True))
    done = dict.fromkeys(vectors, 0)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        pull = {}
        for name in vectors:
            rows = slice(done[name], done[name] + len(encoded[number][name]))
            done[name] = rows.stop
            if (gradient := gradients[name]) is not None:
                pull[name] = gradient[rows]
        if last:  # once per batch, when gradients are averaged over processes
            pull.update({name: value for name in learned if (value := gradients[name]) is not None})
        seed_all(*seed, number)
        with nullcontext() if last else parallel.no_sync():
            pulled = parallel(part, pull)["loss"]
            if pulled.requires_grad:  # not if both towers are frozen
                with untouched_statistics(task):  # the backward pass may recompute activations
                    pulled.backward()
    return {**losses, "loss": losses["loss"].detach()}


def split(batch: Batch, size: int) -> list[Batch]:
    """Split photos and texts into the same number of micro-batches of nearly equal size."""
    count = -(-len(batch) // size)
    pixels, tokens = batch.pixels.tensor_split(count), batch.tokens.tensor_split(count)
    return [dataclasses.replace(batch, pixels=p, tokens=t) for p, t in zip(pixels, tokens, strict=True)]


@contextmanager
def untouched_statistics(module: nn.Module) -> Iterator[None]:
    """Normalize by the batch, as in training, without updating running statistics and quantization ranges."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    ranges = observers(module)
    for observer in ranges:
        observer.disable_observer()
    try:
        yield
    finally:
        for observer in ranges:
            observer.enable_observer()
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches

"""Gradient caching: exact contrastive gradients of batches whose activations do not fit into memory.

GradCache (Gao et al. 2021, section 3): run all parts through the towers without keeping anything but their vectors;
take the loss of the whole batch, and its gradients at the vectors; run each part once more and send its vectors'
gradients back through the towers. Two forward passes instead of one, and activations of one part at a time.

Both passes of a part draw the same dropout and the same masks. BatchNorm normalises each part by that part's own
statistics, so a batch in parts is not the unsplit batch to it; its running statistics are updated in the second pass
alone.
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
    """Leave in the parameters the gradients of a whole batch; returns what `DistillTask.losses` does.

    Args:
        parallel: the task.
        batch: the whole batch of this process.
        size: photos in a part, or texts where there are no photos.
        seed: decides dropout and masks.
        scaled: multiplies the loss before its gradients are taken, as float16 needs.
    """
    task, parts = parallel.task, split(batch, size)
    with torch.no_grad(), untouched_statistics(task):
        encoded = []
        for number, part in enumerate(parts):
            seed_all(*seed, number)
            encoded.append(task.encode(part.pixels, part.tokens))
    vectors = {name: torch.cat([part[name] for part in encoded]).requires_grad_() for name in encoded[0]}
    losses = task.losses(vectors, batch)
    learnt = {name: value for name, value in task.loss_parameters() if value.requires_grad}
    wanted = {**vectors, **learnt}
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
        if last:  # once a batch, and where the processes' gradients are brought together
            pull.update({name: value for name in learnt if (value := gradients[name]) is not None})
        seed_all(*seed, number)
        with nullcontext() if last else parallel.apart():
            parallel(part, pull)["loss"].backward()
    return {**losses, "loss": losses["loss"].detach()}


def split(batch: Batch, size: int) -> list[Batch]:
    """Cut photos and texts into the same number of parts, each of nearly the same length."""
    count = -(-len(batch) // size)
    pixels, tokens = batch.pixels.tensor_split(count), batch.tokens.tensor_split(count)
    return [dataclasses.replace(batch, pixels=p, tokens=t) for p, t in zip(pixels, tokens, strict=True)]


@contextmanager
def untouched_statistics(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch, as in training, and leave running statistics and ranges as they are."""
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

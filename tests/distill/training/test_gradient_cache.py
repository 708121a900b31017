"""Gradient caching gives the gradients of the whole batch, in float64, for every loss."""

import numpy as np
import pytest
import torch

from distill.config import LossConfig
from distill.distributed import seed_all
from distill.training.gradient_cache import backward_in_parts, split, untouched_statistics
from distill.training.memory import recompute_activations
from distill.training.parallel import Parallel
from distill.training.qat import observers
from distill.training.task import DistillTask
from tests.distill.training.toys import DIM, EVERY_LOSS, OTHER, doubled, toy_batch, toy_model


def task_of(trunk: str = "test_vit", dropout: float = 0.0, **weights: float) -> DistillTask:
    torch.manual_seed(1)
    return DistillTask(toy_model(trunk, dropout), LossConfig(weights), (DIM, OTHER)).double().train()


def gradients(task: DistillTask) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def reference(task: DistillTask, batch, size: int, seed: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """All parts in one graph, under the same random numbers: no caching at all."""
    encoded = []
    for number, part in enumerate(split(batch, size)):
        seed_all(*seed, number)
        encoded.append(task.encode(part.pixels, part.tokens))
    losses = task.losses({name: torch.cat([part[name] for part in encoded]) for name in encoded[0]}, batch)
    losses["loss"].backward()
    return losses


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.allclose(got[name], value, rtol=1e-7, atol=1e-10), name


@pytest.mark.parametrize("name", [*EVERY_LOSS, "all"])
def test_every_loss_has_the_gradients_of_the_unsplit_batch(name: str) -> None:
    weights = EVERY_LOSS if name == "all" else {**dict.fromkeys(EVERY_LOSS, 0.0), name: 1.0}
    masks = weights["masked_feature"] > 0  # drawn a part at a time, so only the parts' own graph has the same
    task, batch = task_of(**weights), doubled(toy_batch(n=7, extra=5))
    wanted_losses = reference(task, batch, 3, (0, 9)) if masks else task(batch)
    if not masks:
        wanted_losses["loss"].backward()
    wanted = gradients(task)
    task.zero_grad()
    losses = backward_in_parts(Parallel(task, "ddp"), batch, 3, (0, 9))
    assert losses.keys() == wanted_losses.keys()
    for term, value in losses.items():
        assert float(value) == pytest.approx(float(wanted_losses[term].detach()), rel=1e-9), term
    assert_same(gradients(task), wanted)
    assert wanted


@pytest.mark.parametrize("size", [1, 4, 6, 50])
def test_parts_may_be_of_any_size(size: int) -> None:
    task, batch = task_of(**EVERY_LOSS), doubled(toy_batch(n=6, extra=9))
    reference(task, batch, size, (4,))
    wanted = gradients(task)
    task.zero_grad()
    backward_in_parts(Parallel(task, "ddp"), batch, size, (4,))
    assert_same(gradients(task), wanted)


def test_texts_alone_are_split_too() -> None:
    task, batch = task_of(**EVERY_LOSS), doubled(toy_batch(n=0, extra=11))
    for parameter in task.model.image.parameters():
        parameter.requires_grad_(False)
    task(batch)["loss"].backward()
    wanted = gradients(task)
    task.zero_grad()
    backward_in_parts(Parallel(task, "ddp"), batch, 4, (0,))
    assert_same(gradients(task), wanted)


def test_dropout_is_drawn_alike_in_both_passes() -> None:
    task, batch = task_of(dropout=0.3, **EVERY_LOSS), doubled(toy_batch(n=7))
    reference(task, batch, 2, (0, 5))
    wanted = gradients(task)
    for seed, same in (((0, 5), True), ((0, 6), False)):
        task.zero_grad()
        backward_in_parts(Parallel(task, "ddp"), batch, 2, seed)
        name = "model.text.blocks.0.qkv.weight"
        assert torch.allclose(gradients(task)[name], wanted[name], rtol=1e-7, atol=1e-10) == same


def test_batch_norm_normalises_each_part_and_counts_it_once() -> None:
    task, batch = task_of("test_efficientnet", **EVERY_LOSS), doubled(toy_batch(n=8))
    start = {name: value.clone() for name, value in task.named_buffers()}
    reference(task, batch, 4, (0,))
    wanted, statistics = gradients(task), {name: value.clone() for name, value in task.named_buffers()}
    assert any(not torch.equal(statistics[name], start[name]) for name in start)
    task.zero_grad()
    for name, value in task.named_buffers():
        value.copy_(start[name])
    backward_in_parts(Parallel(task, "ddp"), batch, 4, (0,))
    assert_same(gradients(task), wanted)
    for name, value in task.named_buffers():
        assert torch.allclose(value.double(), statistics[name].double(), rtol=1e-9), name
    counts = [value for name, value in task.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts and all(int(value) == 4 for value in counts)  # two parts, each with its masked photos


def test_statistics_stay_while_they_are_not_to_change() -> None:
    norm = torch.nn.BatchNorm2d(3)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with untouched_statistics(norm):
        seen = norm(torch.randn(4, 3, 5, 5) + 7)
    assert abs(float(seen.mean().detach())) < 1e-5, "normalized by the batch"
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm(torch.randn(4, 3, 5, 5) + 7)
    assert int(norm.num_batches_tracked) == 1 and float(norm.running_mean.mean()) == pytest.approx(0.7, abs=0.1)


def test_a_scaled_loss_scales_the_gradients() -> None:
    task, batch = task_of(**EVERY_LOSS), doubled(toy_batch(n=6))
    backward_in_parts(Parallel(task, "ddp"), batch, 2, (0,))
    plain = gradients(task)
    task.zero_grad()
    backward_in_parts(Parallel(task, "ddp"), batch, 2, (0,), lambda loss: 1024 * loss)
    assert_same({name: value / 1024 for name, value in gradients(task).items()}, plain)


def test_no_part_is_larger_than_the_limit_and_none_is_unneeded() -> None:
    for n in range(1, 12):
        for size in range(1, 13):
            parts = split(toy_batch(n=n), size)
            assert all(len(part) <= size for part in parts) and sum(map(len, parts)) == n
            assert len(parts) == int(np.ceil(n / size))


def test_ranges_of_activations_stay_while_they_are_not_to_change() -> None:
    task, batch = DistillTask(toy_model("test_efficientnet"), LossConfig(), (DIM, OTHER), quantize="int8"), toy_batch()
    task.train().encode(batch.pixels, batch.tokens)
    ranges = [observer.activation_post_process.max_val.clone() for observer in observers(task)]
    with untouched_statistics(task):
        task.encode(3 * batch.pixels, batch.tokens)
    assert ranges and all(
        torch.equal(before, observer.activation_post_process.max_val)
        for before, observer in zip(ranges, observers(task), strict=True)
    )
    task.encode(3 * batch.pixels, batch.tokens)
    assert not torch.equal(ranges[0], observers(task)[0].activation_post_process.max_val)


@pytest.mark.parametrize("trunk", ["test_vit", "test_efficientnet"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activations_computed_again_change_neither_gradients_nor_statistics(trunk: str, dropout: float) -> None:
    """The backward pass of each part runs the blocks a third time: with the same dropout, and BatchNorm counts once."""
    found = []
    for again in (False, True):
        task, batch = task_of(trunk, dropout, **EVERY_LOSS), doubled(toy_batch(n=7))
        if again:
            recompute_activations(task.model)
            backward_in_parts(Parallel(task, "ddp"), batch, 3, (0, 5))
        else:
            reference(task, batch, 3, (0, 5))
        found.append((gradients(task), {name: value.clone() for name, value in task.named_buffers()}))
    assert_same(found[1][0], found[0][0])
    for name, value in found[0][1].items():
        assert torch.allclose(found[1][1][name].double(), value.double(), rtol=1e-9), name


def drop_paths(task: DistillTask, rate: float) -> int:
    """Skip residual branches of the image trunk at random, as stochastic depth does; returns their number."""
    from timm.layers import DropPath

    count = 0
    for block in task.model.image.trunk.blocks:
        for name in ("drop_path1", "drop_path2"):
            setattr(block, name, DropPath(rate).train())
            count += 1
    return count


def test_branches_are_dropped_alike_in_both_passes() -> None:
    task, batch = task_of(**EVERY_LOSS), doubled(toy_batch(n=7))
    assert drop_paths(task, 0.5) == 4
    reference(task, batch, 3, (0, 5))
    wanted = gradients(task)
    task.zero_grad()
    backward_in_parts(Parallel(task, "ddp"), batch, 3, (0, 5))
    assert_same(gradients(task), wanted)


def test_parts_of_towers_that_are_frozen_teach_the_scale_alone() -> None:
    """With nothing to learn in either tower, no part has anything to backpropagate."""
    task, batch = task_of(**EVERY_LOSS), doubled(toy_batch(n=7))
    for tower in (task.model.image, task.model.text):
        tower.requires_grad_(False)
    reference(task, batch, 3, (0, 5))
    wanted = gradients(task)
    task.zero_grad()
    backward_in_parts(Parallel(task, "ddp"), batch, 3, (0, 5))
    assert "model.logit_scale" in wanted
    assert_same(gradients(task), wanted)

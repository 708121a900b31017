"""Quantization-aware training: what is rounded, how it is rounded, and that gradients pass."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill.config import LossConfig, OptimConfig
from distill.training.qat import LAYERS, observers, round_channels, rounded_weights
from distill.training.task import DistillTask
from distill.training.trainer import Trainer
from mobileclip.errors import ConfigError
from tests.distill.training.toys import DIM, EVERY_LOSS, OTHER, ToyFeed, toy_batch, toy_model, toy_recipe


def task_of(quantize: str, trunk: str = "test_efficientnet") -> DistillTask:
    return DistillTask(toy_model(trunk), LossConfig(), (DIM, OTHER), quantize=quantize)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 3, 3), (6, 1, 5)])
def test_weights_are_rounded_for_each_channel(shape: tuple[int, ...]) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight[1] *= 1000
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    got = round_channels(torch.from_numpy(weight)).numpy().reshape(rows.shape)
    # Where a value lies midway between two levels, float32 may take either.
    near = np.abs(rows / step - np.rint(rows / step)) < 0.499
    assert (np.abs(got / step - np.rint(rows / step))[near] < 1e-3).all()
    assert (np.abs(got - rows) <= 0.5001 * step).all()
    assert np.abs(got / step - np.rint(got / step)).max() < 1e-3


def test_a_channel_of_zeros_stays_zero() -> None:
    assert not round_channels(torch.zeros(2, 3)).any()


def test_the_gradient_passes_straight_through() -> None:
    weight = torch.randn(4, 6, requires_grad=True)
    (round_channels(weight) * torch.arange(24.0).reshape(4, 6)).sum().backward()
    assert torch.equal(weight.grad, torch.arange(24.0).reshape(4, 6))


def test_the_towers_run_with_rounded_weights_and_keep_their_own() -> None:
    task, batch = task_of("weights").eval(), toy_batch()
    before = copy.deepcopy(task.model.state_dict())
    rounded = copy.deepcopy(task.model).eval()
    for module in rounded.modules():
        if isinstance(module, LAYERS):
            module.weight.data = round_channels(module.weight.data)
    got = task.encode(batch.pixels, batch.tokens)
    assert torch.allclose(got["image"], rounded.encode_image(batch.pixels), atol=1e-6)
    assert torch.allclose(got["text"], rounded.encode_text(batch.tokens), atol=1e-6)
    assert not torch.allclose(got["image"], task.model.encode_image(batch.pixels), atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in task.model.state_dict().items())


def test_folding_batchnorm_changes_no_rounded_weight() -> None:
    layer, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8).eval()
    norm.weight.data.uniform_(-2, 2)
    norm.running_var.uniform_(0.1, 5)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None, None]
    assert torch.allclose(round_channels(layer.weight * scale), round_channels(layer.weight) * scale, atol=1e-5)


def test_activations_are_rounded_between_the_ends_of_their_range() -> None:
    task, batch = task_of("int8").train(), toy_batch()
    seen: dict[str, torch.Tensor] = {}
    trunk = task.model.image.trunk
    trunk.conv_stem.register_forward_pre_hook(lambda layer, inputs: seen.update(pixels=inputs[0]))
    task.encode(batch.pixels, batch.tokens)
    step = (batch.pixels.max() - batch.pixels.min()) / 255
    assert len(seen["pixels"].unique()) <= 256
    assert (seen["pixels"] - batch.pixels).abs().max() <= 0.51 * step
    layers = [module for module in task.model.image.modules() if isinstance(module, LAYERS)]
    assert len(observers(task)) == len(layers) == len(rounded_weights(task.model.image))


def test_every_weight_learns() -> None:
    task, batch = task_of("int8").train(), toy_batch()
    task(batch)["loss"].backward()
    missing = [name for name, p in task.named_parameters() if p.grad is None and not name.endswith("logit_scale")]
    assert not missing


def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path) -> None:
    loss = {**EVERY_LOSS, "posterior": 0.0, "bank": 4}
    recipe = toy_recipe(tmp_path / "recipe", **{"optim.quantize": "int8", "loss": loss})

    def trainer(name: str) -> Trainer:
        return Trainer(recipe, toy_model("test_efficientnet"), ToyFeed(), tmp_path / name)

    whole = trainer("whole")
    list(whole.run())
    first = trainer("parts")
    for progress in first.run():
        if progress.step == 2:
            break
    second = trainer("parts")
    assert second.resume()
    list(second.run())
    for (name, a), b in zip(whole.task.state_dict().items(), second.task.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("other", [{"compile": True}, {"strategy": "fsdp"}, {"micro_batch": 4}])
def test_what_does_not_go_with_it_is_refused(other: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"optim\.quantize"):
        OptimConfig(quantize="int8", **other)


def test_vectors_stay_near_those_that_are_not_rounded() -> None:
    task, plain, batch = task_of("int8").train(), task_of("no").train(), toy_batch(n=16)
    got, wanted = task.encode(batch.pixels, batch.tokens), plain.encode(batch.pixels, batch.tokens)
    for side in ("image", "text"):
        assert F.cosine_similarity(got[side], wanted[side]).min() > 0.97

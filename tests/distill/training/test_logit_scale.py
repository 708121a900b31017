"""The logit scale in every precision: its gradient, its bounds, and its way through a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.config import LossConfig
from distill.training.gradient_cache import backward_in_parts, split
from distill.training.parallel import Parallel
from distill.training.task import DistillTask
from distill.training.trainer import Trainer
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.towers.clip import CLIP, MAX_LOG_SCALE
from tests.distill.training.toys import DIM, EVERY_LOSS, OTHER, ToyFeed, toy_batch, toy_model, toy_recipe

PRECISIONS = ("fp32", "bf16", "fp16")
STARTS = (0.0, math.log(1 / 0.07), MAX_LOG_SCALE, 12.0)
"""The lower bound, CLIP's start, the upper bound, and a scale of e¹², which no float16 can hold."""
FACTOR = 2.0**16
"""What `torch.amp.GradScaler` multiplies the first loss by."""

Floats = NDArray[np.float64]


def student(trunk: str = "test_vit") -> CLIP:
    """A small model of the real class, whose vectors are float32 in every precision."""
    return CLIP(toy_model(trunk).config)


def float64(tensor: Tensor) -> Floats:
    return tensor.detach().double().numpy()


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def of_info_nce(image: Floats, text: Floats, log_scale: float) -> tuple[float, float]:
    """InfoNCE of pairs that all differ, and its derivative by the logarithm of the scale."""
    n, scale, loss, slope = len(image), math.exp(log_scale), 0.0, 0.0
    for cosines in (image @ text.T, text[:n] @ image.T):
        logits = scale * cosines
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(shifted).sum(axis=1)) + logits.max(axis=1)
        own = np.diagonal(cosines)
        loss += float((log_sums - scale * own).mean()) / 2
        slope += scale * float(((softmax(logits) * cosines).sum(axis=1) - own).mean()) / 2
    return loss, slope


def of_siglip(image: Floats, text: Floats, log_scale: float, bias: float) -> tuple[float, float]:
    """The pairwise sigmoid loss of pairs that all differ, and its derivative by the logarithm of the scale."""
    scale, cosines = math.exp(log_scale), image @ text.T
    sign = 2 * np.eye(*cosines.shape) - 1
    margin = sign * (scale * cosines + bias)
    slope = -sign * scale * cosines * np.exp(-np.logaddexp(0, margin))
    return float(np.logaddexp(0, -margin).sum()) / len(image), float(slope.sum()) / len(image)


@pytest.mark.parametrize("micro", [0, 3])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["contrastive", "siglip"])
def test_its_gradient_is_that_of_float64(name: str, precision: str, start: float, micro: int) -> None:
    """For the embeddings that the towers compute in this precision, with a loss scaled as float16 needs it."""
    weights = {**dict.fromkeys(EVERY_LOSS, 0.0), name: 1.0}
    task = DistillTask(student(), LossConfig(weights, bank=0), (DIM, OTHER), precision).train()
    batch = toy_batch(n=8)
    batch.groups[:] = torch.arange(8)
    with torch.no_grad():
        task.model.logit_scale.fill_(start)
    # Of the same parts: at float16, what a matrix product gives for a row may depend on how many rows it has.
    encoded = [task.encode(part.pixels, part.tokens) for part in (split(batch, micro) if micro else [batch])]
    image, text = (float64(torch.cat([part[name] for part in encoded])) for name in ("image", "text"))
    loss, slope = (
        of_info_nce(image, text, start) if name == "contrastive" else of_siglip(image, text, start, LossConfig().bias)
    )
    if micro:
        losses = backward_in_parts(Parallel(task, "ddp"), batch, micro, (0,), lambda value: FACTOR * value)
    else:
        losses = task(batch)
        (FACTOR * losses["loss"]).backward()
    gradient = task.model.logit_scale.grad
    assert gradient is not None and gradient.dtype == torch.float32
    assert float(losses["loss"].detach()) == pytest.approx(loss, rel=1e-4)
    assert float(gradient) / FACTOR == pytest.approx(slope, rel=2e-4)
    assert float(losses["logit_scale"]) == pytest.approx(math.exp(start), rel=1e-6)


def test_its_gradient_is_open_clips() -> None:
    from open_clip.loss import ClipLoss, SigLipLoss

    from distill.losses import info_nce, siglip

    random = torch.Generator().manual_seed(0)
    image, text = (torch.nn.functional.normalize(torch.randn(9, 16, generator=random).double()) for _ in range(2))
    ids, bias = torch.arange(9), torch.tensor(-10.0).double()
    for start in STARTS:
        slopes = []
        for ours in (True, False):
            log_scale = torch.tensor(start, dtype=torch.float64, requires_grad=True)
            scale = log_scale.exp()
            if ours:
                losses = info_nce(image, text, scale, ids), siglip(image, text, scale, bias, ids)
            else:
                losses = ClipLoss()(image, text, scale), SigLipLoss()(image, text, scale, bias)
            slopes.append([float(torch.autograd.grad(loss, log_scale, retain_graph=True)[0]) for loss in losses])
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-9)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("start", [-3.0, 2.0, 5.0, 12.0])
def test_it_is_between_1_and_100_after_every_step(precision: str, start: float, tmp_path: Path) -> None:
    """As in open_clip, wherever the student's weights came from."""
    bound = float(torch.tensor(math.inf).clamp_(0, math.log(100)))
    settings = {"loss": {"contrastive": 1.0, "feature": 0.0, "affinity": 0.0}, "optim.precision": precision}
    trainer = Trainer(toy_recipe(tmp_path, **settings, **{"optim.lr": 1.0}), student(), ToyFeed(3), tmp_path)
    with torch.no_grad():
        trainer.model.logit_scale.fill_(start)
    for step in trainer.run():
        assert math.isfinite(step.losses["loss"])
        assert 0 <= float(trainer.model.logit_scale.detach()) <= bound
    assert 0 <= float(trainer.student().logit_scale.detach()) <= bound


def test_a_step_that_overflows_float16_leaves_it_alone(tmp_path: Path) -> None:
    """The gradients of the towers are infinite, so nothing may move, and the next step has half the factor."""
    settings = {"loss": {"contrastive": 1.0, "feature": 0.0, "affinity": 0.0}, "optim.precision": "fp16"}
    trainer = Trainer(toy_recipe(tmp_path, **settings), student(), ToyFeed(2), tmp_path)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = {name: value.clone() for name, value in trainer.task.state_dict().items()}
    next(trainer.run())
    assert trainer.scaler.get_scale() == 2.0**59
    assert all(torch.equal(value, before[name]) for name, value in trainer.task.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_checkpoint_keeps_it_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    """Rounded to float16, the logarithm of 100 would be a scale of 100.03."""
    model = student("test_efficientnet")
    for value in (MAX_LOG_SCALE, math.log(1 / 0.07), 0.0):
        with torch.no_grad():
            model.logit_scale.fill_(value)
        save_checkpoint(model, b"a b\n", tmp_path, {}, dtype)
        again = load_checkpoint(tmp_path).model
        assert torch.equal(again.logit_scale, model.logit_scale)

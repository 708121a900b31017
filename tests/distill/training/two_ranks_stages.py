"""One of two processes that run every kind of stage; started by test_stages.py with a folder as argument."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.distributed import barrier, joined_processes, rank, size
from distill.training.parallel import gather_state
from distill.training.trainer import Trainer, TrainingError
from tests.distill.training.toys import EVERY_LOSS, RECIPE, ToyFeed, doubled, share, toy_batch, toy_model

STAGES: dict[str, dict[str, Any]] = {
    "trunk": {"px": 32, "frozen": ["image.trunk"]},
    "features": {"features": True},
    "features-image": {"features": True, "frozen": ["text."]},
    "texts": {"texts_only": True},
    "texts-part": {"texts_only": True, "frozen": ["text.token_embedding", "text.blocks.0"]},
    "image": {"px": 32, "frozen": ["image."]},
    "text": {"px": 32, "frozen": ["text."]},
    "scale": {"px": 32, "frozen": ["logit_scale"]},
    "only-scale": {"px": 32, "frozen": ["image.", "text."]},
    "all": {"px": 32},
    "text-again": {"px": 32, "frozen": ["text."]},
}
"""Every kind of stage by name, in an order in which parts are frozen, learn, and are frozen again."""

PLANS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vit": ("test_vit", tuple(STAGES)),
    "norms": ("test_efficientnet", ("trunk", "features", "texts", "texts-part", "image", "only-scale")),
}
"""A trunk, and the stages that train it one after the other. With BatchNorm, the trunk is frozen throughout: otherwise
each process normalizes by its own photos."""

STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp-parts": {"optim.micro_batch": 3},
    "fsdp": {"optim.strategy": "fsdp"},
    "fsdp-parts": {"optim.strategy": "fsdp", "optim.micro_batch": 3},
}
CASES = [f"{plan}-{strategy}" for plan in PLANS for strategy in STRATEGIES]
LOSSES = {**EVERY_LOSS, "masked_feature": 0.0, "posterior": 0.0, "bank": 4}
TEACHER = '[[open_clip]]\nmodel = "m"\n[optim]'
BATCH, STEPS = 10, 2
RESUMED, STOP = ("ddp", "fsdp"), 9
"""Strategies of runs that another number of processes resumes, and the step after which they do."""
UNEVEN = ("photo", "text")
"""What the second process lacks in batches that must be refused."""


class StageFeed(ToyFeed):
    """Noise for any stage; its last batch is as full as the others, as that of any feed."""

    def __init__(self, width: int) -> None:
        super().__init__(STEPS, BATCH)
        self.width = width

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        for step in range(first, self.count):
            whole = doubled(toy_batch(0 if stage.texts_only else self.n, self.extra, seed=1000 * epoch + step))
            if stage.features:
                random = torch.Generator().manual_seed(1000 * epoch + step)
                features = torch.randn(self.n, self.width, generator=random, dtype=torch.float64)
                whole = replace(whole, pixels=features)
            yield share(whole, rank(), size())


def make_trainer(plan: str, strategy: str, out: Path) -> Trainer:
    """Make a trainer for float64 and load its last checkpoint, if any."""
    trunk, names = PLANS[plan]
    folder = out.parent / f"recipe-{rank()}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.toml").write_text(RECIPE.replace("reinforced", "captions").replace("[optim]", TEACHER))
    settings: dict[str, Any] = {
        "optim.batch": BATCH,
        "loss": LOSSES,
        "stages": [{"epochs": 1, **STAGES[name]} for name in names],
        "save_every": 1,
        "keep_last": 100,
        **STRATEGIES[strategy],
    }
    torch.set_default_dtype(torch.float64)
    try:
        model = toy_model(trunk)
        trainer = Trainer(
            Recipe.load(folder / "toy.toml", settings), model, StageFeed(model.image.projection.in_features), out
        )
    finally:
        torch.set_default_dtype(torch.float32)
    trainer.resume()
    return trainer


def train(plan: str, strategy: str, out: Path, stop: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """Train to the end, or stop after a step.

    Returns:
        The weights and their average, in float64.
    """
    trainer = make_trainer(plan, strategy, out)
    moved: list[list[str]] = []
    before = copied(trainer)
    for step in trainer.run():
        after = copied(trainer)
        moved.append([name for name, value in after.items() if not torch.equal(value, before[name])])
        before = after
        if step.step == stop:
            break
    if rank() == 0:
        (out / "moved.json").write_text(json.dumps(moved))
    assert trainer.ema
    return {"weights": before, "average": dict(gather_state(trainer.ema.values))}


class UnevenFeed(StageFeed):
    """The last batch has a photo less, or a text less, on the second process."""

    def __init__(self, width: int, lacks: str) -> None:
        super().__init__(width)
        self.lacks = lacks

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        for number, batch in enumerate(super().batches(epoch, stage, first), first):
            if number < self.count - 1 or rank() == 0:
                yield batch
                continue
            n = len(batch.pixels) - (self.lacks == "photo")
            teachers = tuple(t._replace(image=t.image[:n], text=t.text[: len(t.text) - 1]) for t in batch.teachers)
            yield replace(
                batch, pixels=batch.pixels[:n], tokens=batch.tokens[:-1], groups=batch.groups[:n], teachers=teachers
            )


def fail_together(out: Path, lacks: str) -> None:
    """Train on uneven batches; leave the message of each process."""
    trainer = make_trainer("vit", "ddp", out)
    trainer.feed = UnevenFeed(trainer.model.image.projection.in_features, lacks)
    try:
        for _ in trainer.run():
            pass
    except TrainingError as error:
        (out / f"rank-{rank()}.txt").write_text(str(error))


def copied(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copy all weights and statistics of the student, complete."""
    return {name: value.clone() for name, value in gather_state(trainer.model.state_dict()).items()}


def main() -> None:
    """Train every case; begin runs that one process will resume, and resume those that one process began."""
    folder = Path(sys.argv[1])
    with joined_processes("cpu"):
        for plan in PLANS:
            for strategy in STRATEGIES:
                out = folder / f"{plan}-{strategy}"
                result = train(plan, strategy, out)
                if rank() == 0:
                    torch.save(result, out / "result.pt")
                barrier()
        for lacks in UNEVEN:
            fail_together(folder / f"uneven-{lacks}", lacks)
        for strategy in RESUMED:
            train("vit", strategy, folder / f"from-two-{strategy}", STOP)
            result = train("vit", strategy, folder / f"from-one-{strategy}")
            if rank() == 0:
                torch.save(result, folder / f"from-one-{strategy}/result.pt")
            barrier()


if __name__ == "__main__":
    main()

"""One of two processes that train a toy together; started by test_parallel.py with a folder as argument."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from distill.batch import Batch
from distill.config import Stage
from distill.distributed import barrier, joined_processes, rank, size
from distill.training.parallel import gather_state
from distill.training.trainer import Trainer
from tests.distill.training.toys import EVERY_LOSS, ToyFeed, doubled, toy_model, toy_recipe

CASES = {
    "ddp": {},
    "ddp-parts": {"optim.micro_batch": 3},
    "fsdp": {"optim.strategy": "fsdp"},
    "fsdp-parts": {"optim.strategy": "fsdp", "optim.micro_batch": 3},
    "fsdp-recomputed": {"optim.strategy": "fsdp", "optim.checkpoint_activations": True},
}
# Masks are drawn by each process for its own rows.
LOSSES = {**EVERY_LOSS, "masked_feature": 0.0, "posterior": 0.0, "bank": 4}
STAGES = [
    {"epochs": 1, "px": 32, "frozen": ["image.trunk.blocks.0", "text.token_embedding"]},
    {"epochs": 1, "texts_only": True},
    {"epochs": 1, "px": 32},
]


class DoubleFeed(ToyFeed):
    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        for batch in super().batches(epoch, stage, first):
            yield doubled(batch)


def made(case: str, out: Path) -> Trainer:
    torch.manual_seed(0)
    settings = {"optim.batch": 12, "loss": LOSSES, "stages": STAGES, "save_every": 3, **CASES[case]}
    recipe = toy_recipe(out.parent / f"recipe-{rank()}", **settings)
    torch.set_default_dtype(torch.float64)
    try:
        trainer = Trainer(recipe, toy_model(), DoubleFeed(2, n=12), out)
    finally:
        torch.set_default_dtype(torch.float32)
    if size() > 1 and "fsdp" in case:
        weight = trainer.model.text.blocks[0].qkv.weight
        assert isinstance(weight, DTensor) and 2 * weight.to_local().numel() == weight.numel()
    trainer.resume()
    return trainer


def train(case: str, out: Path, stop: int = 0) -> dict[str, torch.Tensor]:
    """Train to the end, perhaps dropped after a step and resumed from a checkpoint; returns the averaged weights."""
    trainer = made(case, out)
    for step in trainer.run():
        if step.step == stop:
            trainer = made(case, out)
            assert trainer.step == 3
            for _ in trainer.run():
                pass
            break
    assert trainer.ema
    weights = gather_state(trainer.ema.values)
    assert all(value.dtype == torch.float64 for value in weights.values() if value.is_floating_point())
    return dict(weights)


def main() -> None:
    with joined_processes("cpu"):
        for case in CASES:
            out = Path(sys.argv[1]) / case
            weights = train(case, out, stop=4)
            if rank() == 0:
                torch.save(weights, out / "weights.pt")
            barrier()


if __name__ == "__main__":
    main()

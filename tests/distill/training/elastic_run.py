"""A run that records which photos each step shows; started by test_elastic.py, in one process or in two.

Arguments: the model folder, the data folder, the run's folder, and the step after which to stop (0: never).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.batch import Batch
from distill.config import Stage
from distill.distributed import joined_processes, rank, size
from distill.training.run import prepare
from tests.distill.mixed import recipe

SETTINGS: dict[str, Any] = {
    "open_clip": [],
    "loss": {"contrastive": 1.0, "affinity": 0.0, "feature": 0.0, "bank": 0},
    "optim": {"batch": 6, "extra_texts": 2, "warmup": 2, "device": "cpu"},
    "stages": [{"epochs": 2, "px": 32}, {"epochs": 1, "px": 48}],
    "save_every": 1000,
}
STEPS = 5
"""Steps of an epoch of 30 photos."""


def train(base: Path, data: Path, out: Path, stop: int, sources: dict[str, Any]) -> None:
    """Train from the last checkpoint, and stop after a step, with a checkpoint."""
    own = out / f"rank-{rank()}"
    own.mkdir(parents=True, exist_ok=True)
    run = prepare(recipe(own, sources, **SETTINGS), base, data, out, lambda *_: None, workers=0)
    feed = run.trainer.feed
    batches = feed.batches

    def recorded(epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        for step, batch in enumerate(batches(epoch, stage, first), first):
            with (own / "drawn.jsonl").open("a") as stream:
                line = {"epoch": epoch, "step": step, "size": size(), "groups": batch.groups.tolist()}
                stream.write(json.dumps(line) + "\n")
            yield batch

    feed.batches = recorded  # type: ignore[method-assign]
    for step in run.trainer.run():
        run.trainer.stopping = step.step == stop - 1 and rank() == 1


def main() -> None:
    """Train with the command's arguments."""
    base, data, out = map(Path, sys.argv[1:4])
    sources = json.loads(sys.argv[5])
    with joined_processes("cpu"):
        train(base, data, out, int(sys.argv[4]), sources)


if __name__ == "__main__":
    main()

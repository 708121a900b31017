"""Train on data whose epochs aren't multiples of the batch; started by test_uneven.py in one process and in two."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from distill.distributed import joined_processes, rank
from distill.training.run import prepare
from tests.distill.mixed import SOURCES, recipe

LISTED = {name: SOURCES[name] for name in ("captioned", "labeled")}
REINFORCED = {"all": {"kind": "reinforced", "file": "made"}}
TEACHER = {"open_clip": [], "checkpoints": [{"path": "teacher"}]}
WORDS = {"texts": [{"name": "words", "kind": "lines", "file": "words.txt"}]}
COMMON = {"optim.batch": 10, "optim.extra_texts": 0, "optim.lr": 3e-3, "optim.warmup": 1, "optim.ema": 0.0}
TEXTS = [{"epochs": 2, "texts_only": True}]

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "cached": (LISTED, TEACHER),
    "cached-extra": (LISTED, {**TEACHER, **WORDS, "optim.extra_texts": 4}),
    "cached-parts": (LISTED, {**TEACHER, "optim.micro_batch": 3}),
    "cached-texts": (LISTED, {**TEACHER, **WORDS, "stages": TEXTS}),
    "features": (LISTED, {**TEACHER, "stages": [{"epochs": 2, "features": True}]}),
    "online": (SOURCES, {**TEACHER, "teach": "online", "loss.bank": 0}),
    "online-extra": (
        {"labeled": {**SOURCES["labeled"], "templates": ["{}"], "per_epoch": 4}},
        {**TEACHER, "teach": "online", "loss.bank": 0, "optim.batch": 8, "optim.extra_texts": 4},
    ),
    "reinforced": (REINFORCED, {"open_clip": []}),
    "reinforced-texts": (REINFORCED, {"open_clip": [], "stages": TEXTS}),
}
"""Sources and settings of each case. The data has 42 listed photos and 16 in tars; a batch of two processes has 10.
In `online-extra`, the 12 photos have 3 texts, so a process's share of a batch may leave none to add."""


def train(case: str, base: Path, data: Path, out: Path, device: torch.device) -> None:
    """Train one case to the end; leave the losses of each step and the student's weights."""
    sources, settings = CASES[case]
    own = out / f"rank-{rank()}"
    own.mkdir(parents=True)
    plan = recipe(own, sources, **{**COMMON, **settings})
    trainer = prepare(plan, base, data, out, lambda *_: None, workers=0, device=device).trainer
    steps = [step.losses for step in trainer.run()]
    (own / "steps.json").write_text(json.dumps(steps))
    torch.save(trainer.student().state_dict(), own / "trained.pt")


def main() -> None:
    """Train all cases with the model folder and the data folder, each in a folder below the last argument."""
    base, data, out = map(Path, sys.argv[1:])
    with joined_processes("cpu") as device:
        for case in CASES:
            print(case, file=sys.stderr)
            train(case, base, data, out / case, device)


if __name__ == "__main__":
    main()

"""One of two processes that run everything from data and teachers to the student; started by test_two_ranks.py."""

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

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "cached": (LISTED, TEACHER),
    "features": (LISTED, {**TEACHER, "stages": [{"epochs": 2, "features": True}]}),
    "online": (SOURCES, {**TEACHER, "teach": "online", "loss.bank": 0}),
    "reinforced": (REINFORCED, {"open_clip": []}),
    "texts": (REINFORCED, {"open_clip": [], "stages": [{"epochs": 2, "texts_only": True}]}),
    "online-aligned-fsdp": (
        LISTED,
        {**TEACHER, "teach": "online", "loss.bank": 0, "start": "start", "optim.strategy": "fsdp"},
    ),
}
"""Sources and settings of each case. The folder of the model holds the checkpoints `teacher` and `start`."""


def train(case: str, base: Path, data: Path, out: Path, device: torch.device) -> None:
    """Train one case to the end; leave what each process had before and after."""
    sources, settings = CASES[case]
    own = out / f"rank-{rank()}"
    own.mkdir(parents=True)
    run = prepare(recipe(own, sources, **settings), base, data, out, lambda *_: None, workers=0, device=device)
    torch.save(run.trainer.student().state_dict(), own / "initial.pt")
    losses = [step.losses["loss"] for step in run.trainer.run()]
    torch.save(run.trainer.student().state_dict(), own / "trained.pt")
    run.finish()
    (own / "losses.json").write_text(json.dumps(losses))


def main() -> None:
    """Train all cases with the model folder and the data folder, each in a folder below the last argument."""
    base, data, out = map(Path, sys.argv[1:])
    with joined_processes("cpu") as device:
        for case in CASES:
            print(case, file=sys.stderr)
            train(case, base, data, out / case, device)


if __name__ == "__main__":
    main()

"""Runs without training: a recipe and a log, written as training writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.config import OpenClipConfig, OptimConfig, PhotoSource, Recipe, Stage
from distill.logs import RunLog

TERMS = ("loss", "contrastive", "feature", "masked_feature", "affinity")
Log = Callable[..., Path]


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        name="shapes",
        model="pocket",
        merges="merges.txt.gz",
        photos=(PhotoSource("cats", "captions", "cats/captions.jsonl", use=("train", "more")),),
        stages=(Stage(2, 48), Stage(1, 64), Stage(3, texts_only=True)),
        teacher_tables={"open_clip": (OpenClipConfig("ViT-B-32", "weights.pt"),)},
        optim=OptimConfig(lr=0.002),
        licence="CC0",
        provenance="drawn by a test",
    )


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Write this many steps of falling losses, and optionally more figures, into a run's folder; returns the folder."""

    def write(steps: int, **more: float) -> Path:
        lines = RunLog(tmp_path / "run")
        for step in range(1, steps + 1):
            size = {0: 48, 1: 64, 2: 0}[3 * (step - 1) // steps]
            terms = {name: 1 + (number + 1) / step for number, name in enumerate(TERMS)}
            speed = {"photos_per_second": 100.0 + step % 7, "wait": 0.25, "unread": step // 10}
            rest = {"lr": 0.002 * step / steps, "logit_scale": 14.3, "gradient_norm": 2.0}
            lines.write({"step": step, "epoch": 6 * (step - 1) // steps, "px": size, **terms, **speed, **rest, **more})
        lines.close()
        return tmp_path / "run"

    return write

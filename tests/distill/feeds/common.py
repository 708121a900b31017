"""Feeds of `mixed_data`, and what their tests share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.feeds.online import OnlineFeed
from distill.feeds.reinforced import ReinforcedFeed
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.mixed import SOURCES, TinyTeacher, recipe

STAGE = Stage(epochs=2, px=48)
TEXTS = Stage(epochs=1, texts_only=True)
REINFORCED = {"all": {"kind": "reinforced", "file": "made"}}


def reinforced_feed(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, workers: int = 0, **overrides: Any
) -> ReinforcedFeed:
    return ReinforcedFeed(recipe(home, REINFORCED, **overrides), home, config, tokenizer, workers)


def online_feed(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, workers: int = 0, **overrides: Any
) -> OnlineFeed:
    teachers = [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    plan: Recipe = recipe(home, SOURCES, teach="online", **overrides)
    return OnlineFeed(plan, home, config, tokenizer, teachers, workers)


def tensors(batch: Batch) -> list[torch.Tensor]:
    teachers = [part for embeddings in (*batch.teachers, *batch.reference) for part in embeddings[:2]]
    return [batch.pixels, batch.tokens, batch.groups, *teachers]


def same(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    assert pairs
    return all(torch.equal(a, b) for pair in pairs for a, b in zip(*map(tensors, pair), strict=True))


def set_process(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Pretend to be one of several processes."""
    for module in ("steps", "reinforced", "online"):
        monkeypatch.setattr(f"distill.feeds.{module}.size", lambda: size)
    monkeypatch.setattr("distill.feeds.steps.rank", lambda: rank)

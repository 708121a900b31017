"""Feeds of `mixed_data`, and what their tests share."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.data.corpus import Corpus
from distill.feeds.corpus import CorpusSamples
from distill.feeds.feed import Feed
from distill.feeds.reinforced import ReinforcedSamples
from distill.feeds.targets import OnlineTargets, StoredTargets
from distill.teachers.bank import TeacherBank
from distill.teachers.base import Teacher
from distill.teachers.cache import StoredRows
from distill.teachers.trunk_features import CorpusFeatures
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.mixed import SOURCES, TinyTeacher, recipe

STAGE = Stage(epochs=2, px=48)
TEXTS = Stage(epochs=1, texts_only=True)
FEATURES = Stage(epochs=1, features=True)
REINFORCED = {"all": {"kind": "reinforced", "file": "made"}}


def reinforced_feed_of(plan: Recipe, home: Path, config: ModelConfig, tokenizer: Tokenizer, workers: int = 0) -> Feed:
    """As `make_feed` does it."""
    samples = ReinforcedSamples(plan, home)
    targets = StoredTargets([t.dim for t in samples.teachers], [t.logit_scale for t in samples.teachers])
    return Feed(plan, config, tokenizer, samples, targets, workers)


def online_feed_of(
    plan: Recipe,
    home: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    teachers: Sequence[Teacher],
    workers: int = 0,
) -> Feed:
    """As `make_feed` does it."""
    samples = CorpusSamples(Corpus.read(plan, home), tokenizer, (), None, [t.px for t in teachers], plan.reinforcement)
    return Feed(plan, config, tokenizer, samples, OnlineTargets(teachers), workers)


def cached_feed_of(
    plan: Recipe,
    home: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    teachers: Sequence[Teacher],
    workers: int = 0,
) -> Feed:
    """With embeddings of whole photos, and a frozen trunk's features: the mean color."""
    corpus = Corpus.read(plan, home)
    photos = [sample.photo for sample in corpus.samples]
    banks = [
        TeacherBank(*(torch.from_numpy(rows) for rows in (t.encode_images(photos), t.encode_texts(corpus.texts))), 20.0)
        for t in teachers
    ]
    if banks:
        corpus = corpus.without(banks[0].photos.isnan().any(dim=1).numpy())
    rows = np.repeat(np.arange(len(photos), dtype=np.float32)[:, None], 7, axis=1)
    features = CorpusFeatures(StoredRows([rows]))
    samples = CorpusSamples(corpus, tokenizer, banks, features)
    targets = StoredTargets([bank.texts.shape[1] for bank in banks], [bank.logit_scale for bank in banks])
    return Feed(plan, config, tokenizer, samples, targets, workers)


def reinforced_feed(home: Path, config: ModelConfig, tokenizer: Tokenizer, workers: int = 0, **overrides: Any) -> Feed:
    return reinforced_feed_of(recipe(home, REINFORCED, **overrides), home, config, tokenizer, workers)


def online_feed(home: Path, config: ModelConfig, tokenizer: Tokenizer, workers: int = 0, **overrides: Any) -> Feed:
    teachers = [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    return online_feed_of(
        recipe(home, SOURCES, teach="online", **overrides), home, config, tokenizer, teachers, workers
    )


def cached_feed(home: Path, config: ModelConfig, tokenizer: Tokenizer, workers: int = 0, **overrides: Any) -> Feed:
    teachers = [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    return cached_feed_of(recipe(home, SOURCES, **overrides), home, config, tokenizer, teachers, workers)


def tensors(batch: Batch) -> list[torch.Tensor]:
    teachers = [part for embeddings in (*batch.teachers, *batch.reference) for part in embeddings[:2]]
    return [batch.pixels, batch.tokens, batch.groups, *teachers]


def same(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    assert pairs
    return all(torch.equal(a, b) for pair in pairs for a, b in zip(*map(tensors, pair), strict=True))


def set_process(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Pretend to be one of several processes."""
    for module in ("steps", "feed"):
        monkeypatch.setattr(f"distill.feeds.{module}.size", lambda: size)
    monkeypatch.setattr("distill.feeds.steps.rank", lambda: rank)

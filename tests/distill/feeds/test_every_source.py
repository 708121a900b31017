"""Every source works with every kind of targets, and all of them draw epochs in the same way."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from distill.feeds.feed import Feed
from distill.feeds.steps import group_number
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import (
    FEATURES,
    STAGE,
    TEXTS,
    cached_feed,
    cached_feed_of,
    online_feed,
    online_feed_of,
    reinforced_feed,
    same,
    set_process,
)
from tests.distill.mixed import SOURCES, TinyTeacher, recipe

FEEDS: dict[str, Callable[..., Feed]] = {
    "cached": cached_feed,
    "online": online_feed,
    "reinforced": reinforced_feed,
}
MADE = [{"name": "all", "kind": "reinforced", "file": "made"}]
WORDS = [{"name": "words", "kind": "lines", "file": "words.txt"}]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("targets", ["cached", "online", "none"])
def test_every_source_works_with_every_target(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, source: str, targets: str
) -> None:
    plan = recipe(home, {source: SOURCES[source]}, texts=WORDS)
    teachers = [] if targets == "none" else [TinyTeacher(0)]
    make = online_feed_of if targets == "online" else cached_feed_of
    feed = make(plan, home, config, tokenizer, teachers)
    photos = list(feed.batches(0, STAGE, 0))
    assert len(photos) == feed.steps(0, STAGE) >= 1
    for batch in photos:
        assert len(batch.pixels) and batch.pixels.shape[1:] == (3, 48, 48) and len(batch.teachers) == len(teachers)
        for teacher in batch.teachers:
            assert teacher.image.shape == (len(batch.pixels), 24) and teacher.text.shape == (len(batch.tokens), 24)
            assert torch.allclose(teacher.image.norm(dim=1), torch.ones(len(batch.pixels)), atol=1e-5)
    texts = list(feed.batches(0, TEXTS, 0))
    assert len(texts) == feed.steps(0, TEXTS) and all(not len(batch.pixels) for batch in texts)
    if targets != "online":
        features = list(feed.batches(0, FEATURES, 0))
        assert [batch.pixels.shape for batch in features] == [(8, 7)] * len(photos)


@pytest.mark.parametrize("kind", FEEDS)
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (4, 0), (1, 2), (2, 1)])
def test_an_epoch_draws_every_photo_once_for_all_processes_and_workers(
    home: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    ranks: int,
    workers: int,
) -> None:
    """Groups name photos, labeled ones share theirs. What the last full batch leaves over is drawn in other epochs."""
    whole = [batch.groups for batch in FEEDS[kind](home, config, tokenizer).batches(3, STAGE, 0)]
    drawn = Counter(torch.cat(whole).tolist())
    labels = {group_number(label) for label in ("cat", "dog", "boat")}
    assert all(count == 1 for group, count in drawn.items() if group not in labels)
    assert all(drawn[label] <= 4 for label in labels)
    shares: list[list[torch.Tensor]] = []
    for rank in range(ranks):
        set_process(monkeypatch, rank, ranks)
        feed = FEEDS[kind](home, config, tokenizer, workers)
        shares.append([batch.groups for batch in feed.batches(3, STAGE, 0)])
    for step, groups in enumerate(whole):
        joined = set(torch.cat([share[step] for share in shares]).tolist())
        assert joined == set(groups.tolist()), "processes divide each batch, and none is left out"


@pytest.mark.parametrize("kind", FEEDS)
@pytest.mark.parametrize("stage", [STAGE, TEXTS], ids=["photos", "texts"])
def test_batches_are_reproducible_from_any_step(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, kind: str, stage: object
) -> None:
    alone, helped = (FEEDS[kind](home, config, tokenizer, workers) for workers in (0, 2))
    whole = list(alone.batches(1, stage, 0))
    assert same(whole, helped.batches(1, stage, 0)) and same(whole[2:], alone.batches(1, stage, 2))
    assert not torch.equal(whole[0].tokens, next(iter(alone.batches(0, stage, 0))).tokens)


@pytest.mark.parametrize("kind", FEEDS)
def test_processes_share_texts(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole = list(FEEDS[kind](home, config, tokenizer).batches(0, TEXTS, 0))
    for rank in range(2):
        set_process(monkeypatch, rank, 2)
        shares = list(FEEDS[kind](home, config, tokenizer).batches(0, TEXTS, 0))
        for share, batch in zip(shares, whole, strict=True):
            assert torch.equal(share.tokens, batch.tokens[rank::2])


@pytest.mark.parametrize("targets", ["cached", "online"])
def test_texts_alone_can_teach(home: Path, config: ModelConfig, tokenizer: Tokenizer, targets: str) -> None:
    plan = recipe(
        home, {}, texts=WORDS, stages=[{"epochs": 1, "texts_only": True}], **{"optim.batch": 2, "optim.extra_texts": 0}
    )
    make = online_feed_of if targets == "online" else cached_feed_of
    feed = make(plan, home, config, tokenizer, [TinyTeacher(0)])
    batches = list(feed.batches(0, TEXTS, 0))
    assert [len(batch.tokens) for batch in batches] == [2, 2] and all(not len(batch.pixels) for batch in batches)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"photos": [], "texts": []}, "needs at least one [[stages]], and [[photos]] or [[texts]]"),
        ({"photos": [], "texts": WORDS}, "without [[photos]], all stages must be texts_only"),
        ({"teach": "online", "stages": [{"epochs": 1, "features": True}]}, "same whole photos in every epoch"),
        (
            {
                "photos": MADE,
                "stages": [{"epochs": 1, "features": True}],
            },
            "features are of whole photos, but reinforced embeddings are of crops",
        ),
    ],
)
def test_what_has_no_meaning_says_so_in_one_sentence(home: Path, overrides: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(home, SOURCES, **overrides)
    assert reason in str(caught.value) and "\n" not in str(caught.value)

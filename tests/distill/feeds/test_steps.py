"""Steps are reproducible, and processes and workers share them."""

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.config import Stage
from distill.data.epoch import draw_epoch, epoch_size, shuffle_shards
from distill.feeds.feed import Feed
from distill.feeds.steps import StepRows, Steps, group_number
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import (
    REINFORCED,
    STAGE,
    online_feed,
    reinforced_feed,
    reinforced_feed_of,
    same,
    set_process,
)
from tests.distill.mixed import recipe


def test_the_number_of_workers_changes_nothing(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    alone, helped = (reinforced_feed(home, config, tokenizer, workers) for workers in (0, 2))
    assert same(alone.batches(1, STAGE, 0), helped.batches(1, STAGE, 0))


def test_a_resumed_epoch_starts_at_a_later_step(feed: Feed) -> None:
    assert same(list(feed.batches(1, STAGE, 0))[3:], feed.batches(1, STAGE, 3))


def test_every_epoch_draws_again(feed: Feed) -> None:
    first, second = (list(feed.batches(epoch, STAGE, 0)) for epoch in range(2))
    vectors = [
        {int(group): row for batch in epoch for group, row in zip(batch.groups, batch.teachers[0].image, strict=True)}
        for epoch in (first, second)
    ]
    moved = [not torch.equal(vectors[0][group], vectors[1][group]) for group in vectors[0].keys() & vectors[1].keys()]
    assert 0.4 < np.mean(moved) < 0.95, "one of three views, drawn in each epoch"
    assert not torch.equal(first[0].groups, second[0].groups)


def test_an_epoch_draws_each_source_by_its_share(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    twice = {"all": {**REINFORCED["all"], "per_epoch": 2.25}}
    feed = reinforced_feed_of(recipe(home, twice), home, config, tokenizer)
    groups = Counter(int(group) for batch in feed.batches(0, STAGE, 0) for group in batch.groups)
    assert feed.steps(0, STAGE) == round(2.25 * 56) // 8 == sum(groups.values()) // 8
    assert max(groups.values()) <= 3 * 4 and set(groups.values()) - {2, 3} <= {1, 8, 9, 10, 11, 12}


@pytest.mark.parametrize("sizes", [[5, 0, 7, 1], [3], [100, 100, 100]])
def test_shuffling_keeps_every_sample_and_reads_few_shards_at_a_time(sizes: list[int]) -> None:
    order = shuffle_shards(sizes, np.random.default_rng(0), window=50)
    assert sorted(order) == list(range(sum(sizes)))
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    for start in range(0, len(order), 50):
        assert len(set(shard_of[order[start : start + 50]])) <= 3
    assert sum(sizes) < 5 or not np.array_equal(order, np.arange(sum(sizes)))
    assert np.array_equal(order, shuffle_shards(sizes, np.random.default_rng(0), window=50))


def test_processes_divide_every_batch(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(feed.batches(0, STAGE, 0))
    for rank in range(2):
        set_process(monkeypatch, rank, 2)
        for batch, mine in zip(whole, feed.batches(0, STAGE, 0), strict=True):
            assert torch.equal(mine.pixels, batch.pixels[rank::2]) and torch.equal(mine.groups, batch.groups[rank::2])
            assert torch.equal(mine.tokens[:4], batch.tokens[:8][rank::2]) and len(mine.tokens) == 4 + 2
            assert torch.equal(mine.teachers[1].image, batch.teachers[1].image[rank::2])
            assert all(torch.equal(a.image, b.image) for a, b in zip(mine.reference, batch.reference, strict=True))


RANK = """
import os, sys
from pathlib import Path
import torch
from tests.distill.feeds.common import REINFORCED, STAGE, reinforced_feed_of
from distill.distributed import everyone, joined_processes
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.mixed import recipe

home, model, merges, out = map(Path, sys.argv[1:5])
own = out / os.environ["RANK"]
own.mkdir()
with joined_processes("cpu"):
    tokenizer = Tokenizer.load(merges.read_bytes(), 16)
    feed = reinforced_feed_of(recipe(own, REINFORCED), home, ModelConfig.load(str(model)), tokenizer, 1)
    rows = [everyone(batch.teachers[0].image) for batch in feed.batches(0, STAGE, 2)]
    torch.save([torch.cat([row[0::4], row[1::4], row[2::4], row[3::4]]) for row in rows], own / "rows.pt")
"""


def test_two_processes_join_to_one_batch(feed: Feed, home: Path, mixed_model: Path, tmp_path: Path) -> None:
    """Real ones, over gloo: the even rows come from the first, the odd ones from the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = map(str, (home, mixed_model / "tiny.toml", mixed_model / "merges.txt.gz", tmp_path))
    command, root = [sys.executable, "-c", RANK, *arguments], Path(__file__).parents[3]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, cwd=root, env={**os.environ, **world, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    whole = [batch.teachers[0].image for batch in feed.batches(0, STAGE, 2)]
    for rank in range(2):
        for joined, batch in zip(torch.load(tmp_path / str(rank) / "rows.pt", weights_only=True), whole, strict=True):
            assert torch.equal(joined, batch)


def test_a_missing_photo_is_left_out_or_replaced(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path / "data")
    whole = list(reinforced_feed(tmp_path / "data", config, tokenizer).batches(0, STAGE, 0))
    lost = [f"captioned/ö/{number}.jpg" for number in (0, 11, 20)]
    for name in lost:
        (tmp_path / "data" / name).unlink()
    gone = {group_number(f"captioned/{name.removeprefix('captioned/')}") for name in lost}
    feed = reinforced_feed(tmp_path / "data", config, tokenizer)
    missing = 0
    for batch, torn in zip(whole, feed.batches(0, STAGE, 0), strict=True):
        kept = torch.tensor([int(group) not in gone for group in batch.groups])
        missing += torn.unread
        assert torn.unread == 8 - int(kept.sum()) and torch.equal(torn.pixels, batch.pixels[kept])
        assert torch.equal(torn.teachers[0].text[: len(torn.pixels)], batch.teachers[0].text[:8][kept])
    assert missing == 3
    for rank in range(2):
        set_process(monkeypatch, rank, 2)
        for batch, mine in zip(whole, feed.batches(0, STAGE, 0), strict=True):
            assert mine.pixels.shape == (4, 3, 48, 48) and len(mine.tokens) == 6
            assert set(mine.groups.tolist()) <= set(batch.groups.tolist()) - gone


def test_a_batch_size_that_is_not_a_multiple_of_the_processes_is_refused(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_process(monkeypatch, 0, 3)
    for make in (reinforced_feed, online_feed):
        with pytest.raises(ConfigError, match="8 is not a multiple of 3 processes"):
            make(home, config, tokenizer)


def test_the_steps_of_an_epoch_do_not_depend_on_the_number_of_processes(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, a run that continues with fewer processes would get another schedule."""
    texts = Stage(1, texts_only=True)
    for extra in (4, 5):
        settings = {"optim.extra_texts": extra, "stages": [{"epochs": 1, "texts_only": True}]}
        set_process(monkeypatch, 0, 1)
        alone = reinforced_feed(home, config, tokenizer, **settings)
        assert alone.steps(0, texts) == alone.samples.text_count // (8 + extra)
        set_process(monkeypatch, 0, 2)
        if extra == 5:
            with pytest.raises(ConfigError, match=r"extra_texts: 13 is not a multiple of 2 processes"):
                reinforced_feed(home, config, tokenizer, **settings)
        else:
            assert reinforced_feed(home, config, tokenizer, **settings).steps(0, texts) == alone.steps(0, texts)


@pytest.mark.parametrize("share", [0.3, 0.75, 1.0, 1.8])
def test_a_share_is_rounded_to_whole_photos(share: float) -> None:
    sources = [(share, [3, 2]), (1.0, [4])]
    order = draw_epoch(sources, 0, 0)
    assert len(order) == epoch_size(sources) == round(share * 5) + 4
    assert sorted(order[order >= 5]) == [5, 6, 7, 8]


def test_sources_are_evenly_mixed() -> None:
    order = draw_epoch([(1.0, [50, 50]), (1.0, [100])], 0, 0)
    assert sorted(order) == list(range(200))
    for start in range(0, 200, 50):
        assert 10 < (order[start : start + 50] < 100).sum() < 40


def test_extra_texts_are_not_those_of_the_photos(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    feed = online_feed(home, config, tokenizer)
    optim = dataclasses.replace(feed.recipe.optim, extra_texts=40)
    steps = Steps(feed.samples, STAGE, optim, 0, 0, tokenizer, config.pixels)
    for number in range(len(steps)):
        rows = steps[number]
        assert isinstance(rows, StepRows)
        photos, extra = rows.texts[: len(rows.pixels)], rows.texts[len(rows.pixels) :]
        assert len(extra) > 20 and not set(photos) & set(extra)


def test_processes_draw_different_extra_texts(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(2):
        set_process(monkeypatch, rank, 2)
        shares.append([batch.tokens[len(batch.pixels) :] for batch in feed.batches(0, STAGE, 0)])
    assert not any(torch.equal(first, second) for first, second in zip(*shares, strict=True))


def test_a_share_of_the_texts_is_retyped_for_the_student_only(feed: Feed, tokenizer: Tokenizer) -> None:
    """The same in every run; the text, which online teachers read, and the targets stay as they are."""
    made: list[list[StepRows]] = []
    for share in (0.0, 0.5, 0.5, 1.0):
        stage = dataclasses.replace(STAGE, retyped=share)
        steps = Steps(feed.samples, stage, feed.recipe.optim, 0, 0, tokenizer, feed.config.pixels)
        made.append([rows for number in range(len(steps)) if isinstance(rows := steps[number], StepRows)])
    plain, half, again, full = made
    changed = []
    for rows in (half, full):
        assert [one.texts for one in rows] == [one.texts for one in plain]
        assert all(
            torch.equal(a, b)
            for one, other in zip(rows, plain, strict=True)
            for a, b in zip(one.text_targets, other.text_targets, strict=True)
        )
        differ = [(one.tokens != other.tokens).any(dim=1) for one, other in zip(rows, plain, strict=True)]
        changed.append(float(torch.cat(differ).float().mean()))
    assert all(torch.equal(one.tokens, other.tokens) for one, other in zip(half, again, strict=True))
    assert 0.25 < changed[0] < 0.6 and changed[1] > 0.6, "some changes leave the tokens as they are"
    assert torch.equal(plain[0].tokens, torch.from_numpy(tokenizer(list(plain[0].texts))).long())


def test_a_stage_refuses_a_share_above_one() -> None:
    with pytest.raises(ConfigError, match="retyped"):
        dataclasses.replace(STAGE, retyped=1.1)

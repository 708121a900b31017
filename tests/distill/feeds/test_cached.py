"""Batches of a corpus: rows belong together, on any number of processes and after resuming at any step."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.data.corpus import Corpus
from distill.data.tables import DataError
from distill.feeds import cached as feeding
from distill.feeds import photos as reading
from distill.feeds.cached import CorpusFeed
from distill.teachers.bank import TeacherBank
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig

PHOTOS, TEXTS = Stage(1, 48), Stage(1, texts_only=True)


def processes(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    for module in (reading, feeding):
        monkeypatch.setattr(module, "rank", lambda: rank)
        monkeypatch.setattr(module, "size", lambda: size)


def numbered(count: int, dim: int) -> torch.Tensor:
    """Return vectors that contain the number of their row."""
    return torch.arange(count).float()[:, None].expand(count, dim).contiguous()


@pytest.fixture
def feed(recipe_folder: Path, data: Path) -> CorpusFeed:
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"optim.extra_texts": 6})
    config = ModelConfig.load(recipe_folder / "tiny.toml")
    corpus = Corpus.read(recipe, data)
    banks = tuple(
        TeacherBank(numbered(len(corpus.samples), dim), numbered(len(corpus.texts), dim), 10.0 * dim) for dim in (32, 8)
    )
    tokenizer = Tokenizer.load((recipe_folder / "merges.txt.gz").read_bytes(), config.text.context_length)
    return CorpusFeed(recipe, config, tokenizer, corpus, banks, workers=0)


def same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.pixels, second.pixels) and torch.equal(first.tokens, second.tokens)


def test_photos_texts_and_embeddings_belong_together(feed: CorpusFeed) -> None:
    corpus, order = feed.corpus, feed.corpus.epoch(0, 2)
    batches = list(feed.batches(2, PHOTOS, 0))
    assert len(batches) == feed.steps(2, PHOTOS) == len(order) // 24
    for number, batch in enumerate(batches):
        rows = order[24 * number : 24 * (number + 1)]
        photos, texts = batch.teachers[0].image[:, 0].long(), batch.teachers[0].text[:, 0].long()
        assert photos.tolist() == rows.tolist() and len(texts) > 24
        assert batch.groups.tolist() == corpus.groups[rows].tolist()
        assert all(int(text) in corpus.text_ids[row] for text, row in zip(texts, rows, strict=False))
        assert np.array_equal(batch.tokens.numpy(), feed.tokens[texts])
        assert not set(texts[:24].tolist()) & set(texts[24:].tolist()), "no photo has an extra text"
        for bank, teachers, near in zip(feed.banks, batch.teachers, batch.reference, strict=True):
            assert teachers.scale == near.scale == bank.logit_scale
            assert near.image.shape == near.text.shape == (16, bank.photos.shape[1])
        assert batch.tried == 24 and batch.unread == 0
        assert batch.pixels.shape == (24, 3, 48, 48)


@pytest.mark.parametrize("stage", [PHOTOS, TEXTS], ids=["photos", "texts"])
def test_a_resumed_epoch_starts_at_a_later_step(feed: CorpusFeed, stage: Stage) -> None:
    feed.recipe = dataclasses.replace(feed.recipe, optim=dataclasses.replace(feed.recipe.optim, batch=8))
    whole = list(feed.batches(1, stage, 0))
    assert len(whole) > 1
    assert all(same(a, b) for a, b in zip(whole[1:], feed.batches(1, stage, 1), strict=True))
    assert not same(whole[0], next(feed.batches(2, stage, 0)))


@pytest.mark.parametrize("stage", [PHOTOS, TEXTS], ids=["photos", "texts"])
def test_processes_share_each_batch(feed: CorpusFeed, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = list(feed.batches(0, stage, 0))
    shares = []
    for rank in range(2):
        processes(monkeypatch, rank, 2)
        shares.append(list(feed.batches(0, stage, 0)))
    for whole, first, second in zip(alone, *shares, strict=True):
        n = len(whole.pixels)
        assert len(first.pixels) == len(second.pixels) == n // 2 and len(first.tokens) == len(second.tokens)
        assert torch.equal(whole.pixels[0::2], first.pixels) and torch.equal(whole.pixels[1::2], second.pixels)
        assert torch.equal(whole.groups[1::2], second.groups)
        both = {tuple(row.tolist()) for share in (first, second) for row in share.tokens}
        assert both <= {tuple(row.tolist()) for row in whole.tokens}
        assert torch.equal(first.reference[0].text, second.reference[0].text)
        assert torch.equal(whole.teachers[1].text[0:n:2], first.teachers[1].text[: n // 2])


def test_a_batch_size_is_a_multiple_of_the_processes(feed: CorpusFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, 0, 5)
    with pytest.raises(ConfigError, match="24 is not a multiple of 5 processes"):
        CorpusFeed(feed.recipe, feed.config, lambda texts: np.zeros((len(texts), 16)), feed.corpus, feed.banks)


def test_another_photo_replaces_an_unreadable_one_if_several_processes_train(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted((data / "shapes/images").glob("*.png"))[:8]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")

    def read(paths: list[Path]) -> list[tuple[torch.Tensor, list[int], int]]:
        found = reading.read_epoch(paths, lambda photo: torch.full((3, 4, 4), 1.0), 4, 8, seed=(0, 0), workers=0)
        return [(pixels, positions.tolist(), tried) for pixels, positions, tried in found]

    processes(monkeypatch, 1, 2)
    whole, torn = [*paths], [*paths]
    torn[3] = broken
    assert [row[1:] for row in read(whole)] == [([1, 3, 5, 7], 4)]
    ((pixels, positions, tried),) = read(torn)
    assert sorted(set(positions)) == [1, 5, 7] and len(positions) == len(pixels) == 4 and tried == 5
    assert float(pixels.min()) == 1.0, "no black photo"
    with pytest.raises(DataError, match=r"none of the 4 photos .* can be read"):
        read([broken] * 8)


def test_texts_are_drawn_once_with_others_of_similar_length(feed: CorpusFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "SORT_WINDOW", 2)
    many = feed.corpus.texts * 12
    feed.corpus = dataclasses.replace(feed.corpus, texts=many)
    feed.tokens, feed.all_texts = np.tile(feed.tokens, (12, 1)), np.arange(len(many))
    feed.banks = tuple(
        TeacherBank(bank.photos, numbered(len(many), bank.texts.shape[1]), bank.logit_scale) for bank in feed.banks
    )
    batches = list(feed.batches(0, TEXTS, 0))
    assert len(batches) == feed.steps(0, TEXTS) == len(many) // 30
    ids = torch.cat([batch.teachers[0].text[:, 0].long() for batch in batches])
    assert len(ids) == len(set(ids.tolist())) == 30 * len(batches)
    lengths = [(batch.tokens != 0).sum(dim=1).float() for batch in batches]
    spread = float(torch.stack([rows.max() - rows.min() for rows in lengths]).mean())
    mixed = (torch.from_numpy(feed.tokens)[torch.randperm(len(many))[: len(ids)]] != 0).sum(dim=1).float().view(-1, 30)
    assert spread < 0.75 * float((mixed.amax(dim=1) - mixed.amin(dim=1)).mean())
    longest = [float(rows.max()) for rows in lengths]
    assert longest != sorted(longest), "short and long batches are shuffled"


def test_every_epoch_draws_other_references(feed: CorpusFeed) -> None:
    first, second = (next(feed.batches(epoch, PHOTOS, 0)).reference[0] for epoch in (1, 2))
    assert not torch.equal(first.image, second.image) and not torch.equal(first.text, second.text)


def test_unreadable_photos_are_no_reference(feed: CorpusFeed) -> None:
    kept = list(feed.corpus.readable[::2])
    unreadable = np.ones(len(feed.corpus.samples), bool)
    unreadable[kept] = False
    feed.corpus = feed.corpus.without(unreadable)
    for batch in feed.batches(0, TEXTS, 0):
        assert set(batch.reference[0].image[:, 0].long().tolist()) <= set(kept)

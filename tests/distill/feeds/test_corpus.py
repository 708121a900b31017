"""Batches of a corpus with cached embeddings: rows belong together, references and texts are drawn as documented."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.config import Stage
from distill.data.augment import draw_crop
from distill.feeds import steps as stepping
from distill.feeds.corpus import CorpusSamples
from distill.feeds.feed import Feed
from distill.feeds.steps import group_number
from distill.teachers.bank import TeacherBank
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import FEATURES, STAGE, TEXTS, cached_feed

FEW_EXTRA = {"optim.extra_texts": 6}


def numbered(count: int, dim: int) -> torch.Tensor:
    """Return vectors that contain the number of their row."""
    return torch.arange(count).float()[:, None].expand(count, dim).contiguous()


def number_embeddings(feed: Feed) -> CorpusSamples:
    """Replace each teacher's embeddings by the numbers of their rows."""
    samples = feed.samples
    assert isinstance(samples, CorpusSamples)
    counts = len(samples.corpus.samples), len(samples.corpus.texts)
    samples.banks = tuple(
        TeacherBank(*(numbered(count, dim) for count in counts), scale)
        for dim, scale in zip(feed.widths, feed.targets.scales, strict=True)
    )
    return samples


@pytest.fixture
def feed(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> Feed:
    return cached_feed(home, config, tokenizer, **FEW_EXTRA)


@pytest.mark.parametrize("stage", [STAGE, FEATURES], ids=["photos", "features"])
def test_photos_texts_and_embeddings_belong_together(feed: Feed, stage: Stage) -> None:
    samples = number_embeddings(feed)
    corpus, order = samples.corpus, samples.corpus.epoch(0, 2)
    batches = list(feed.batches(2, stage, 0))
    assert len(batches) == feed.steps(2, stage) == len(order) // 8 == 7
    for number, batch in enumerate(batches):
        rows = order[8 * number : 8 * (number + 1)]
        photos, texts = batch.teachers[0].image[:, 0].long(), batch.teachers[0].text[:, 0].long()
        assert photos.tolist() == rows.tolist() and len(texts) == 8 + 6
        assert batch.groups.tolist() == [group_number(corpus.samples[row].group) for row in rows]
        assert all(int(text) in corpus.text_ids[row] for text, row in zip(texts, rows, strict=False))
        assert np.array_equal(batch.tokens.numpy(), feed.tokenizer([corpus.texts[text] for text in texts]))
        assert not set(texts[:8].tolist()) & set(texts[8:].tolist()), "no photo has an extra text"
        for bank, teacher, near in zip(samples.banks, batch.teachers, batch.reference, strict=True):
            assert teacher.scale == near.scale == bank.logit_scale
            assert teacher.image.shape == (8, bank.photos.shape[1]) and teacher.text.shape == (14, bank.texts.shape[1])
            assert near.image.shape == near.text.shape == (8, bank.photos.shape[1])
        assert batch.tried == 8 and batch.unread == 0
        if stage.features:
            assert batch.pixels[:, 0].long().tolist() == rows.tolist() and batch.pixels.shape == (8, 7)
        else:
            assert batch.pixels.shape == (8, 3, 48, 48) and batch.pixels.dtype == torch.float32


def test_class_probabilities_belong_to_their_photos(feed: Feed) -> None:
    samples = number_embeddings(feed)
    count = len(samples.corpus.samples)
    first = dataclasses.replace(samples.banks[0], posterior=numbered(count, 5))
    samples.banks = (first, *samples.banks[1:])
    feed.targets.classes = torch.zeros(5, 24)
    for batch in feed.batches(0, STAGE, 0):
        assert batch.posterior is not None and batch.classes is feed.targets.classes
        assert torch.equal(batch.posterior[:, 0], batch.teachers[0].image[:, 0])


def test_texts_are_drawn_once_with_others_of_similar_length(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "SORT_WINDOW", 4)
    samples = number_embeddings(feed)
    count = samples.text_count
    batches = list(feed.batches(0, TEXTS, 0))
    assert len(batches) == feed.steps(0, TEXTS) == count // 14 > 4
    drawn = torch.cat([batch.teachers[0].text[:, 0].long() for batch in batches])
    assert len(drawn) == len(set(drawn.tolist())) == 14 * len(batches)

    def spread(order: np.ndarray) -> float:
        lengths = samples.text_lengths[order].reshape(-1, 14)
        return float((lengths.max(axis=1) - lengths.min(axis=1)).mean())

    assert spread(drawn.numpy()) < 0.75 * spread(np.random.default_rng(0).permutation(count)[: len(drawn)])
    longest = samples.text_lengths[drawn.numpy()].reshape(-1, 14).max(axis=1).tolist()
    assert longest != sorted(longest)
    monkeypatch.setattr(stepping, "SORT_WINDOW", 64)
    lengths = [int((batch.tokens != 0).sum(dim=1).max()) for batch in feed.batches(0, TEXTS, 0)]
    assert lengths != sorted(lengths), "short and long batches are shuffled, also within a window"
    feed.config = dataclasses.replace(feed.config, text=dataclasses.replace(feed.config.text, causal=False))
    plain = torch.cat([batch.teachers[0].text[:, 0].long() for batch in feed.batches(0, TEXTS, 0)])
    assert spread(plain.numpy()) > spread(drawn.numpy()), "a tower that isn't causal gains nothing"


def test_every_step_and_every_epoch_draws_other_references(feed: Feed) -> None:
    number_embeddings(feed)
    first, later = (list(feed.batches(epoch, STAGE, 0)) for epoch in (1, 2))
    pairs = [(first[0], first[1]), (first[0], later[0])]
    for one, other in pairs:
        assert not torch.equal(one.reference[0].image, other.reference[0].image)
        assert not torch.equal(one.reference[0].text, other.reference[0].text)


def test_unreadable_photos_are_neither_drawn_nor_a_reference(feed: Feed) -> None:
    samples = number_embeddings(feed)
    kept = samples.corpus.readable[::2].tolist()
    lost = np.ones(len(samples.corpus.samples), bool)
    lost[kept] = False
    feed.samples = CorpusSamples(samples.corpus.without(lost), feed.tokenizer, samples.banks, samples.features)
    assert feed.samples.unreadable == int(lost.sum())
    for stage in (STAGE, FEATURES, TEXTS):
        for batch in feed.batches(0, stage, 0):
            assert set(batch.reference[0].image[:, 0].long().tolist()) <= set(kept)
            assert set(batch.teachers[0].image[:, 0].long().tolist()) <= set(kept)


@pytest.mark.parametrize("aspect", [0.2, 1.0, 1.5, 4.0])
def test_a_crop_keeps_at_least_its_share_of_the_photo(aspect: float) -> None:
    random = np.random.default_rng(0)
    crops = [draw_crop(random, 0.5, aspect) for _ in range(400)]
    for crop in crops:
        _, _, height, width = crop.box
        ratio = width * aspect / height
        assert 0.8 - 1e-6 <= ratio <= 1.25 + 1e-6
        assert height * width >= 0.5 - 1e-6 or max(height, width) > 1 - 1e-9, "as large as the ratio allows"
        assert all(abs(x) <= 0.2 for _, x in crop.operations)
    assert 0.4 < np.mean([crop.mirror for crop in crops]) < 0.6
    assert 0.4 < np.mean([bool(crop.operations) for crop in crops]) < 0.6
    assert len({tuple(x for x, _ in crop.operations) for crop in crops if crop.operations}) == 6, "in any order"

"""Teachers that run at every step."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from distill.data.augment import Augmentation, apply
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import STAGE, TEXTS, online_feed, same


def test_a_teacher_sees_the_student_s_crop_at_its_own_size(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Image.Image, Augmentation, int]] = []

    def noted(picture: Image.Image, augmentation: Augmentation, px: int) -> Image.Image:
        seen.append((picture, augmentation, px))
        return apply(picture, augmentation, px)

    monkeypatch.setattr("distill.feeds.steps.apply", noted)
    feed = online_feed(home, config, tokenizer)
    assert feed.steps(0, STAGE) == 58 // 8 and feed.widths == (24, 16)
    unread = 0
    for batch in feed.batches(0, STAGE, 0):
        assert len(seen) == len(batch.pixels) and batch.reference == () and len(batch.tokens) == len(batch.pixels) + 4
        unread += batch.unread
        for t, teacher in enumerate(feed.teachers):
            views = [apply(picture, augmentation, teacher.px) for picture, augmentation, _ in seen]
            expected = torch.nn.functional.normalize(torch.from_numpy(teacher.encode_pictures(views)), dim=1)
            assert torch.allclose(batch.teachers[t].image, expected, atol=1e-6)
        seen.clear()
    assert 1 <= unread <= 2


def test_online_batches_are_reproducible(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    alone, helped = (online_feed(home, config, tokenizer, workers) for workers in (0, 2))
    assert same(alone.batches(1, STAGE, 0), helped.batches(1, STAGE, 0))
    assert same(list(alone.batches(0, STAGE, 0))[2:], alone.batches(0, STAGE, 2))
    assert same(alone.batches(0, TEXTS, 0), helped.batches(0, TEXTS, 0))
    assert not torch.equal(next(iter(alone.batches(0, STAGE, 0))).pixels, next(iter(alone.batches(1, STAGE, 0))).pixels)

"""A stretch of damaged samples never ends a run: others take its place, and it is counted."""

from pathlib import Path

import pytest

from distill.config import Recipe
from distill.config.sources import PHOTO_TEMPLATES
from distill.data.tables import DataError
from distill.feeds.feed import Feed
from distill.recipe.check import check_recipe
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import STAGE, online_feed_of, set_process
from tests.distill.mixed import TinyTeacher, jpeg, recipe, write_tar

TARS = {"tars": {"kind": "webdataset", "file": "tars"}}


def feed_of(data: Path, config: ModelConfig, tokenizer: Tokenizer) -> Feed:
    plan: Recipe = recipe(data, TARS, teach="online")
    return online_feed_of(plan, data, config, tokenizer, [TinyTeacher(0)])


def members(good: range, bad: range) -> list[tuple[str, bytes]]:
    pictures = [(number, jpeg(number)) for number in good] + [(number, b"damaged") for number in bad]
    return [
        (f"{n:03}.{suffix}", data) for n, picture in pictures for suffix, data in (("jpg", picture), ("cls", b"cat"))
    ]


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_without_a_readable_photo_is_filled_with_others(
    tmp_path: Path, config: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    write_tar(tmp_path / "tars/0.tar", members(range(6), range(6, 56)))
    for rank in range(size):
        set_process(monkeypatch, rank, size)
        feed = feed_of(tmp_path, config, tokenizer)
        batches = list(feed.batches(0, STAGE, 0))
        assert len(batches) == feed.steps(0, STAGE) == 7
        assert all(len(batch.pixels) and len(batch.teachers[0].image) == len(batch.pixels) for batch in batches)
        if size == 1:
            assert sum(batch.unread for batch in batches) == 50
        again = list(feed.batches(0, STAGE, 3))
        assert all((a.pixels == b.pixels).all() for a, b in zip(batches[3:], again, strict=True))


def test_nothing_but_damage_is_one_line_with_the_reasons(
    tmp_path: Path, config: ModelConfig, tokenizer: Tokenizer
) -> None:
    write_tar(tmp_path / "tars/0.tar", members(range(0), range(16)))
    said = r"none of the photos of a batch, nor of 16 others, can be read \(24 × not an image"
    with pytest.raises(DataError, match=said):
        list(feed_of(tmp_path, config, tokenizer).batches(0, STAGE, 0))


def test_samples_without_picture_or_text_are_not_drawn(
    tmp_path: Path, config: ModelConfig, tokenizer: Tokenizer
) -> None:
    rubbish = [(f"x{number:03}.txt", b"no picture") for number in range(20)]
    write_tar(tmp_path / "tars/0.tar", members(range(16), range(0)) + rubbish)
    feed = feed_of(tmp_path, config, tokenizer)
    assert feed.samples.photo_count == 16 and feed.steps(0, STAGE) == 2
    assert feed.samples.text_count == len(PHOTO_TEMPLATES), "distinct texts of one class"
    assert all(batch.unread == 0 and len(batch.tokens) > 8 for batch in feed.batches(0, STAGE, 0))
    findings = check_recipe(feed.recipe, tmp_path, tmp_path)
    assert findings.found["photos.tars"] == "16 photos in 1 tars; unusable: 20 × no picture"
    assert findings.skipped == {"tars": ["20 × no picture"]}


def test_tars_without_any_usable_sample_are_one_line(tmp_path: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    write_tar(tmp_path / "tars/0.tar", [("a.txt", b"x"), ("b.jpg", b"x")])
    with pytest.raises(DataError, match=r"tars: no sample in 1 tars has a picture and a text"):
        feed_of(tmp_path, config, tokenizer)
    findings = check_recipe(recipe(tmp_path, TARS, teach="online"), tmp_path, tmp_path)
    assert any("1 × no picture, 1 × no caption" in problem for problem in findings.problems)


def test_classes_without_names_are_found_before_training(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/0.tar", [("a.jpg", jpeg(0)), ("a.cls", b"3")])
    findings = check_recipe(recipe(tmp_path, TARS, teach="online"), tmp_path, tmp_path)
    assert any("class 3 has no name; put classnames.txt" in problem for problem in findings.problems)

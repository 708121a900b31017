"""The corpus of a recipe."""

from pathlib import Path

import numpy as np
import pytest

from distill.config import Recipe
from distill.data.corpus import READ_TOGETHER, Corpus
from distill.data.tables import DataError
from tests.distill.mixed import SOURCES, recipe


def test_an_epoch_draws_each_source_by_its_share(data: Path, recipe_folder: Path) -> None:
    recipe = Recipe.load(recipe_folder / "recipe.toml")
    corpus = Corpus.read(recipe, data)
    order = corpus.epoch(0, 3)
    assert len(order) == 80 + 40 and len(set(order)) == len(order)
    assert np.array_equal(order, corpus.epoch(0, 3)) and not np.array_equal(order, corpus.epoch(0, 4))


def test_photos_of_tars_and_files_are_listed_alike(mixed_data: Path) -> None:
    corpus = Corpus.read(recipe(mixed_data, SOURCES), mixed_data)
    assert np.bincount(corpus.source_of).tolist() == [29, 12, 16], "one of the captioned photos is missing"
    last = corpus.samples[-1]
    assert (last.key, last.captions, last.photo.open().size) == ("tars/tars/00001/0007", ("über 1 7",), (72, 60))
    with pytest.raises(DataError, match=r"photos\.all: is reinforced already; name the photos that it was made from"):
        Corpus.read(recipe(mixed_data, {"all": {"kind": "reinforced", "file": "made"}}), mixed_data)


def test_captions_and_synthetic_captions_are_drawn_equally_often(mixed_data: Path) -> None:
    """MobileCLIP, section 3.2, gives both losses the same weight."""
    corpus, random = Corpus.read(recipe(mixed_data, SOURCES), mixed_data), np.random.default_rng(0)
    sample = corpus.samples[0]
    assert len(sample.captions) == 2 and len(sample.synthetic) > 2
    drawn = [corpus.texts[corpus.draw_text(0, random)] for _ in range(2000)]
    assert set(drawn) == set(sample.texts)
    assert abs(sum(text in sample.captions for text in drawn) / 2000 - 0.5) < 0.05


def test_large_sources_are_shuffled_in_parts_that_are_read_together() -> None:
    count = 3 * READ_TOGETHER
    corpus = Corpus((None,) * count, np.zeros(count, np.int64), (1.5,), (), (), np.zeros(0, np.int64))
    assert corpus.sources == [(1.5, [READ_TOGETHER] * 3)]
    assert np.bincount(corpus.epoch(0, 0)).sum() == count * 3 // 2 and set(np.bincount(corpus.epoch(0, 0))) == {1, 2}
    few = corpus.without(np.arange(count) > 300)
    assert few.sources == [(1.5, [256, 45])] and set(few.epoch(0, 0).tolist()) == set(range(301))

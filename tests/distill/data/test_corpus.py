"""The corpus of a recipe."""

from pathlib import Path

import numpy as np
import pytest

from distill.config import Recipe
from distill.data.corpus import Corpus
from distill.data.tables import DataError
from tests.distill.mixed import SOURCES, recipe


def test_an_epoch_draws_each_source_by_its_share(data: Path, recipe_folder: Path) -> None:
    recipe = Recipe.load(recipe_folder / "recipe.toml")
    corpus = Corpus.read(recipe, data)
    order = corpus.epoch(0, 3)
    assert len(order) == 80 + 40 and len(set(order)) == len(order)
    assert np.array_equal(order, corpus.epoch(0, 3)) and not np.array_equal(order, corpus.epoch(0, 4))


def test_cached_embeddings_of_tars_are_refused_with_advice(mixed_data: Path) -> None:
    with pytest.raises(DataError, match='set teach = "online", or run `pocketclip reinforce`'):
        Corpus.read(recipe(mixed_data, SOURCES), mixed_data)

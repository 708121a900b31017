"""Recipes that are saved with a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.config import OpenClipConfig, OptimConfig, PhotoSource, Recipe, Stage
from distill.config.saved import load_saved_recipe, save_recipe
from mobileclip.errors import ConfigError


def test_a_saved_recipe_is_complete(tmp_path: Path) -> None:
    recipe = Recipe(
        name="shapes",
        model="pocket",
        merges="merges.txt.gz",
        photos=(PhotoSource("cats", "captions", "cats/captions.jsonl", use=("train", "more")),),
        stages=(Stage(2, 48), Stage(3, texts_only=True)),
        teacher_tables={"open_clip": (OpenClipConfig("ViT-B-32", "weights.pt"),)},
        optim=OptimConfig(lr=0.002),
    )
    save_recipe(tmp_path / "new/run", recipe)
    assert load_saved_recipe(tmp_path / "new/run") == recipe
    (tmp_path / "new/run/recipe.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        load_saved_recipe(tmp_path / "new/run")
    with pytest.raises(ConfigError, match="name the folder of a run"):
        load_saved_recipe(tmp_path)

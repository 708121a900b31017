"""The registry of teachers: a new one needs settings, a class and a constructor, and a recipe can then name it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.config import Recipe, TeacherConfig
from distill.config.saved import load_saved_recipe
from distill.config.teachers import TEACHER_TABLES, teacher_table
from distill.recipe.check import check_recipe
from distill.recipe.describe import all_settings
from distill.teachers import registry
from distill.teachers.base import encode_files
from distill.teachers.registry import TeacherContext, constructor
from mobileclip.errors import ConfigError
from mobileclip.vectors import Floats, unit_rows
from tests.distill.conftest import run


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove what a test registers."""
    tables = dict(TEACHER_TABLES)
    monkeypatch.setattr(registry, "_CONSTRUCTORS", dict(registry._CONSTRUCTORS))
    yield
    TEACHER_TABLES.clear()
    TEACHER_TABLES.update(tables)


class ColorTeacher:
    """Embeds a picture by its mean color, and a text by the colors that it names."""

    logit_scale, px, identity = 20.0, 32, "colors"
    names = ("red", "green", "blue")

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def _rows(self, colors: list[list[float]]) -> Floats:
        rows = np.full((len(colors), self.dimension), 0.1, np.float32)
        rows[:, :3] += colors
        return unit_rows(rows)

    def encode_images(self, photos: Sequence[Path]) -> Floats:
        return encode_files(photos, self.encode_pictures, self.px)

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Floats:
        return self._rows([list(np.asarray(picture).mean(axis=(0, 1)) / 255) for picture in pictures])

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        return self._rows([[float(name in text) for name in self.names] for text in texts])


def register_colors() -> None:
    @teacher_table("colors", repeated=True)
    @dataclass(frozen=True)
    class ColorConfig(TeacherConfig):
        """Settings of the teacher."""

        dimension: int
        """Dimension of its embeddings."""
        palette: str = "palette.txt"
        """A file next to the recipe."""

        def weights(self) -> dict[str, str]:
            return {"palette": self.palette}

    @constructor(ColorConfig)
    def _colors(config: ColorConfig, context: TeacherContext) -> ColorTeacher:
        assert (context.base / config.palette).is_file() and context.seed == 0
        return ColorTeacher(config.dimension)


def test_a_recipe_trains_with_a_teacher_that_was_registered_elsewhere(
    recipe_folder: Path, data: Path, tmp_path: Path
) -> None:
    register_colors()
    (recipe_folder / "palette.txt").write_text("red, green, blue")
    table = [{"dimension": 32}]
    stages = [{"epochs": 1, "px": 48}]
    student = run(recipe_folder, data, tmp_path, colors=table, stages=stages)
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert student.is_dir() and all(step["feature"] > 0 for step in steps)
    recipe = load_saved_recipe(tmp_path)
    assert [name for name, _ in recipe.named_teachers] == ["aligned", "colors"]
    # Its embeddings are cached: another run computes none.
    before = sorted((tmp_path / "cache").iterdir())
    run(recipe_folder, data, tmp_path, colors=table, stages=stages)
    assert sorted((tmp_path / "cache").iterdir()) == before


def test_its_settings_are_checked_and_explained(recipe_folder: Path, data: Path) -> None:
    register_colors()
    with pytest.raises(ConfigError, match="colors: dimension is missing"):
        Recipe.load(recipe_folder / "recipe.toml", {"colors": [{}]})
    with pytest.raises(ConfigError, match=r"a list is needed, \[\[colors\]\]"):
        Recipe.load(recipe_folder / "recipe.toml", {"colors": {"dimension": 3}})
    (doc,) = [doc for doc in all_settings() if doc.name == "colors[].dimension"]
    assert (doc.type, doc.default, doc.description) == ("whole number", None, "Dimension of its embeddings.")
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"colors": [{"dimension": 3, "palette": "missing.txt"}]})
    findings = check_recipe(recipe, recipe_folder, data)
    assert [problem for problem in findings.problems if "colors.palette" in problem and "missing.txt" in problem]


def test_a_table_without_a_constructor_and_a_taken_name_are_errors(recipe_folder: Path) -> None:
    register_colors()
    with pytest.raises(ValueError, match="already have a teacher colors"):
        register_colors()
    registry._CONSTRUCTORS.popitem()
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"colors": [{"dimension": 3}]})
    context = TeacherContext(recipe_folder, recipe_folder, None, None, 0, lambda *_: None)
    with pytest.raises(ConfigError, match="no teacher has settings of type ColorConfig"):
        registry.construct_teacher(recipe.teachers[1], context)


def test_every_table_has_a_constructor() -> None:
    import distill.teachers.ensemble  # noqa: F401 (registers the constructors)

    assert {table.settings for table in TEACHER_TABLES.values()} == set(registry._CONSTRUCTORS)

"""`inherit` in a recipe: a student cut out of a larger model, by `pocketclip train`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.config import Recipe
from distill.training.run import build_student
from mobileclip.checkpoints import load_checkpoint
from mobileclip.errors import ConfigError
from tests.distill.conftest import run


@pytest.fixture(scope="module")
def larger(recipe_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student like the tiny one, but with four text layers, trained for a while."""
    tiny = (recipe_folder / "tiny.toml").read_text()
    (recipe_folder / "larger.toml").write_text(tiny.replace("layers = 2", "layers = 4"))
    stages = [{"epochs": 8, "px": 48}]
    return run(recipe_folder, data, tmp_path_factory.mktemp("larger"), model="larger.toml", stages=stages)


def train(recipe_folder: Path, data: Path, out: Path, *settings: str) -> tuple[list[dict[str, float]], str]:
    """Run `pocketclip train` for one epoch; returns the logged steps and stderr."""
    command = [sys.executable, "-m", "app", "train", str(recipe_folder / "recipe.toml"), "--data", str(data)]
    command += ["--out", str(out), "--workers=0", "--set=stages=[{epochs=1, px=48, crop=1.0}]"]
    done = subprocess.run([*command, *(f"--set={text}" for text in settings)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()], done.stderr


def test_a_shallower_student_inherits_layers_and_starts_closer_to_the_teacher(
    larger: Path, recipe_folder: Path, data: Path, tmp_path: Path
) -> None:
    settings = {"inherit": str(larger), "inherit_layers": "every"}
    student = build_student(Recipe.load(recipe_folder / "recipe.toml", settings), recipe_folder).state_dict()
    source = load_checkpoint(larger).model.state_dict()
    blocks = [name for name in student if name.startswith("text.blocks.")]
    assert any(name.startswith("text.blocks.1.") for name in blocks)
    for name in student:
        # Of four layers, the first and the third are kept.
        assert torch.equal(student[name], source[name.replace("text.blocks.1.", "text.blocks.2.")]), name
    # Learning rates of almost zero: the losses show where the students start.
    rates = [f"optim.{name}=1e-9" for name in ("lr", "lr_trunk", "lr_text")]
    inherited, _ = train(recipe_folder, data, tmp_path / "a", f"inherit={larger}", *rates)
    scratch, _ = train(recipe_folder, data, tmp_path / "b", *rates)
    for name in ("feature", "affinity"):
        assert max(step[name] for step in inherited) < min(step[name] for step in scratch), name
    trained = load_checkpoint(tmp_path / "a/student").model.state_dict()
    assert torch.allclose(trained["text.blocks.1.fc.weight"], source["text.blocks.2.fc.weight"], atol=1e-3)
    saved = json.loads((tmp_path / "a/recipe.json").read_text())
    assert (saved["inherit"], saved["inherit_layers"]) == (str(larger), "every")


def test_the_first_layers_can_be_kept_instead(larger: Path, recipe_folder: Path) -> None:
    settings = {"inherit": str(larger), "inherit_layers": "first"}
    student = build_student(Recipe.load(recipe_folder / "recipe.toml", settings), recipe_folder).state_dict()
    source = load_checkpoint(larger).model.state_dict()
    assert all(torch.equal(value, source[name]) for name, value in student.items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"start": "other"}, "either inherit, or start or init"),
        ({"init": "other"}, "either inherit, or start or init"),
        ({"inherit_layers": "last"}, "'last' is not one of every, first"),
    ],
)
def test_contradictory_settings_are_refused(recipe_folder: Path, settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Recipe.load(recipe_folder / "recipe.toml", {"inherit": "larger", **settings})


def test_a_model_that_cannot_be_cut_is_one_clear_line(larger: Path, recipe_folder: Path, tmp_path: Path) -> None:
    for model, said in (("pocket", "tokens, the student"), ("deeper.toml", "no text.blocks.4")):
        tiny = (recipe_folder / "tiny.toml").read_text()
        (recipe_folder / "deeper.toml").write_text(tiny.replace("layers = 2", "layers = 5"))
        recipe = Recipe.load(recipe_folder / "recipe.toml", {"inherit": str(larger), "model": model})
        with pytest.raises(ConfigError, match=said):
            build_student(recipe, recipe_folder)

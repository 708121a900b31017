"""Short runs that lack one ingredient, measured alike."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.training.ablation import Plan, main
from mobileclip.errors import ConfigError

PLAN = """
recipe = "recipe.toml"
settings = { "stages" = [{ epochs = 1, px = 48 }], "optim.ema" = 0.0 }
[[variations]]
name = "all of it"
[[variations]]
name = "no feature loss"
settings = { "loss.feature" = 0.0 }
[[variations]]
name = "no colors"
without = ["colors"]
[[measures]]
name = "R@10"
file = "shapes/captions.jsonl"
splits = "shapes/splits.csv"
split = "test"
[[measures]]
name = "colors"
file = "colors/labels.csv"
split = "test"
"""


@pytest.fixture
def plan(recipe_folder: Path) -> Path:
    path = recipe_folder / "ablation.toml"
    path.write_text(PLAN)
    return path


def command(*arguments: object):
    import typer

    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_variation_is_trained_measured_and_kept(plan: Path, data: Path, tmp_path: Path) -> None:
    said = command(plan, "--data", data, "--out", tmp_path)
    assert said.exit_code == 0, said.output
    lines = [line for line in said.output.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["all of it", "no feature loss", "no colors"]
    assert lines[0] == "|  | R@10 | colors |"
    folders = ("all-of-it", "no-feature-loss", "no-colors")
    first, second, third = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in folders)
    assert "feature" in json.loads(first[0]) and "feature" not in json.loads(second[0])
    assert len(third) < len(first), "there is less to draw from"
    rates = tmp_path / "no-colors/rates.json"
    rates.write_text('{"R@10": 0.125, "colors": 0.25}')
    again = command(plan, "--data", data, "--out", tmp_path)
    assert again.output.splitlines()[-1] == "| no colors | 12.5 | 25.0 |", "what is done is not done again"


def test_a_plan_that_does_not_fit_is_refused_in_one_line(plan: Path, data: Path, tmp_path: Path) -> None:
    plan.write_text(PLAN.replace('without = ["colors"]', 'without = ["colour"]'))
    wrong = Plan.load(plan)
    with pytest.raises(ConfigError, match="no photos 'colour'"):
        wrong.recipe_of(wrong.variations[2], plan.parent)
    said = command(tmp_path / "none.toml", "--data", data)
    assert said.exit_code == 2 and "cannot be read" in said.output and "Traceback" not in said.output

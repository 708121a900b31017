"""`pocketclip train quickstart`, shortened: from nothing but packages to a student that searches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill.config import Recipe
from distill.recipe.check import check_recipe
from distill.recipe.shipped import find_recipe
from distill.training.summary import summarize
from mobileclip.towers import create_model


def pocketclip(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pocketclip", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_a_first_run_needs_no_data_and_ends_with_a_student_that_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path / "home"))
    settings = ("render.per_kind=6", "optim.batch=16", "optim.extra_texts=16", "aligned.epochs=20")
    short = [part for text in (*settings, "stages=[{epochs=12, features=true}]") for part in ("--set", text)]
    trained = pocketclip(tmp_path, "train", "quickstart", *short)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.strip() == "runs/quickstart/student"
    assert "photos are nearest to their own label among 34" in trained.stderr and "chance 3%" in trained.stderr
    evaluation = json.loads((tmp_path / "runs/quickstart/best/evaluation.json").read_text())
    assert evaluation["classes"] == 34 and evaluation["top1"] > 3 / 34
    commands = [line.split() for line in trained.stderr.splitlines() if line.startswith("  pocketclip")]
    export, index = commands[0][1:], commands[1][1:]
    assert export[:2] == ["export", "runs/quickstart/best"]
    exported = pocketclip(tmp_path, *export)
    assert exported.returncode == 0, exported.stderr
    assert pocketclip(tmp_path, *index).returncode == 0
    found = pocketclip(tmp_path, "search", "a photo of a map", "--model", "runs/quickstart/bundle", "--json", "-t", "5")
    assert found.returncode == 0 and len(json.loads(found.stdout)) == 5
    again = pocketclip(tmp_path, "train", "quickstart", *short)
    assert again.returncode == 0, "a finished run is reported again"


def test_the_recipe_and_its_packages_are_in_order(tmp_path: Path) -> None:
    path = find_recipe("quickstart")
    recipe = Recipe.load(path)
    model = create_model(recipe.student(path.parent))
    sizes = {side: sum(p.numel() for p in getattr(model, side).parameters()) for side in ("image", "text")}
    assert sizes == model.config.parameters
    findings = check_recipe(recipe, path.parent, tmp_path)
    assert findings.problems == []
    assert "will be rendered" in findings.found["render"]


def test_a_run_without_validation_still_says_what_is_next(tmp_path: Path) -> None:
    recipe = Recipe.load(find_recipe("pocket"))
    lines = summarize(recipe, tmp_path, "data")
    assert lines[0] == "next:" and f"pocketclip export {tmp_path / 'student'}" in lines[1]

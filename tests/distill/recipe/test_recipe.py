"""`pocketclip recipe`: what it lists, explains and checks is true of the settings and files themselves."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from distill.config import Recipe
from distill.config.training import OptimConfig
from distill.losses import LOSSES
from distill.recipe.check import check_recipe
from distill.recipe.describe import all_settings, field_docs, to_toml
from distill.recipe.shipped import find_recipe, header, shipped_recipes
from mobileclip.errors import ConfigError
from tests.distill.mixed import write_tar

MERGES = "#version: 0.2\n"


def pocketclip(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pocketclip", "recipe", *map(str, arguments)], capture_output=True, text=True
    )


def test_every_setting_is_described_and_named_once() -> None:
    docs = all_settings()
    names = [doc.name for doc in docs]
    assert len(set(names)) == len(names) > 100
    assert not [doc.name for doc in docs if not doc.description]
    assert {f"optim.{field.name}" for field in dataclasses.fields(OptimConfig)} <= set(names)
    assert {f"loss.{name}" for name in LOSSES} <= set(names)
    assert {"photos[].file", "stages[].px", "aligned.backbones[].px", "validate.every"} <= set(names)


def test_defaults_are_those_of_the_dataclasses() -> None:
    shown = {doc.name: doc.default for doc in all_settings()}
    for field in dataclasses.fields(OptimConfig):
        assert shown[f"optim.{field.name}"] == to_toml(field.default)
    assert shown["name"] is None and shown["photos[].file"] is None


def test_a_field_has_the_docstring_after_it() -> None:
    @dataclasses.dataclass
    class Base:
        a: int
        """First
        of two lines."""

    @dataclasses.dataclass
    class Inherited(Base):
        b: int = 1
        c: int = 2
        """For both."""

    assert field_docs(Inherited) == {"a": "First of two lines.", "b": "For both.", "c": "For both."}


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_recipes_that_ship_load_and_open_with_their_cost_and_result(name: str) -> None:
    path = find_recipe(name)
    assert Recipe.load(path).name == name
    about = header(path)
    assert f"pocketclip train {name}" in about and "Cost:" in about and "Result:" in about


def test_a_recipe_is_found_by_name_folder_or_file(tmp_path: Path) -> None:
    path = shipped_recipes()["pocket"]
    assert find_recipe("pocket") == find_recipe(path.parent) == find_recipe(path) == path
    with pytest.raises(ConfigError, match=r"no recipe 'other': give a \.toml file, or one of .*pocket"):
        find_recipe("other")
    with pytest.raises(ConfigError, match="no recipe"):
        find_recipe(tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a recipe, its model and merges, and a data folder with four photos."""
    (tmp_path / "merges.txt").write_text(MERGES)
    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\nembed_dim = 8\n[image]\ntrunk = "mobilenetv3_small_050"\n'
        "[text]\nvocab_size = 514\nwidth = 8\nheads = 1\nlayers = 1\n"
        '[pixels]\nsize = 32\nresize = "shortest"\ninterpolation = "bicubic"\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n".replace("514", "515")
    )
    (tmp_path / "merges.txt").write_text(f"{MERGES}a b\n")
    (tmp_path / "data").mkdir()
    rows = ["file,caption"]
    for number in range(4):
        Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(tmp_path / "data" / f"{number}.jpg")
        rows.append(f"{number}.jpg,red number {number}")
    (tmp_path / "data" / "captions.csv").write_text("\n".join(rows))
    (tmp_path / "recipe.toml").write_text(
        'name = "small"\nmodel = "tiny.toml"\nmerges = "merges.txt"\n'
        '[[photos]]\nname = "reds"\nkind = "captions"\nfile = "captions.csv"\n'
        '[[checkpoints]]\npath = "teacher"\n[[stages]]\nepochs = 1\npx = 32\n'
    )
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "model.safetensors").touch()
    return tmp_path


def test_a_sound_recipe_has_no_problems(small: Path) -> None:
    findings = check_recipe(Recipe.load(small / "recipe.toml"), small, small / "data")
    assert findings.problems == []
    assert findings.found["photos.reds"] == "4 photos, 4 texts"
    done = pocketclip("check", small, "--data", small / "data")
    assert done.returncode == 0 and "photos.reds\t4 photos, 4 texts" in done.stdout and not done.stderr


def test_all_problems_are_reported_at_once_and_name_the_file(small: Path) -> None:
    for number in range(3):
        (small / "data" / f"{number}.jpg").unlink()
    (small / "teacher" / "model.safetensors").unlink()
    (small / "teacher").rmdir()
    (small / "merges.txt").write_text(MERGES)
    recipe = Recipe.load(small / "recipe.toml", {"validate.captions": "none.csv", "init": "nowhere_at_all:x.pth"})
    problems = "\n".join(check_recipe(recipe, small, small / "data").problems)
    assert "model: merges.txt makes 514 tokens, but tiny has 515" in problems
    assert "photos.reds: 3 of 4 photos are missing, such as" in problems and "0.jpg" in problems
    assert "checkpoints.teacher:" in problems and "no such file" in problems
    assert "none.csv" in problems
    assert "the package nowhere_at_all is needed" in problems
    done = pocketclip("check", small / "recipe.toml", "--data", small / "data", "--json")
    assert done.returncode == 4 and len(json.loads(done.stdout)["problems"]) == 3
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 3


def test_a_hint_follows_what_is_missing(small: Path) -> None:
    hints = {"photos": "write one line per caption", "checkpoints": "hf download it", "start": "not asked for"}
    (small / "data" / "captions.csv").unlink()
    (small / "teacher" / "model.safetensors").unlink()
    recipe = Recipe.load(small / "recipe.toml", {"hints": hints})
    problems = check_recipe(recipe, small, small / "data").problems
    assert [problem.rpartition("; ")[2] for problem in problems] == ["hf download it", "write one line per caption"]
    assert problems[0].startswith(f"checkpoints.teacher: {small / 'teacher'}: no checkpoint in this folder")


def test_reinforced_folders_are_opened(small: Path) -> None:
    folder, photos = small / "data" / "dr", [{"name": "dr", "kind": "reinforced", "file": "dr"}]
    folder.mkdir()

    def problem() -> str:
        findings = check_recipe(Recipe.load(small / "recipe.toml", {"photos": photos}), small, small / "data")
        return "\n".join(findings.problems) or findings.found["photos.dr"]

    assert "reinforcement.json: missing" in problem()
    teachers = [{"identity": "ViT-L-14 openai", "dim": 8, "logit_scale": 100}]
    (folder / "reinforcement.json").write_text(json.dumps({"schema": 1, "layout": "datacompdr", "teachers": teachers}))
    assert "no .tar found" in problem()
    write_tar(folder / "0.tar", [("a.paug.json", b"{}"), ("a.npz", b"")])
    assert "none of its 1 samples has a picture, a caption and stored views; join the tars" in problem()
    write_tar(folder / "0.tar", [("a.jpg", b""), ("a.txt", b"red"), ("a.paug.json", b"{}"), ("a.npz", b"")])
    assert problem() == "1 tars, 1 photos in the first, taught by ViT-L-14 openai"


def test_a_wrong_data_folder_is_one_problem(small: Path) -> None:
    findings = check_recipe(Recipe.load(small / "recipe.toml"), small, small / "elsewhere")
    assert findings.problems == [f"data: {small / 'elsewhere'} isn't a folder; set it with --data"]


def test_list_and_show(small: Path) -> None:
    listed = json.loads(pocketclip("list", "--json").stdout)
    assert "pocket" in listed and "R@10" in listed["pocket"]["about"]
    shown = json.loads(pocketclip("show", small, "stages", "--json").stdout)
    assert {row["name"]: row["values"] for row in shown}["stages[].px"] == ["32"]
    text = pocketclip("show", "pocket", "optim.lr_text").stdout
    assert text.startswith("optim.lr_text = 0.0004\n  number, default 0.0\n")
    wrong = pocketclip("show", "pocket", "optimm")
    assert wrong.returncode == 4 and "no setting begins with 'optimm'" in wrong.stderr

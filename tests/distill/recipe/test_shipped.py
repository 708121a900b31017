"""Each recipe for your own data trains: with its own settings, on made-up data and tiny models with random weights.

Only what makes it small is overridden, as a person would with `--set`.
"""

import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from distill.config import Recipe
from distill.config.command_line import parse_settings
from distill.recipe.check import check_recipe
from distill.recipe.shipped import RECIPES, find_recipe, shipped_recipes
from distill.reinforce.join import join_tars
from distill.training.initialize import inherit
from distill.training.run import prepare
from mobileclip.checkpoints import load_checkpoint, openai_merges, save_checkpoint
from mobileclip.towers import ModelConfig, create_model
from tests.distill.reinforce.datacompdr import write_pictures, write_reinforced

OWN_DATA = ("clip-teacher", "corrections", "datacompdr", "tinyclip")
"""Recipes for data and weights that a person brings."""

VIT = """
name = "{name}"
embed_dim = 32
tokenizer = "openai"
[image]
trunk = "test_vit"
options = {{ img_size = 64, depth = {layers} }}
[text]
vocab_size = 49408
width = 32
heads = 2
layers = {layers}
[pixels]
size = 64
resize = "shortest"
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""
TEACHER = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which a person has downloaded weights."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path


@pytest.fixture(scope="module")
def classifying(recipe_folder: Path) -> Path:
    """A tiny model with every part of `pocket`: a hidden layer, and a classifier of ImageNet's classes."""
    text = (recipe_folder / "tiny.toml").read_text()
    path = recipe_folder / "classifying.toml"
    path.write_text(
        text.replace('trunk = "test_efficientnet"', 'trunk = "test_efficientnet"\nhidden = 16\nclasses = 1000')
    )
    return path


def train(name: str, data: Path, out: Path, settings: Sequence[str]) -> tuple[Recipe, list[dict[str, float]]]:
    """Check a shipped recipe, run it, and load its student; returns the recipe and the losses of each step."""
    path = find_recipe(name)
    recipe = Recipe.load(path, parse_settings(settings))
    assert check_recipe(recipe, path.parent, data).problems == []
    run = prepare(recipe, path.parent, data, out, lambda *_: None, workers=0)
    losses = [dict(step.losses) for step in run.trainer.run()]
    assert load_checkpoint(run.finish()).about["provenance"] == recipe.provenance
    return recipe, losses


def test_clip_teacher(here: Path, data: Path, recipe_folder: Path, encoders: Path, classifying: Path) -> None:
    import open_clip

    folder = here / "clip-vit-b-16"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(TEACHER))
    (folder / "shape.json").write_text(json.dumps(TEACHER["model_cfg"]))
    open_clip.add_model_config(folder / "shape.json")
    torch.save(open_clip.create_model("shape").state_dict(), folder / "open_clip_pytorch_model.bin")
    _, losses = train(
        "clip-teacher",
        data / "shapes",
        here / "run",
        [
            f"model={classifying}",
            f"merges={recipe_folder / 'merges.txt.gz'}",
            f"init={encoders / 'trunk.pth'}",
            *("optim.batch=8", "optim.extra_texts=4", "loss.bank=16", "stages[0].epochs=1", "stages[1].epochs=1"),
        ],
    )
    assert {"affinity", "feature"} <= losses[0].keys() and "contrastive" not in losses[0], "texts only"
    assert {"affinity", "feature", "contrastive"} <= losses[-1].keys()
    assert len(list((here / "run/cache").glob("*"))) > 1, "the teacher's embeddings are kept"


def test_corrections(here: Path, data: Path, recipe_folder: Path, classifying: Path) -> None:
    before, merges = create_model(classifying), recipe_folder / "merges.txt.gz"
    save_checkpoint(before, merges.read_bytes(), here / "mine", {}, torch.float32)
    rows = [line.split(",") for line in (data / "colors/labels.csv").read_text().splitlines()[1:]]
    table = [{"file": f"colors/{file}", "label": label, "rejected": "black"} for file, label, _ in rows]
    (data / "corrections.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    settings = [f"model={classifying}", f"merges={merges}", "start=mine", "checkpoints[0].path=mine"]
    settings += ["optim.batch=16", "stages[0].epochs=2", "optim.lr=1e-2", "optim.lr_text=1e-2"]
    _, losses = train("corrections", data, here / "run", settings)
    assert losses[-1]["contrastive"] < losses[0]["contrastive"]
    tuned = load_checkpoint(here / "run/student").model.state_dict()
    _, again = train("corrections", data, here / "run", [*settings, "keep_start=0.25"])
    assert not again, "the run is only finished again"
    mixed = load_checkpoint(here / "run/student").model.state_dict()
    start = before.state_dict()
    for name in ("text.projection.weight", "image.projection.weight"):
        # The student is rotated to match its teacher first, which is the student itself here.
        wanted = 0.25 * start[name] + 0.75 * tuned[name]
        assert torch.allclose(mixed[name], wanted, atol=2e-3), name
        assert not torch.allclose(tuned[name], start[name], atol=2e-3), name


def test_tinyclip(here: Path, data: Path) -> None:
    for name, layers in (("larger", 4), ("smaller", 2)):
        (here / f"{name}.toml").write_text(VIT.format(name=name, layers=layers))
    larger = create_model(here / "larger.toml")
    save_checkpoint(larger, openai_merges(), here / "clip-vit-b-16", {}, torch.float32)
    settings = [f"model={here / 'smaller.toml'}", "optim.batch=32", "optim.micro_batch=16", "loss.bank=16"]
    _, losses = train(
        "tinyclip",
        data / "shapes",
        here / "run",
        [*settings, "stages[0].epochs=2", "stages[0].px=64", "optim.warmup=1"],
    )
    assert set(losses[0]) >= {"affinity"} and "contrastive" not in losses[0]
    assert losses[-1]["affinity"] < losses[0]["affinity"]


def test_datacompdr(here: Path, recipe_folder: Path) -> None:
    write_reinforced(here / "dr/00000000.tar", range(12))
    write_pictures(here / "pictures/00000.tar", list(range(11)))
    assert [tar.joined for tar in join_tars("dr", "pictures", "data/datacompdr")] == [11]
    _, losses = train(
        "datacompdr",
        here / "data",
        here / "run",
        [
            f"model={recipe_folder / 'tiny.toml'}",
            f"merges={recipe_folder / 'merges.txt.gz'}",
            *("optim.batch=4", "optim.micro_batch=2", "optim.precision=fp32", "stages[0].epochs=2", "stages[0].px=48"),
        ],
    )
    assert len(losses) == 2 * (11 // 4) and set(losses[0]) >= {"ensemble"} and "affinity" not in losses[0]


def test_the_shape_of_tinyclip_is_a_part_of_vit_b_16() -> None:
    """And its parameter counts are the ones in its files."""
    path = find_recipe("tinyclip")
    config = Recipe.load(path).student(path.parent)
    with torch.device("meta"):
        student, larger = create_model(config), create_model("openclip-vit-b-16")
    inherit(student, larger)
    counts = {side: sum(p.numel() for p in getattr(student, side).parameters()) for side in ("image", "text")}
    assert counts == config.parameters
    of_larger = ModelConfig.load("openclip-vit-b-16").parameters
    stated = " + ".join(f"{counts[side] / 1e6:.1f} M" for side in counts)
    assert f"{stated} of {' + '.join(f'{of_larger[side] / 1e6:.1f} M' for side in of_larger)}" in re.sub(
        r"\n# *", " ", path.read_text()
    )


@pytest.mark.parametrize("name", OWN_DATA)
def test_what_is_missing_comes_with_a_hint(name: str, here: Path) -> None:
    """In an empty folder, one line for each thing that a person must bring, and what to do about it."""
    path = find_recipe(name)
    recipe = Recipe.load(path)
    command = [sys.executable, "-m", "pocketclip", "recipe", "check", name, "--data", str(here)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 4 and "Traceback" not in done.stderr
    problems = [line.removeprefix("pocketclip: ") for line in done.stderr.splitlines()]
    assert any(problem.startswith("photos.") for problem in problems)
    for problem in problems:
        assert problem.endswith(f"; {recipe.hints[problem.partition('.')[0].partition(':')[0]]}")


@pytest.mark.parametrize("name", OWN_DATA)
def test_each_has_a_page_that_the_guide_links(name: str) -> None:
    page = (RECIPES / name / "README.md").read_text("utf-8")
    assert f"recipes/{name}/README.md" in (RECIPES.parent / "README.md").read_text("utf-8")
    for part in ("## Commands", "## Cost", "## What to expect", "## What goes wrong"):
        assert part in page, part


def _commands() -> Iterator[tuple[str, str]]:
    """Yield all commands with `--set` in pages and headers of recipes, with the file."""
    for path in (*RECIPES.glob("*/README.md"), *shipped_recipes().values()):
        text = re.sub(r"^# ?", "", path.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
        for command in re.findall(r"^ *(pocketclip (?:train|recipe check) [\w-]+ .*--set.*)$", text, re.MULTILINE):
            yield str(path.relative_to(RECIPES)), command


@pytest.mark.parametrize(("file", "command"), list(_commands()))
def test_the_settings_in_commands_are_accepted(file: str, command: str) -> None:
    words = shlex.split(command)
    name = words[2] if words[1] == "train" else words[3]
    settings = [value for word, value in itertools.pairwise(words) if word == "--set"]
    path = find_recipe(name)
    recipe = Recipe.load(path, parse_settings(settings))
    if recipe.model != "my.toml":  # which only the reader has
        recipe.student(path.parent)

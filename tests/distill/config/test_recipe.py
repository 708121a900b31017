"""Recipes: what is read, and what is refused with a line that names the setting."""

from pathlib import Path

import pytest
import typer

from distill.config import Recipe
from distill.config.command_line import parse_setting
from distill.files import locate, locate_weights
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.towers.config import ModelConfig

RECIPES = Path(__file__).parents[3] / "distill/recipes"
MINIMAL = """
name = "x"
model = "pocket"
merges = "m"
[[open_clip]]
model = "ViT-B-32"
pretrained = ""
[[photos]]
name = "p"
kind = "captions"
file = "f.csv"
[[stages]]
epochs = 1
px = 64
"""


def read(folder: Path, text: str, **overrides: object) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return Recipe.load(path, overrides)


@pytest.mark.parametrize(
    "path",
    sorted(p for p in RECIPES.glob("*/*.toml") if "[[photos]]" in p.read_text()),
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_every_shipped_recipe_is_valid_and_its_files_are_there(path: Path) -> None:
    recipe = Recipe.load(path)
    assert not recipe.merges or locate(recipe.merges, path.parent).is_file()
    assert recipe.tokenizer(path.parent)[1].vocab_size == recipe.student(path.parent).text.vocab_size
    assert recipe.licence and recipe.provenance


def test_settings_can_be_overridden(tmp_path: Path) -> None:
    recipe = read(tmp_path, MINIMAL, **{"optim.lr": 3e-4, "seed": 7})
    assert (recipe.optim.lr, recipe.seed, recipe.photos[0].kind) == (3e-4, 7, "captions")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("optim.learning_rate", 1, "unknown setting learning_rate"),
        ("optim.lr", "fast", "lr: 'fast' is not of type float"),
        ("optim.precision", "fp8", "'fp8' is not one of fp32, bf16, fp16"),
        ("loss.feature", -1.0, "cannot be negative"),
        ("loss.feature", float("nan"), "loss.feature: a weight cannot be negative, NaN or infinite; it is nan"),
        ("loss.bias", float("inf"), "loss.bias must be finite"),
        ("optim.batch", 1, "optim.batch must be at least 2"),
        ("optim.betas", [0.9], "a list of 2"),
        ("optim.betas", [0.9, 1.0], r"optim.betas must lie in \[0, 1\)"),
        ("optim.schedule", "step", "'step' is not one of cosine, linear, constant"),
        ("stages", [{"epochs": 0, "px": 64}], "epochs ≥ 1"),
        ("stages", [], "at least one"),
        ("photos", "all", "a list is needed"),
        ("open_clip", [], "name a teacher"),
        ("open_clip", {"model": "x"}, r"a list is needed, \[\[open_clip\]\]"),
        ("open_clip.model", "x", "open_clip isn't a table"),
        ("loss", {"contrastive": 0, "affinity": 0, "feature": 0}, "at least one weight"),
        ("optim.ema", 1.0, r"ema must lie in \[0, 1\)"),
        ("optim.micro_batch", -1, "micro_batch cannot be negative"),
        ("validate", {"captions": "c.jsonl", "every": 0}, "validate.every"),
        ("checkpoints", [{"path": "x", "logit_scale": -1.0}], "logit_scale cannot be negative"),
        (
            "photos",
            [{"name": "p", "kind": "labels", "file": "f", "names": {"dog": 3}}],
            "names: dog: 3 is not of type str",
        ),
        ("reinforcement.scale", [0.1], "scale: a list of 2 is needed, not of 1"),
        ("reinforcement.ratio", [0.5, 1.0, 2.0], "ratio: a list of 2 is needed, not of 3"),
        ("aligned", {"sentences": "s", "backbones": [{"trunk": "t", "weights": "w", "mean": [0.5]}]}, "a list of 3"),
        (
            "aligned",
            {"sentences": "s", "backbones": [{"trunk": "t", "weights": "w", "std": [0, "a", 1]}]},
            "type float",
        ),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, setting: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, MINIMAL, **{setting: value})


def test_a_missing_setting_and_a_broken_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model is missing"):
        read(tmp_path, MINIMAL.replace('model = "pocket"\n', ""))
    with pytest.raises(ConfigError, match="not TOML"):
        read(tmp_path, "name = ")
    with pytest.raises(ConfigError, match="cannot be read"):
        Recipe.load(tmp_path / "nothing.toml")


def test_settings_of_the_command_line_are_toml_or_text() -> None:
    assert parse_setting("optim.lr=3e-4") == ("optim.lr", 3e-4)
    assert parse_setting("optim.precision=bf16") == ("optim.precision", "bf16")
    with pytest.raises(typer.BadParameter, match="name=value"):
        parse_setting("optim.lr")


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="pocket"):
        ModelConfig.load("nothing-of-the-kind")


def test_items_of_a_list_of_tables_can_be_set(tmp_path: Path) -> None:
    settings = {"photos[0].file": "mine.csv", "open_clip[0].model": "ViT-B-16", "stages[0].px": 96}
    recipe = read(tmp_path, MINIMAL, **settings)
    assert recipe.photos[0].file == "mine.csv" and recipe.photos[0].name == "p"
    assert recipe.teachers[0].weights() == {"ViT-B-16": ""} and recipe.stages[0].px == 96


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photos[1].file", "the recipe has 1 photos, which are counted from 0"),
        ("texts[0].file", "the recipe has 0 texts"),
        ("photos[].file", "counted from 0"),
        ("photos[-1].file", "counted from 0"),
        ("photos.file", r"set all of it, or photos\[0\]"),
        ("optim[0].lr", "the recipe has 0 optim"),
    ],
)
def test_an_item_that_does_not_exist_cannot_be_set(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, MINIMAL, **{name: 1})


def test_models_with_openai_s_tokenizer_need_no_merges(tmp_path: Path) -> None:
    merges, tokenizer = read(tmp_path, MINIMAL, model="mobileclip-s0", merges="not used").tokenizer(tmp_path)
    assert tokenizer.vocab_size == 49408 and len(merges) > 10**6
    with pytest.raises(ConfigError, match="merges is missing; pocket has a tokenizer of its own"):
        read(tmp_path, MINIMAL, merges="").tokenizer(tmp_path)


def test_weights_are_next_to_the_recipe_or_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, here, home = tmp_path / "base", tmp_path / "here", tmp_path / "home"
    for folder in (base, here, home):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(PocketclipError, match=rf"w.pt: no such file or folder, neither in {here} nor next to"):
        locate_weights("w.pt", base)
    (here / "w.pt").touch()
    assert locate_weights("w.pt", base) == here / "w.pt"
    (base / "w.pt").touch()
    assert locate_weights("w.pt", base) == base / "w.pt"
    (home / "v.pt").touch()
    assert locate_weights("~/v.pt", base) == home / "v.pt" == locate_weights(str(home / "v.pt"), base)
    assert locate_weights("mobileclip:bundles/pocket/merges.txt.gz", base).is_file()
    with pytest.raises(PocketclipError, match="the package nowhere is needed"):
        locate_weights("nowhere:w.pt", base)


@pytest.mark.parametrize("value", [1.0, -0.1])
def test_keep_start_is_a_share(tmp_path: Path, value: float) -> None:
    with pytest.raises(ConfigError, match="keep_start must lie in"):
        read(tmp_path, MINIMAL, start="s", keep_start=value)
    with pytest.raises(ConfigError, match=r"keep_start .* needs start"):
        read(tmp_path, MINIMAL, keep_start=0.5)

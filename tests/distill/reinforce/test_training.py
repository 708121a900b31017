"""Whole runs: reinforce with a checkpoint as teacher, train on what it made, stop, go on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.reinforce.cli import reinforce
from distill.reinforce.shards import SIDECAR, Sidecar
from distill.training.run import prepare
from distill.training.trainer import TrainingError
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP, ModelConfig, create_model
from tests.distill.reinforce.conftest import BASE, SOURCES, TinyTeacher, recipe


def table(sources: dict[str, dict[str, Any]]) -> str:
    """Sources as TOML."""
    return "".join(
        "\n[[photos]]\n" + "".join(f"{key} = {value!r}\n" for key, value in {"name": name, **fields}.items())
        for name, fields in sources.items()
    )


@pytest.fixture(scope="module")
def teacher(recipe_folder: Path) -> Path:
    """A checkpoint of a random model."""
    torch.manual_seed(3)
    model = create_model(ModelConfig.load(str(recipe_folder / "tiny.toml")))
    folder = recipe_folder / "teacher"
    save_checkpoint(model, (recipe_folder / "merges.txt.gz").read_bytes(), folder, {"name": "teacher"})
    return folder


@pytest.fixture(scope="module")
def home(data: Path, recipe_folder: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder, reinforced in `made` by `pocketclip reinforce`, and the recipe that trains on it."""
    home = tmp_path_factory.mktemp("run") / "data"
    shutil.copytree(data, home)
    asked = BASE.replace('[[open_clip]]\nmodel = "not asked for here"', '[[checkpoints]]\npath = "teacher"')
    (recipe_folder / "reinforce.toml").write_text(asked + table(dict(SOURCES)), "utf-8")
    settings = ["reinforcement.dtype=int8"]
    reinforce(recipe_folder / "reinforce.toml", home / "made", home, 2, settings, workers=0, quiet=True)
    return home


def train(
    recipe_folder: Path, home: Path, out: Path, steps: int | None = None, **overrides: Any
) -> dict[str, torch.Tensor]:
    """Train on the reinforced data, to the end or for so many steps; returns the student's weights."""
    plan = recipe(home, {"all": {"kind": "reinforced", "file": "made"}}, open_clip=[], save_every=3, **overrides)
    run = prepare(plan, recipe_folder, home, out, lambda *_: None, workers=0)
    for step in run.trainer.run():
        if step.step == steps:
            return {}
    return load_file(next(run.finish().glob("*.safetensors")))


def test_the_command_stores_what_its_teacher_says(home: Path, teacher: Path) -> None:
    sidecar = Sidecar.load(home / "made")
    assert sidecar.complete and sidecar.policy.augmentations == 2 and sidecar.policy.dtype == "int8"
    (note,) = sidecar.teachers
    assert note.dim == 24 and note.px == 48 and str(load_checkpoint(teacher).model.config.embed_dim) == "24"


def test_a_run_needs_no_teacher_and_goes_on_where_it_stopped(home: Path, recipe_folder: Path, tmp_path: Path) -> None:
    whole = train(recipe_folder, home, tmp_path / "whole")
    train(recipe_folder, home, tmp_path / "parts", steps=5)
    train(recipe_folder, home, tmp_path / "parts", steps=11)
    parts = train(recipe_folder, home, tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_another_reinforcement_is_not_gone_on_with(home: Path, recipe_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "data")
    train(recipe_folder, tmp_path / "data", tmp_path / "out", steps=4)
    sidecar = tmp_path / "data/made" / SIDECAR
    sidecar.write_text(sidecar.read_text().replace('"logit_scale": ', '"logit_scale": 1'))
    with pytest.raises(TrainingError, match="other data"):
        train(recipe_folder, tmp_path / "data", tmp_path / "out")


def test_the_teacher_is_learnt(home: Path, recipe_folder: Path, tmp_path: Path) -> None:
    plan = recipe(
        home,
        {"all": {"kind": "reinforced", "file": "made", "per_epoch": 4}},
        open_clip=[],
        **{"optim.lr": 5e-3, "optim.lr_trunk": 5e-3},
    )
    run = prepare(plan, recipe_folder, home, tmp_path, lambda *_: None, workers=0)
    losses = [step.losses["feature"] for step in run.trainer.run()]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_student_that_starts_from_another_is_laid_on_its_teacher_s_axes(
    home: Path, recipe_folder: Path, teacher: Path, tmp_path: Path
) -> None:
    """The teacher itself, turned at random, is turned back."""
    model = load_checkpoint(teacher).model
    turn = torch.linalg.qr(torch.randn(24, 24))[0]
    with torch.no_grad():
        for projection in (model.image.projection, model.text.projection):
            projection.weight.copy_(turn @ projection.weight)
            if projection.bias is not None:
                projection.bias.copy_(turn @ projection.bias)
    save_checkpoint(model, (recipe_folder / "merges.txt.gz").read_bytes(), tmp_path / "turned", {"name": "turned"})
    said: dict[str, str] = {}
    plan = recipe(home, {"all": {"kind": "reinforced", "file": "made"}}, open_clip=[], start=str(tmp_path / "turned"))
    made = prepare(plan, recipe_folder, home, tmp_path / "out", lambda what, *_: said.update({what: _[-1]}), workers=0)
    assert float(said["start"].split()[-1]) > 0.97
    student: CLIP = made.trainer.model
    assert torch.allclose(
        student.text.projection.weight, load_checkpoint(teacher).model.text.projection.weight, atol=0.2
    )


def test_a_run_beside_its_teacher_goes_on_too(
    home: Path, recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.training.run.assemble_teachers", lambda *_: (TinyTeacher(0),))

    def run(out: Path, steps: int | None = None) -> dict[str, torch.Tensor]:
        plan = recipe(home, SOURCES, teach="online", save_every=3, **{"loss.bank": 0})
        made = prepare(plan, recipe_folder, home, out, lambda *_: None, workers=0)
        for step in made.trainer.run():
            if step.step == steps:
                return {}
        return load_file(next(made.finish().glob("*.safetensors")))

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", 5)
    parts = run(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_an_aligned_pair_needs_something_to_be_fitted_to(recipe_folder: Path, home: Path, tmp_path: Path) -> None:
    aligned = {"sentences": "none", "backbones": [{"trunk": "test_efficientnet", "weights": "none"}]}
    plan = recipe(tmp_path, {"tars": SOURCES["tars"]}, aligned=aligned, open_clip=[])
    from distill.reinforce.run import assemble_teachers

    with pytest.raises(ConfigError, match="is fitted to captions and labels files"):
        assemble_teachers(plan, recipe_folder, home, tmp_path / "teachers", lambda *_: None)

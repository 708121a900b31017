"""Runs on reinforced data, and with teachers at every step."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.recipe.check import check_recipe
from distill.reinforce.shards import SIDECAR
from distill.training.run import prepare
from distill.training.trainer import TrainingError
from distill.training.trial import try_recipe
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.towers import CLIP
from tests.distill.mixed import SOURCES, TinyTeacher, recipe
from tests.distill.reinforce.common import run_command, write_teacher


@pytest.fixture(scope="module")
def teacher(mixed_model: Path) -> Path:
    """A checkpoint of a random model."""
    return write_teacher(mixed_model)


@pytest.fixture(scope="module")
def home(mixed_data: Path, mixed_model: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `mixed_data`, reinforced in `made`."""
    home = tmp_path_factory.mktemp("run") / "data"
    shutil.copytree(mixed_data, home)
    run_command(mixed_model, home, home / "made")
    return home


def train(
    mixed_model: Path, home: Path, out: Path, steps: int | None = None, **overrides: Any
) -> dict[str, torch.Tensor]:
    """Train on the reinforced data, to the end or for so many steps; returns the student's weights."""
    plan = recipe(home, {"all": {"kind": "reinforced", "file": "made"}}, open_clip=[], save_every=3, **overrides)
    run = prepare(plan, mixed_model, home, out, lambda *_: None, workers=0)
    for step in run.trainer.run():
        if step.step == steps:
            return {}
    return load_file(next(run.finish().glob("*.safetensors")))


def test_a_run_resumes_without_a_teacher(home: Path, mixed_model: Path, tmp_path: Path) -> None:
    whole = train(mixed_model, home, tmp_path / "whole")
    train(mixed_model, home, tmp_path / "parts", steps=5)
    train(mixed_model, home, tmp_path / "parts", steps=11)
    parts = train(mixed_model, home, tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_does_not_resume_with_other_reinforced_data(home: Path, mixed_model: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "data")
    train(mixed_model, tmp_path / "data", tmp_path / "out", steps=4)
    sidecar = tmp_path / "data/made" / SIDECAR
    sidecar.write_text(sidecar.read_text().replace('"logit_scale": ', '"logit_scale": 1'))
    with pytest.raises(TrainingError, match="other data"):
        train(mixed_model, tmp_path / "data", tmp_path / "out")


def test_the_student_learns_from_the_teacher(home: Path, mixed_model: Path, tmp_path: Path) -> None:
    plan = recipe(
        home,
        {"all": {"kind": "reinforced", "file": "made", "per_epoch": 4}},
        open_clip=[],
        **{"optim.lr": 5e-3, "optim.lr_trunk": 5e-3},
    )
    run = prepare(plan, mixed_model, home, tmp_path, lambda *_: None, workers=0)
    losses = [step.losses["feature"] for step in run.trainer.run()]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_start_checkpoint_is_rotated_to_the_teacher(
    home: Path, mixed_model: Path, teacher: Path, tmp_path: Path
) -> None:
    """A randomly rotated copy of the teacher is rotated back."""
    model = load_checkpoint(teacher).model
    turn = torch.linalg.qr(torch.randn(24, 24))[0]
    with torch.no_grad():
        for projection in (model.image.projection, model.text.projection):
            projection.weight.copy_(turn @ projection.weight)
            if projection.bias is not None:
                projection.bias.copy_(turn @ projection.bias)
    save_checkpoint(model, (mixed_model / "merges.txt.gz").read_bytes(), tmp_path / "turned", {"name": "turned"})
    notes: dict[str, str] = {}
    plan = recipe(home, {"all": {"kind": "reinforced", "file": "made"}}, open_clip=[], start=str(tmp_path / "turned"))
    made = prepare(plan, mixed_model, home, tmp_path / "out", lambda what, *_: notes.update({what: _[-1]}), workers=0)
    assert float(notes["start"].split()[-1]) > 0.97
    student: CLIP = made.trainer.model
    assert torch.allclose(
        student.text.projection.weight, load_checkpoint(teacher).model.text.projection.weight, atol=0.2
    )


def test_a_run_with_online_teachers_resumes(
    home: Path, mixed_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.training.run.make_teachers", lambda *_: (TinyTeacher(0),))

    def run(out: Path, steps: int | None = None) -> dict[str, torch.Tensor]:
        plan = recipe(home, SOURCES, teach="online", save_every=3, **{"loss.bank": 0})
        made = prepare(plan, mixed_model, home, out, lambda *_: None, workers=0)
        for step in made.trainer.run():
            if step.step == steps:
                return {}
        return load_file(next(made.finish().glob("*.safetensors")))

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", 5)
    parts = run(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_texts_alone_train_the_text_tower(
    mixed_data: Path, mixed_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a recipe that names no photos, as a trial and for real."""
    monkeypatch.setattr("distill.training.run.make_teachers", lambda *_: (TinyTeacher(0),))
    plan = recipe(
        tmp_path,
        {},
        texts=[{"name": "words", "kind": "lines", "file": "words.txt"}],
        stages=[{"epochs": 3, "texts_only": True}],
        optim={"batch": 2, "extra_texts": 0},
        loss={"contrastive": 0.0},
    )
    assert check_recipe(plan, mixed_model, mixed_data).found["texts.words"] == "4 texts"
    (trial,) = try_recipe(plan, mixed_model, mixed_data, lambda *_: None, workers=0).stages
    assert trial.steps == 6
    run = prepare(plan, mixed_model, mixed_data, tmp_path / "run", lambda *_: None, workers=0)
    before = {name: value.clone() for name, value in run.trainer.model.state_dict().items()}
    assert len(list(run.trainer.run())) == 6
    after = run.trainer.model.state_dict()
    moved = {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"text"} and (run.finish() / "model.safetensors").is_file()

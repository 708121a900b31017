"""Plain contrastive training: photos and texts, and no teacher."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.config import Recipe
from distill.evaluate.encoders import open_encoder
from distill.evaluate.run import evaluate_captions
from distill.training.run import prepare
from distill.training.trainer import TrainingError
from mobileclip.checkpoints import load_checkpoint
from mobileclip.errors import ConfigError
from tests.distill.conftest import run
from tests.distill.mixed import SOURCES, recipe

ALONE = {"contrastive": 1.0, "affinity": 0.0, "feature": 0.0}


@pytest.fixture(scope="module")
def plain(recipe_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small recipe without its teacher."""
    folder = tmp_path_factory.mktemp("plain")
    text = (recipe_folder / "recipe.toml").read_text()
    begin, end = text.index("[aligned]"), text.index("[loss]")
    (folder / "recipe.toml").write_text(text[:begin] + text[end:])
    for name in ("tiny.toml", "merges.txt.gz"):
        (folder / name).write_bytes((recipe_folder / name).read_bytes())
    return folder


def test_a_student_learns_without_a_teacher(plain: Path, data: Path, tmp_path: Path) -> None:
    """Unseen pictures are found far better than by chance (5 in 16 at random)."""
    settings: dict[str, Any] = {
        "loss": ALONE,
        "stages": [{"epochs": 14, "px": 64, "crop": 0.9}],
        "optim.lr_trunk": 2e-3,
        "optim.extra_texts": 0,
    }
    student = run(plain, data, tmp_path, **settings)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert lines[-1]["contrastive"] < 0.7 * lines[0]["contrastive"] and "affinity" not in lines[0]
    found = evaluate_captions(open_encoder(student), data / "shapes/captions.jsonl", data / "shapes/splits.csv", "test")
    assert found["text_to_photo"]["R@5"] > 0.6
    assert not list(tmp_path.glob("cache/*"))


def test_fine_tuning_keeps_the_student_s_axes(plain: Path, data: Path, student: Path, tmp_path: Path) -> None:
    """Without a teacher there is nothing to align to: the run starts from exactly these weights."""
    plan = Recipe.load(plain / "recipe.toml", {"loss": ALONE, "start": str(student)})
    trainer = prepare(plan, plain, data, tmp_path, lambda *_: None, workers=0).trainer
    before = load_checkpoint(student).model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert len(list(trainer.run())) == 10


@pytest.mark.parametrize("teach", ["cached", "online"])
def test_every_source_trains_without_a_teacher(teach: str, mixed_data: Path, mixed_model: Path, tmp_path: Path) -> None:
    """Tars too, and photos that can't be read are left out."""
    plan = recipe(tmp_path, SOURCES, open_clip=[], loss=ALONE, teach=teach)
    trainer = prepare(plan, mixed_model, mixed_data, tmp_path, lambda *_: None, workers=0).trainer
    steps = list(trainer.run())
    assert len(steps) == 2 * (58 // 8) and 1 <= steps[-1].unread <= 4


def test_losses_that_need_a_teacher_are_named(plain: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss.feature and loss.affinity need a teacher: name a teacher, .* or set"):
        Recipe.load(plain / "recipe.toml")


def test_frozen_features_need_no_teacher_and_skip_unreadable_photos(
    mixed_data: Path, mixed_model: Path, tmp_path: Path
) -> None:
    """One of the captioned photos is broken: its features are NaN and would spoil a batch."""
    stages = [{"epochs": 1, "features": True}]
    plan = recipe(mixed_data, SOURCES, open_clip=[], loss=ALONE, stages=stages)
    trainer = prepare(plan, mixed_model, mixed_data, tmp_path, lambda *_: None, workers=0).trainer
    assert trainer.feed.samples.unreadable == 1
    assert all(batch.pixels.isfinite().all() for batch in trainer.feed.batches(0, plan.stages[0], 0))
    assert len(list(trainer.run())) == 56 // 8


def test_fine_tuning_keeps_a_share_of_its_start(plain: Path, data: Path, student: Path, tmp_path: Path) -> None:
    """WiSE-FT, also of a run that is finished, and in the student that validation measures."""
    settings: dict[str, Any] = {
        "loss": ALONE,
        "start": str(student),
        "stages": [{"epochs": 1, "px": 48}],
        "optim.lr_trunk": 1e-3,
        "validate": {"labels": "colors/labels.csv", "split": "test"},
    }
    start = load_checkpoint(student).model.state_dict()
    tuned = load_checkpoint(run(plain, data, tmp_path, **settings)).model.state_dict()
    mixed = load_checkpoint(run(plain, data, tmp_path, keep_start=0.25, **settings)).model.state_dict()
    for name, value in mixed.items():
        if value.is_floating_point():
            wanted = 0.25 * start[name] + 0.75 * tuned[name]
            assert torch.allclose(value, wanted, rtol=2e-3, atol=2e-3), name
    assert any(not torch.allclose(value, tuned[name], rtol=2e-3, atol=2e-3) for name, value in mixed.items())
    saved = load_checkpoint(tmp_path / "checkpoints/step-00000005.pt").model.state_dict()
    assert all(torch.allclose(value, tuned[name], rtol=2e-3, atol=2e-3) for name, value in saved.items())
    again = run(plain, data, tmp_path / "at once", keep_start=0.25, **settings)
    best = load_checkpoint(tmp_path / "at once" / "best").model.state_dict()
    assert all(torch.equal(value, best[name]) for name, value in load_checkpoint(again).model.state_dict().items())
    assert all(torch.equal(value, mixed[name]) for name, value in best.items())


def test_only_the_share_of_the_start_may_change_when_a_run_is_finished(
    plain: Path, data: Path, student: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"loss": ALONE, "start": str(student), "stages": [{"epochs": 1, "px": 48}]}
    run(plain, data, tmp_path, **settings)
    with pytest.raises(TrainingError, match="the run is finished, with other settings"):
        run(plain, data, tmp_path, **settings, **{"keep_start": 0.5, "optim.lr": 1e-5})

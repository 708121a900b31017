"""The registry of losses: a new one needs a function and its registration, and a recipe can then use it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distill.config import LossConfig, Recipe
from distill.config.saved import load_saved_recipe, save_recipe
from distill.losses import LOSSES, LossInputs, Need, register
from distill.report.settings import settings
from distill.training.task import DistillTask
from distill.training.trainer import Trainer
from mobileclip.errors import ConfigError
from tests.distill.training.toys import DIM, EVERY_LOSS, OTHER, RECIPE, ToyFeed, toy_batch, toy_model


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Remove what a test registers."""
    before = dict(LOSSES)
    yield
    LOSSES.clear()
    LOSSES.update(before)


def register_cosine(*needs: Need, weight: float = 0.0) -> None:
    """A loss with parameters of its own: one minus the cosine to each teacher, after a linear map."""

    def maps(dimension: int, teachers: object) -> dict[str, nn.Module]:
        return {"cosine_map": nn.Linear(dimension, dimension, bias=False)}

    @register("cosine", *needs, weight=weight, modules=maps)
    def cosine(step: LossInputs) -> Tensor:
        """One minus the cosine of photos."""
        mapped = step.modules["cosine_map"](step.image)
        return 1 - torch.cosine_similarity(mapped, step.matching_teachers[0].image).mean()


def recipe(folder: Path, table: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.replace("[optim]", f"[loss]\n{table}\n[optim]"))
    return Recipe.load(path)


def test_a_recipe_trains_with_a_loss_that_was_registered_elsewhere(tmp_path: Path) -> None:
    register_cosine(Need.SAME_DIMENSION)
    plan = recipe(tmp_path, "cosine = 0.5\ncontrastive = 0\nfeature = 0\naffinity = 0")
    trainer = Trainer(plan, toy_model(), ToyFeed(steps=2), tmp_path)
    before = {name: value.clone() for name, value in trainer.task.named_parameters()}
    first, second = trainer.run()
    assert set(first.losses) == {"loss", "cosine", "logit_scale", "gradient_norm"}
    assert first.losses["loss"] == pytest.approx(0.5 * first.losses["cosine"], abs=1e-5)
    assert second.losses["cosine"] < first.losses["cosine"]
    learned = {name for name, value in trainer.task.named_parameters() if not torch.equal(value, before[name])}
    assert {"cosine_map.weight", "model.image.projection.weight"} <= learned
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged[1]["cosine"] == second.losses["cosine"]
    save_recipe(tmp_path, plan)
    assert load_saved_recipe(tmp_path) == plan
    (shown,) = [setting for setting in settings(plan) if setting.name == "loss.cosine"]
    assert (shown.value, shown.chosen) == ("0.5", True)


def test_a_registered_loss_has_its_default_weight(tmp_path: Path) -> None:
    register_cosine(Need.SAME_DIMENSION, weight=0.25)
    assert recipe(tmp_path, "bank = 4").loss.weights["cosine"] == 0.25
    assert LossConfig({"cosine": 0.0}).weights["cosine"] == 0.0


@pytest.mark.parametrize(
    ("need", "teachers", "said"),
    [
        (Need.TEACHER, (), "loss.cosine needs a teacher"),
        (Need.SAME_DIMENSION, (OTHER,), "set loss.cosine to 0, or give both"),
        (Need.REFERENCE, (OTHER,), "set loss.cosine to 0, or loss.bank to 0"),
        (Need.POSTERIOR, (OTHER, DIM), "loss.cosine: the first teacher has"),
    ],
)
def test_the_checks_follow_from_what_a_loss_needs(need: Need, teachers: tuple[int, ...], said: str) -> None:
    register_cosine(need)
    losses = LossConfig({**dict.fromkeys(EVERY_LOSS, 0.0), "cosine": 1.0})
    with pytest.raises(ConfigError, match=said):
        DistillTask(toy_model(), losses, teachers)
    with pytest.raises(ConfigError, match="at least one weight"):
        LossConfig(dict.fromkeys(LOSSES, 0.0))


@pytest.mark.parametrize(
    ("need", "stages", "said"),
    [
        (Need.POSTERIOR, "[[stages]]\nepochs = 1\npx = 32", "loss.cosine needs a first teacher with classes"),
        (Need.MASKED, "[[stages]]\nepochs = 1\nfeatures = true", "loss.cosine needs photos, not features"),
        (Need.TEACHER, "[[stages]]\nepochs = 1\ntexts_only = true", "texts_only needs loss.feature, or loss.affinity"),
    ],
)
def test_a_recipe_is_checked_by_what_a_loss_needs(tmp_path: Path, need: Need, stages: str, said: str) -> None:
    register_cosine(need)
    start = RECIPE.partition("[[stages]]")[0].replace("reinforced", "captions")
    teacher = '[[open_clip]]\nmodel = "m"\n[loss]\ncosine = 1\nfeature = 0\naffinity = 0\n'
    (tmp_path / "recipe.toml").write_text(f"{start}{teacher}{stages}")
    with pytest.raises(ConfigError, match=said):
        Recipe.load(tmp_path / "recipe.toml")


def test_a_loss_gets_only_inputs_that_the_step_has() -> None:
    seen: list[LossInputs] = []

    @register("probe", Need.BIAS, Need.MASKED, texts=lambda step: step.text.sum())
    def probe(step: LossInputs) -> Tensor:
        """Keep the inputs."""
        seen.append(step)
        return step.needed("masked").sum() + step.needed("bias")

    weights = {**dict.fromkeys(EVERY_LOSS, 0.0), "probe": 1.0}
    task = DistillTask(toy_model(), LossConfig(weights, bias=-3.0), (DIM, OTHER))
    assert float(task(toy_batch())["probe"]) == pytest.approx(float(seen[0].needed("masked").sum().detach()) - 3)
    assert seen[0].matching_teachers[0].text.shape == (8, DIM) and seen[0].teachers[1].text.shape == (12, OTHER)
    assert set(task(toy_batch(n=0))) == {"loss", "probe", "logit_scale"} and len(seen) == 1
    plain = DistillTask(toy_model(), LossConfig({"probe": 0.0}), (DIM, OTHER))
    assert "bias" not in plain.state_dict()
    inputs = plain._loss_inputs(plain.encode(toy_batch().pixels, toy_batch().tokens), toy_batch())
    with pytest.raises(ValueError, match="no masked"):
        inputs.needed("masked")


def test_names_are_unique_and_known() -> None:
    register_cosine()
    for taken in ("cosine", "bank"):
        with pytest.raises(ValueError, match=taken):
            register(taken)(lambda step: step.image.sum())
    with pytest.raises(ConfigError, match="unknown loss tribute; known are contrastive"):
        LossConfig({"tribute": 1.0})


def test_every_loss_describes_itself() -> None:
    assert set(EVERY_LOSS) == set(LOSSES)
    for loss in LOSSES.values():
        assert loss.description.endswith(".") and loss.description[0].isupper()

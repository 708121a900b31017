"""Heads on a trunk: their layers against an oracle, their initial weights, and training on features computed once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.config import Recipe
from distill.feeds.corpus import CorpusSamples
from distill.teachers.bank import TeacherBank
from distill.training.initialize import align_to_teacher
from distill.training.run import build_student, prepare
from mobileclip.checkpoints import load_checkpoint
from mobileclip.errors import ConfigError
from mobileclip.photos import open_photo
from mobileclip.towers import ImageConfig, create_model
from mobileclip.towers.image import ImageTower
from tests.distill.conftest import run

FEATURES = [{"epochs": 3, "features": True, "frozen": ["image.classes.classifier"]}]


@pytest.fixture
def headed(recipe_folder: Path, data: Path, encoders: Path, tmp_path: Path) -> tuple[Path, dict[str, object]]:
    """A recipe folder whose student has a hidden layer and a classifier, and settings to train it on features."""
    (data / "classes.csv").write_text("file,label\n" + "".join(f"{i:04}.png,thing {i}\n" for i in range(1000)))
    folder = tmp_path / "headed"
    folder.mkdir()
    for file in ("recipe.toml", "merges.txt.gz"):
        (folder / file).write_bytes((recipe_folder / file).read_bytes())
    plain = (recipe_folder / "tiny.toml").read_text()
    (folder / "tiny.toml").write_text(plain.replace("[text]", "dropout = 0.1\nhidden = 24\nclasses = 1000\n[text]"))
    settings = {"init": str(encoders / "trunk.pth"), "aligned.class_names": "classes.csv", "stages": FEATURES}
    return folder, settings


def test_what_stands_on_the_trunk_adds_up() -> None:
    torch.manual_seed(1)
    config = ImageConfig("test_efficientnet", dropout=0.5, hidden=24, classes=9, class_share=0.7)
    tower = ImageTower(config, 16).eval()
    features = torch.randn(5, 256) * 3
    state = {name: value.double().numpy() for name, value in tower.state_dict().items() if "trunk" not in name}
    x = features.double().numpy()

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    middle = np.maximum(x @ state["hidden.0.weight"].T + state["hidden.0.bias"], 0)
    vectors = x @ state["projection.weight"].T + middle @ state["hidden.3.weight"].T + state["hidden.3.bias"]
    logits = x @ state["classes.classifier.weight"].T + state["classes.classifier.bias"]
    seen = np.exp(logits - logits.max(axis=1, keepdims=True))
    said = (seen / seen.sum(axis=1, keepdims=True)) @ state["classes.vectors.weight"].T
    with torch.no_grad():
        mine = tower.project(features)
        assert torch.equal(tower(features), mine)
        pixels = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(tower(pixels), tower(tower.trunk(pixels)))
    np.testing.assert_allclose(mine.numpy(), unit(vectors) + 0.7 * unit(said), atol=1e-5)
    for wrong in ({"hidden": -1}, {"classes": -2}, {"class_share": 0.0}):
        with pytest.raises(ConfigError, match="an image tower needs"):
            ImageConfig("test_efficientnet", **wrong)  # type: ignore[arg-type]


def test_a_classifier_begins_as_its_trunk_s_and_says_what_the_teacher_says(
    headed: tuple[Path, dict[str, object]], data: Path, encoders: Path, tmp_path: Path
) -> None:
    import timm

    folder, settings = headed
    recipe = Recipe.load(folder / "recipe.toml", settings)
    classifier = timm.create_model("test_efficientnet").eval()
    classifier.load_state_dict(torch.load(encoders / "trunk.pth", weights_only=True))
    image = build_student(recipe, folder).eval().image
    pixels = torch.rand(2, 3, 64, 64)
    assert image.classes is not None
    with torch.no_grad():
        torch.testing.assert_close(image.classes.classifier(image.trunk(pixels)), classifier(pixels))
    trainer = prepare(recipe, folder, data, tmp_path / "out", lambda *_: None, workers=0).trainer
    assert isinstance(trainer.feed.samples, CorpusSamples) and trainer.model.image.classes is not None
    theirs = trainer.feed.samples.banks[0].classes
    assert theirs is not None
    torch.testing.assert_close(trainer.model.image.classes.vectors.weight.T.detach(), theirs - theirs.mean(dim=0))
    without = Recipe.load(folder / "recipe.toml", {**settings, "aligned.class_names": ""})
    with pytest.raises(ConfigError, match=r"1000 × 32: give \[aligned\] class_names"):
        prepare(without, folder, data, tmp_path / "without", lambda *_: None, workers=0)


def test_features_stand_in_for_photos(headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path) -> None:
    """The trunk and what is frozen stay, the rest learns; and a feature is that of the whole photo."""
    folder, settings = headed
    recipe = Recipe.load(folder / "recipe.toml", {**settings, "optim.ema": 0.0, "optim.lr": 3e-3})
    trainer = prepare(recipe, folder, data, tmp_path, lambda *_: None, workers=0).trainer
    model, feed = trainer.model.eval(), trainer.feed
    assert isinstance(feed.samples, CorpusSamples) and feed.samples.features is not None
    batch = next(feed.batches(0, recipe.stages[0], 0))
    rows = feed.samples.corpus.epoch(recipe.seed, 0)[: len(batch.pixels)]
    photos = [open_photo(feed.samples.corpus.samples[row].photo.path) for row in rows[:4]]
    with torch.no_grad():
        exact = model.image.trunk(torch.from_numpy(np.stack([model.config.pixels(photo) for photo in photos])))
    torch.testing.assert_close(batch.pixels[:4], exact, rtol=1e-3, atol=1e-4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = [progress.losses["loss"] for progress in trainer.run()]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith(("image.trunk.", "image.classes.classifier.")) for name in moved)
    assert {"image.projection.weight", "image.hidden.3.weight", "image.classes.vectors.weight"} <= moved
    assert any(name.startswith("text.") for name in moved)


def test_half_precision_on_the_cpu_has_the_same_features_and_learns(
    headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path
) -> None:
    folder, settings = headed

    def files() -> set[str]:
        return {path.name for path in (tmp_path / "cache").iterdir() if path.suffix == ".npy"}

    prepare(Recipe.load(folder / "recipe.toml", settings), folder, data, tmp_path, lambda *_: None, workers=0)
    before = files()
    half = {"optim.precision": "bf16", "aligned.precision": "bf16", "optim.lr": 3e-3}
    recipe = Recipe.load(folder / "recipe.toml", {**settings, **half})
    trainer = prepare(recipe, folder, data, tmp_path, lambda *_: None, workers=0).trainer
    assert before and files() == before
    losses = [progress.losses["loss"] for progress in trainer.run()]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_a_run_on_features_resumed_equals_one_never_stopped(
    headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path
) -> None:
    folder, settings = headed
    whole = run(folder, data, tmp_path / "whole", **settings)
    run(folder, data, tmp_path / "again", steps=7, **settings)
    again = run(folder, data, tmp_path / "again", **settings)
    a, b = load_checkpoint(whole).model.state_dict(), load_checkpoint(again).model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    lines = [json.loads(line) for line in (tmp_path / "again/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))


def test_processes_share_a_batch_of_features(
    headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.distill.feeds.common import set_process

    folder, settings = headed
    recipe = Recipe.load(folder / "recipe.toml", settings)
    feed = prepare(recipe, folder, data, tmp_path, lambda *_: None, workers=0).trainer.feed
    whole = list(feed.batches(1, recipe.stages[0], 1))
    for rank in (0, 1):
        set_process(monkeypatch, rank, 2)
        shares = list(feed.batches(1, recipe.stages[0], 1))
        assert len(shares) == len(whole) > 1
        for share, batch in zip(shares, whole, strict=True):
            assert torch.equal(share.pixels, batch.pixels[rank::2])
            assert torch.equal(share.tokens[: len(share.pixels)], batch.tokens[: len(batch.pixels)][rank::2])


def test_features_in_parts_teach_as_the_whole_batch_does(
    headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path
) -> None:
    """Gradient caching, exact up to rounding: dropout draws other numbers, so there is none."""
    folder, settings = headed
    (folder / "tiny.toml").write_text((folder / "tiny.toml").read_text().replace("dropout = 0.1", "dropout = 0.0"))
    weights = []
    for part in (0, 8):
        out = tmp_path / str(part)
        run(folder, data, out, steps=3, **{**settings, "optim.micro_batch": part, "save_every": 1})
        recipe = Recipe.load(folder / "recipe.toml", {**settings, "optim.micro_batch": part, "save_every": 1})
        trainer = prepare(recipe, folder, data, out, lambda *_: None, workers=0).trainer
        weights.append(trainer.model.image.projection.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-2, atol=1e-3)


def test_a_photo_that_cannot_be_read_has_no_features(
    headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path
) -> None:
    import shutil

    folder, settings = headed
    world = tmp_path / "world"
    shutil.copytree(data, world)
    (world / "shapes/images/3.png").write_bytes(b"no picture")
    recipe = Recipe.load(folder / "recipe.toml", settings)
    trainer = prepare(recipe, folder, world, tmp_path / "out", lambda *_: None, workers=0).trainer
    assert isinstance(trainer.feed.samples, CorpusSamples) and len(trainer.feed.samples.corpus.unreadable) == 1
    assert all(np.isfinite(progress.losses["loss"]) for progress in trainer.run())


@pytest.mark.parametrize(
    "change,message",
    [
        ({"stages": [{"epochs": 1, "px": 48}, *FEATURES]}, "must come before the trunk learns"),
        ({"stages": [{"epochs": 1, "features": True, "px": 64}]}, "features = true or texts_only = true and no px"),
        ({"stages": [{"epochs": 1, "features": True, "texts_only": True}]}, "texts_only or features, not both"),
        ({"loss.masked_feature": 1.0}, "needs photos, not features"),
        ({"teach": "online"}, "same whole photos in every epoch"),
    ],
)
def test_settings_that_no_features_fit_are_refused(
    headed: tuple[Path, dict[str, object]], change: dict[str, object], message: str
) -> None:
    folder, settings = headed
    with pytest.raises(ConfigError, match=message):
        Recipe.load(folder / "recipe.toml", {**settings, **change})


def test_turning_a_student_turns_all_that_it_says(
    headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path
) -> None:
    """A teacher that is the student itself, turned at random, is met exactly, and similarities stay as they were."""
    folder, settings = headed
    recipe = Recipe.load(folder / "recipe.toml", settings)
    trainer = prepare(recipe, folder, data, tmp_path, lambda *_: None, workers=0).trainer
    model, feed = trainer.model.eval(), trainer.feed
    assert isinstance(feed.samples, CorpusSamples) and feed.samples.features is not None
    turn = torch.linalg.qr(torch.randn(32, 32))[0]
    features = feed.samples.features.photos.columns(feed.samples.features.photos.width)
    with torch.no_grad():
        seen = model.encode_image(features)
        said = model.encode_text(torch.from_numpy(feed.tokenizer(feed.samples.corpus.texts)))
    feed.samples.banks = (TeacherBank(seen @ turn, said @ turn, 20.0),)
    assert align_to_teacher(model, recipe, feed) > 0.999
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(features), seen @ turn, rtol=1e-3, atol=1e-3)


def test_a_trunk_that_learns_later_may_have_been_at_rest_before(headed: tuple[Path, dict[str, object]]) -> None:
    folder, settings = headed
    rest = {"epochs": 1, "px": 48, "frozen": ["image.trunk"]}
    words = {"epochs": 1, "texts_only": True}
    recipe = Recipe.load(
        folder / "recipe.toml", {**settings, "stages": [words, rest, *FEATURES, {"epochs": 1, "px": 48}]}
    )
    assert dataclasses.replace(recipe.stages[2], features=False, px=64).frozen == ("image.classes.classifier",)


def test_a_checkpoint_keeps_what_stands_on_its_trunk(headed: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    from mobileclip.checkpoints import save_checkpoint, save_openclip

    folder, _ = headed
    model = create_model(folder / "tiny.toml").eval()
    save_checkpoint(model, (folder / "merges.txt.gz").read_bytes(), tmp_path / "kept", {"name": "tiny"})
    again = load_checkpoint(tmp_path / "kept").model
    assert again.config == model.config
    with pytest.raises(ConfigError, match="OpenCLIP does not support"):
        save_openclip(load_checkpoint(tmp_path / "kept"), tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert float((again.encode_image(pixels) * model.encode_image(pixels)).sum(dim=1).min()) > 0.9999


def test_a_finished_student_says_where(headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path) -> None:
    """By the projection nearest to the head, whether the trunk was frozen or trained."""
    folder, settings = headed
    for name, stages in (("rest", FEATURES), ("learns", [{"epochs": 1, "px": 64}])):
        image = load_checkpoint(run(folder, data, tmp_path / name, **{**settings, "stages": stages})).model.image
        local = image.eval().local_projection()
        assert local is not None and local[0].shape == (32, 256) and local[1] is None
        pixels = [open_photo(path) for path in sorted((data / "shapes/images").iterdir())[:20]]
        recipe = load_checkpoint(tmp_path / name / "student").model.config.pixels
        with torch.no_grad():
            features = image.trunk(torch.from_numpy(np.stack([recipe(one) for one in pixels])))
            cosines = torch.nn.functional.cosine_similarity(features @ local[0].T, image.project(features))
        assert cosines.min() > 0.8


def test_the_fitted_projection_is_that_of_ridge_regression() -> None:
    torch.manual_seed(2)
    tower = ImageTower(ImageConfig("test_efficientnet", hidden=24), 16).eval()
    assert tower.local_projection() is None
    features = torch.rand(400, 256)
    with torch.no_grad():
        assert 0.9 < tower.fit_local_projection(features, tower.project(features)) <= 1
        vectors = torch.nn.functional.normalize(tower.project(features), dim=-1).double().numpy()
    x = features.double().numpy()
    ridge = 1e-3 * np.mean((x**2).sum(axis=0))
    stacked = np.concatenate([x, np.sqrt(ridge) * np.eye(256)])
    wanted = np.linalg.lstsq(stacked, np.concatenate([vectors, np.zeros((256, 16))]), rcond=None)[0]
    local = tower.local_projection()
    assert local is not None
    np.testing.assert_allclose(local[0].numpy(), wanted.T, atol=1e-4)
    plain = ImageTower(ImageConfig("test_efficientnet", bias=True), 16)
    assert plain.local_projection() == (plain.projection.weight, plain.projection.bias) and plain.places is None


def test_attention_pooling_learns_on_maps_and_views(
    headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path
) -> None:
    """In the teacher and in the student; the finished student sees photos as it saw their features."""
    folder, settings = headed
    plain = (folder / "tiny.toml").read_text()
    attention = {"side": 2, "width": 16, "heads": 2}
    (folder / "tiny.toml").write_text(
        plain.replace("[text]", "[image.attention]\nside = 2\nwidth = 16\nheads = 2\n[text]")
    )
    settings |= {"aligned.attention": attention, "photos[0].views": ["mirror", "degraded"], "optim.ema": 0.0}
    recipe = Recipe.load(folder / "recipe.toml", settings)
    trainer = prepare(recipe, folder, data, tmp_path / "out", lambda *_: None, workers=0).trainer
    assert isinstance(trainer.feed.samples, CorpusSamples) and trainer.feed.samples.features is not None
    model, features = trainer.model, trainer.feed.samples.features
    assert features.photos.width == model.image.width > 256 and [len(view) for view in features.views] == [80, 80]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = [progress.losses["loss"] for progress in trainer.run()]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"image.attention.queries", "image.attention.kv.weight", "image.attention.positions"} <= moved
    assert not any(name.startswith("image.trunk.") for name in moved)
    sample = trainer.feed.samples.corpus.samples[0].photo
    pixels = torch.from_numpy(model.config.pixels(open_photo(sample.path))[None])
    with torch.no_grad():
        stored = model.eval().encode_image(features.photos.take([0]))
        assert float((model.encode_image(pixels) * stored).sum()) > 0.9999


def test_a_teacher_with_attention_is_fitted_to_the_views_of_its_recipe(
    headed: tuple[Path, dict[str, object]], data: Path, tmp_path: Path
) -> None:
    from distill.data.corpus import Corpus
    from distill.teachers.aligned import AlignedPair
    from distill.teachers.ensemble import make_teachers

    folder, settings = headed
    settings |= {"aligned.attention": {"side": 2, "width": 16, "heads": 2}, "aligned.heads": 2}
    made = []
    for views in ([], ["mirror"]):
        recipe = Recipe.load(folder / "recipe.toml", {**settings, "photos[0].views": views})
        corpus = Corpus.read(recipe, data)
        (teacher,) = make_teachers(recipe, folder, data, tmp_path, corpus, lambda *_: None)
        assert isinstance(teacher, AlignedPair)
        made.append(teacher)
    assert made[0].identity != made[1].identity, "cached heads of other views aren't used"
    photos = [sample.photo for sample in corpus.samples[:5]]
    np.testing.assert_allclose(made[1].recall_images(photos), made[1].encode_images(photos), atol=2e-3)
    (again,) = make_teachers(recipe, folder, data, tmp_path, corpus, lambda *_: None)
    assert isinstance(again, AlignedPair)
    np.testing.assert_array_equal(again.recall_images(photos), made[1].recall_images(photos))

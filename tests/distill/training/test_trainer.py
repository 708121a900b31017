"""Training runs for real on a tiny world: it learns, resumes after a kill, and stops with one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.batch import Batch
from distill.config import LossConfig, Recipe
from distill.data.corpus import Corpus
from distill.evaluate.encoders import open_encoder
from distill.evaluate.run import evaluate_captions, evaluate_labels
from distill.feeds.corpus import CorpusSamples
from distill.feeds.steps import StepRows, Steps, group_number
from distill.losses import TeacherEmbeddings
from distill.teachers.bank import TeacherBank
from distill.training.optimizer import parameter_groups
from distill.training.run import build_student, prepare
from distill.training.task import DistillTask
from distill.training.trainer import TrainingError
from mobileclip.checkpoints import CheckpointError, load_checkpoint
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import create_model
from tests.distill.conftest import run


def test_a_run_leaves_student_metrics_and_plot(student: Path) -> None:
    lines = [json.loads(line) for line in (student.parent / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert {"loss", "contrastive", "affinity", "feature", "lr", "logit_scale"} <= set(lines[0])
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert (student.parent / "losses.png").stat().st_size > 5_000
    assert "<h1>tiny</h1>" in (student.parent / "report.html").read_text()
    assert list((student.parent / "tensorboard").glob("events.out.tfevents.*"))
    checkpoint = load_checkpoint(student)
    assert checkpoint.about["licence"] == "test"


def test_the_student_learns_what_it_is_shown(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """After a longer run, unseen pictures are told apart far better than by chance (25 % and 1 in 16)."""
    student = run(
        recipe_folder,
        data,
        tmp_path,
        **{"stages": [{"epochs": 14, "px": 64, "crop": 0.9}], "optim.ema": 0.8, "optim.lr_trunk": 2e-3},
    )
    encoder = open_encoder(str(student))
    colors = evaluate_labels(encoder, data / "colors/labels.csv", split="test")
    assert colors["n"] == 16 and colors["top1"] > 0.6
    shapes = evaluate_captions(encoder, data / "shapes/captions.jsonl", data / "shapes/splits.csv", "test")
    assert shapes["n_captions"] == 32 and shapes["text_to_photo"]["R@5"] > 0.6


def test_a_stopped_run_resumed_equals_one_never_stopped(
    recipe_folder: Path, data: Path, tmp_path: Path, student: Path
) -> None:
    run(recipe_folder, data, tmp_path, steps=4)  # the last checkpoint is of step 3
    resumed = run(recipe_folder, data, tmp_path)
    a, b = load_checkpoint(student).model.state_dict(), load_checkpoint(resumed).model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 11))


def test_another_recipe_or_a_damaged_checkpoint_is_refused(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    run(recipe_folder, data, tmp_path, steps=3)
    with pytest.raises(TrainingError, match="other settings"):
        run(recipe_folder, data, tmp_path, seed=1)
    (tmp_path / "checkpoints/step-00000003.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="damaged"):
        run(recipe_folder, data, tmp_path)


def test_a_loss_that_explodes_stops_with_the_step(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss became nan at step"):
        run(recipe_folder, data, tmp_path, **{"optim.lr": 1e30, "optim.lr_trunk": 1e30, "optim.clip": 1e30})


def test_an_unreadable_photo_is_left_out_and_shifts_nobody(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    (copy / "shapes/images/5.png").write_bytes(b"\x89PNG broken")
    recipe = Recipe.load(recipe_folder / "recipe.toml")
    config = create_model(recipe_folder / "tiny.toml").config
    tokenizer = Tokenizer.load((recipe_folder / "merges.txt.gz").read_bytes(), config.text.context_length)
    both = [CorpusSamples(Corpus.read(recipe, folder), tokenizer) for folder in (data, copy)]
    good, left = (
        [one[number] for number in range(len(one))]
        for one in (Steps(samples, recipe.stages[0], recipe.optim, 0, 0, tokenizer, config.pixels) for samples in both)
    )
    lost = group_number("shapes/images/5.png")
    assert sum(lost in step.groups for step in good) == 1
    for whole, torn in zip(good, left, strict=True):
        assert isinstance(whole, StepRows) and isinstance(torn, StepRows)
        kept = whole.groups != lost
        assert torch.equal(whole.pixels[kept], torn.pixels) and torch.equal(whole.groups[kept], torn.groups)
        assert torn.tried == whole.tried == 24


def test_a_run_goes_on_without_photos_that_no_one_can_read(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """Neither the teacher's heads, the reference nor an epoch ever meets them; all others keep their vectors."""
    import shutil

    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    broken = {"shapes/images/5.png", "shapes/images/6.png", "colors/images/9.png"}
    for name in broken:
        (copy / name).write_bytes(b"\x89PNG broken")
    said: list[tuple[object, ...]] = []
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"aligned.epochs": 2})
    made = prepare(recipe, recipe_folder, copy, tmp_path / "run", lambda *line: said.append(line), workers=0)
    feed = made.trainer.feed
    assert isinstance(feed.samples, CorpusSamples)
    corpus, bank = feed.samples.corpus, feed.samples.banks[0]
    assert {str(corpus.samples[i].photo.path.relative_to(copy)) for i in corpus.unreadable} == broken
    assert ("data", 157, 160, "3 photos cannot be read and are left out") in said
    lost = bank.photos.isnan().any(dim=1)
    assert set(lost.nonzero().flatten().tolist()) == set(corpus.unreadable)
    assert not set(np.concatenate([corpus.epoch(0, e) for e in range(3)]).tolist()) & corpus.unreadable
    assert all(not near.image.isnan().any() for b in feed.batches(0, recipe.stages[0], 0) for near in b.reference)
    losses = [step.losses["loss"] for step in made.trainer.run()]
    assert losses[-1] < losses[0] and made.finish().is_dir()


def test_norms_biases_and_embeddings_do_not_decay(recipe_folder: Path) -> None:
    recipe = Recipe.load(recipe_folder / "recipe.toml")
    task = DistillTask(create_model(recipe_folder / "tiny.toml"), recipe.loss, (32,))
    groups = parameter_groups(task, recipe.optim)
    names = {id(p): name.removeprefix("model.") for name, p in task.named_parameters()}
    still = {names[id(p)] for g in groups if not g["weight_decay"] for p in g["params"]}
    assert {"logit_scale", "text.positions", "text.token_embedding.weight", "text.ln_final.bias"} <= still
    assert "text.projection.weight" not in still
    assert sum(len(g["params"]) for g in groups) == len(names)


def test_a_teacher_of_another_width_needs_the_right_losses(recipe_folder: Path) -> None:
    recipe = Recipe.load(recipe_folder / "recipe.toml")
    with pytest.raises(ConfigError, match="16 dimensions, the student's 32"):
        DistillTask(create_model(recipe_folder / "tiny.toml"), recipe.loss, (16,))


def test_the_classifier_of_the_teacher_reaches_the_student(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """The posterior loss is the KL to the backbone's own classes, over the teacher's vectors of their names."""
    (data / "classes.csv").write_text("file,label\n" + "".join(f"{i:04}.png,thing {i}\n" for i in range(1000)))
    settings = {"aligned.class_names": "classes.csv", "loss.posterior": 1.0}
    recipe = Recipe.load(recipe_folder / "recipe.toml", settings)
    trainer = prepare(recipe, recipe_folder, data, tmp_path, lambda *_: None, workers=0).trainer
    task, model, rows = trainer.task, trainer.model.eval(), np.array([5, 0])
    assert isinstance(trainer.feed.samples, CorpusSamples)
    bank = trainer.feed.samples.banks[0]
    assert bank.classes is not None and bank.posterior is not None
    assert bank.classes.shape == (1000, 32) and bank.posterior.shape == (len(bank.photos), 1000)
    pixels, tokens = torch.rand(2, 3, 64, 64), torch.ones(2, 4, dtype=torch.long)
    teachers = (TeacherEmbeddings(bank.photos[rows], bank.texts[rows], bank.logit_scale),)
    batch = Batch(pixels, tokens, torch.from_numpy(rows), teachers, (), bank.classes, bank.posterior[rows])
    losses = task(batch)
    student = model.encode_image(pixels).detach().double().numpy()
    logits = bank.logit_scale * student @ bank.classes.double().numpy().T
    log_student = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    log_teacher = bank.posterior[rows].double().numpy()
    kl = (np.exp(log_teacher) * (log_teacher - log_student)).sum(axis=1).mean()
    assert float(losses["posterior"]) == pytest.approx(kl, rel=1e-3, abs=1e-6)
    others = {k: v for k, v in losses.items() if k not in ("loss", "logit_scale", "contrastive", "posterior")}
    rest = 1.0 * float(losses["contrastive"]) + sum(float(v) for v in others.values())
    assert float(losses["loss"].detach()) == pytest.approx(rest + float(losses["posterior"]), rel=1e-5)


def test_a_posterior_needs_a_classifier(recipe_folder: Path) -> None:
    with pytest.raises(ConfigError, match="needs a first teacher with classes"):
        Recipe.load(recipe_folder / "recipe.toml", {"loss.posterior": 0.5})
    task = DistillTask(create_model(recipe_folder / "tiny.toml"), LossConfig({"posterior": 1.0}), (32,))
    batch = Batch(
        torch.zeros(2, 3, 48, 48),
        torch.ones(2, 4).long(),
        torch.arange(2),
        (TeacherEmbeddings(torch.eye(2, 32), torch.eye(2, 32), 1.0),),
    )
    with pytest.raises(ConfigError, match="no classifier"):
        task(batch)


def test_open_clip_teaches_too(
    recipe_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small open_clip model with weights from a path; its vectors equal open_clip's own."""
    import open_clip

    from distill.config import OpenClipConfig
    from distill.teachers.openclip import OpenClipTeacher
    from mobileclip.photos import open_photo

    shape = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.manual_seed(1)
    theirs = open_clip.create_model("tiny-clip").eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    teacher = OpenClipTeacher(OpenClipConfig("tiny-clip", str(tmp_path / "weights.pt")))
    photos = sorted((data / "shapes/images").glob("*.png"))[:3]
    pixels = torch.stack([teacher.transform(open_photo(p)) for p in photos])
    with torch.inference_mode():
        expected = theirs.encode_image(pixels, normalize=True)
    assert torch.allclose(torch.from_numpy(teacher.encode_images(photos)), expected, atol=1e-5)
    assert teacher.encode_texts(["a red disc", "café"]).shape == (2, 32)
    overrides = {
        "open_clip": [{"model": "tiny-clip", "pretrained": str(tmp_path / "weights.pt")}],
        "stages": [{"epochs": 1, "px": 48}],
    }
    recipe = (recipe_folder / "recipe.toml").read_text()
    begin, end = recipe.index("[aligned]"), recipe.index("[loss]")
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "recipe.toml").write_text(recipe[:begin] + recipe[end:])
    for name in ("tiny.toml", "merges.txt.gz"):
        (folder / name).write_bytes((recipe_folder / name).read_bytes())
    assert (run(folder, data, tmp_path / "run", **overrides) / "model.safetensors").is_file()
    with pytest.raises(PocketclipError, match="cannot load"):
        OpenClipTeacher(OpenClipConfig("no-such-model", str(tmp_path / "weights.pt")))
    for tag in ("", "laion2b_s34b_b79k"):
        with pytest.raises(PocketclipError, match="save open_clip's weights to a file"):
            OpenClipTeacher(OpenClipConfig("ViT-B-32", tag))


def test_a_student_starts_where_another_ended(student: Path, recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """It keeps its own geometry and is only turned to lie on the teacher's axes, as nearly as a rotation can."""
    from distill.training.initialize import align_to_teacher

    recipe = Recipe.load(recipe_folder / "recipe.toml", {"start": str(student), "stages": [{"epochs": 1, "px": 48}]})
    trainer = prepare(recipe, recipe_folder, data, tmp_path / "next", lambda *_: None, workers=0).trainer
    before, after = load_checkpoint(student).model, trainer.model.eval()
    texts = ["a red disc", "a blue square", "there is a disc that is green"]
    tokens = torch.from_numpy(Tokenizer.load((recipe_folder / "merges.txt.gz").read_bytes(), 16)(texts))
    pixels = torch.rand(4, 3, 64, 64)
    with torch.inference_mode():
        old = before.encode_image(pixels) @ before.encode_text(tokens).T
        new = after.encode_image(pixels) @ after.encode_text(tokens).T
    assert torch.allclose(old, new, atol=1e-4)
    assert isinstance(trainer.feed.samples, CorpusSamples)
    bank = trainer.feed.samples.banks[0]
    # A teacher that is the same but for a rotation is found again.
    turn = torch.linalg.qr(torch.randn(32, 32))[0]
    turned = TeacherBank(bank.photos @ turn, bank.texts @ turn, bank.logit_scale)
    first = align_to_teacher(after, recipe, trainer.feed)
    trainer.feed.samples.banks = (turned,)
    second = align_to_teacher(after, recipe, trainer.feed)
    assert second == pytest.approx(first, abs=1e-3) and first > 0.2
    with pytest.raises(ConfigError, match="tiny and pocket differ in more than depth"):
        other = Recipe.load(recipe_folder / "recipe.toml", {"start": str(student), "model": "pocket"})
        build_student(other, recipe_folder)


def test_frozen_parts_stay_as_they_are_until_their_stage_ends(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """Weights and BatchNorm's statistics; the next stage trains them again."""
    stages = [{"epochs": 1, "px": 48, "frozen": ["image.trunk", "text.blocks.0."]}, {"epochs": 1, "px": 48}]
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"stages": stages, "optim.ema": 0.0})
    trainer = prepare(recipe, recipe_folder, data, tmp_path, lambda *_: None, workers=0).trainer
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    frozen = {name for name in before if name.startswith(("image.trunk", "text.blocks.0."))}

    def moved() -> set[str]:
        return {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}

    for progress in trainer.run():
        if progress.step == trainer.epoch_steps[0]:
            assert not moved() & frozen
            assert {"text.blocks.1.qkv.weight", "image.projection.weight", "logit_scale"} <= moved()
    assert any("running_mean" in name for name in moved()) and "image.trunk.conv_stem.weight" in moved()
    for names, message in ((["image.tronk"], "image.tronk"), (["image", "text", "logit"], "nothing")):
        wrong = Recipe.load(recipe_folder / "recipe.toml", {"stages": [{"epochs": 1, "px": 48, "frozen": names}]})
        with pytest.raises(ConfigError, match=message):
            prepare(wrong, recipe_folder, data, tmp_path / "wrong", lambda *_: None, workers=0)


def test_a_photo_is_placed_by_what_its_classifier_saw(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    import dataclasses
    from itertools import product

    from distill.teachers import VectorCache
    from distill.teachers.aligned import AlignedPair

    # Names that the sentence encoder tells apart: what is left of equal ones without their mean is rounding.
    words = ["red", "green", "blue", "yellow", "square", "disc", "purple", "round", "something", "picture"]
    names = [" ".join(three) for three in product(words, repeat=3)]
    (data / "kinds.csv").write_text("file,label\n" + "".join(f"{i:04}.png,{name}\n" for i, name in enumerate(names)))
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"aligned.class_names": "kinds.csv"})
    corpus = Corpus.read(recipe, data)
    photos = [sample.photo.path for sample in corpus.samples][:5]
    config = dataclasses.replace(recipe.teachers[0], class_texts={names[7]: "red disc"})
    plain, mixed = (
        AlignedPair(dataclasses.replace(config, conse_weight=weight), recipe_folder, data, VectorCache(tmp_path))
        for weight in (0.0, 0.5)
    )
    mixed.heads.load_state_dict(plain.heads.state_dict())
    prompts = mixed.class_prompts()
    assert prompts[1] == "a photo of a red red green" and prompts[7] == "a photo of a red disc"
    texts = plain.encode_texts(prompts)
    texts -= texts.mean(axis=0)
    posterior = np.exp(plain.log_posterior(photos).numpy())
    wanted = []
    for vector, seen in zip(plain.encode_images(photos), posterior, strict=True):
        top = np.argsort(-seen)[:10]
        place = (seen[top, None] * texts[top]).sum(axis=0)
        place = vector + 0.5 * place / np.linalg.norm(place)
        wanted.append(place / np.linalg.norm(place))
    assert np.allclose(mixed.encode_images(photos), np.stack(wanted), atol=1e-5)
    with pytest.raises(ConfigError, match="conse_weight needs"):
        Recipe.load(recipe_folder / "recipe.toml", {"aligned.conse_weight": 0.5})


def test_an_aligned_pair_learns_and_is_fitted_once(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """Its heads bring photos and texts of a color together, are kept, and change with the data."""
    import dataclasses

    from distill.teachers import VectorCache
    from distill.teachers.aligned import AlignedPair

    recipe = Recipe.load(recipe_folder / "recipe.toml", {"aligned.epochs": 60})
    corpus = Corpus.read(recipe, data)
    photos = [sample.photo.path for sample in corpus.samples]
    reports: list[int] = []

    def fitted(config: object, on: Corpus) -> AlignedPair:
        pair = AlignedPair(config, recipe_folder, data, VectorCache(tmp_path / "cache"))
        pair.fit(on, tmp_path, 0, lambda what, epoch, *_: reports.append(epoch))
        return pair

    first = fitted(recipe.teachers[0], corpus)
    assert reports == list(range(1, 61))
    vectors = first.encode_images(photos)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    names = ["a red square", "a green square", "a blue square", "a yellow square"]
    said = (vectors @ first.encode_texts(names).T).argmax(axis=1)
    shown = np.array([int(path.stem) % 4 for path in photos])
    assert (said == shown).mean() > 0.6
    again = fitted(recipe.teachers[0], corpus)
    assert len(reports) == 60 and np.array_equal(again.encode_images(photos), vectors)
    fitted(recipe.teachers[0], dataclasses.replace(corpus, shares=(0.5, 0.5)))
    assert len(reports) == 120


def test_several_pairs_of_heads_teach_the_mean_of_their_similarities(
    recipe_folder: Path, data: Path, tmp_path: Path
) -> None:
    import dataclasses

    from distill.teachers import VectorCache
    from distill.teachers.aligned import AlignedPair

    recipe = Recipe.load(recipe_folder / "recipe.toml", {"aligned.epochs": 4, "aligned.heads": 3})
    corpus = Corpus.read(recipe, data)
    photos = [sample.photo.path for sample in corpus.samples]
    texts = ["a red square", "a blue disc", *corpus.texts[:20]]
    reports: list[tuple[int, int]] = []

    def fitted(config: object) -> AlignedPair:
        pair = AlignedPair(config, recipe_folder, data, VectorCache(tmp_path / "cache"))
        pair.fit(corpus, tmp_path, 0, lambda what, epoch, epochs, note: reports.append((epoch, epochs)))
        return pair

    joined = fitted(recipe.teachers[0])
    assert reports == [(epoch, 12) for epoch in range(1, 13)]
    images, words = joined.encode_images(photos), joined.encode_texts(texts)
    assert images.shape[1] == words.shape[1] == recipe.teachers[0].embed_dim
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    alone = []
    for heads in joined.pairs:
        one = AlignedPair(dataclasses.replace(recipe.teachers[0], heads=1), recipe_folder, data, joined.cache)
        one.pairs[0].load_state_dict(heads.state_dict())
        alone.append(one.encode_images(photos) @ one.encode_texts(texts).T)
    assert not np.allclose(alone[0], alone[1], atol=0.05), "each starts from weights of its own"
    assert np.abs(images @ words.T - np.mean(alone, axis=0)).max() < 0.05
    again = fitted(recipe.teachers[0])
    assert len(reports) == 12 and np.array_equal(again.encode_images(photos), images)
    with pytest.raises(ConfigError, match="heads"):
        Recipe.load(recipe_folder / "recipe.toml", {"aligned.heads": 0})


def test_texts_alone_teach_the_text_tower_and_leave_the_photos_vectors(
    recipe_folder: Path, data: Path, tmp_path: Path
) -> None:
    settings = {"stages": [{"epochs": 30, "texts_only": True}], "optim.batch": 12, "optim.lr": 3e-3, "optim.ema": 0.0}
    recipe = Recipe.load(recipe_folder / "recipe.toml", settings)
    trainer = prepare(recipe, recipe_folder, data, tmp_path, lambda *_: None, workers=0).trainer
    image = {name: value.clone() for name, value in trainer.model.image.state_dict().items()}
    assert trainer.epoch_steps == [len(trainer.feed.samples.corpus.texts) // 16] * 30
    losses = [step.losses for step in trainer.run()]
    assert losses[-1]["feature"] < 0.6 * losses[0]["feature"] and losses[-1]["affinity"] < losses[0]["affinity"]
    assert all(torch.equal(value, image[name]) for name, value in trainer.model.image.state_dict().items())
    with pytest.raises(ConfigError, match="texts_only = true and no px"):
        Recipe.load(recipe_folder / "recipe.toml", {"stages": [{"epochs": 1, "px": 48, "texts_only": True}]})

"""Teachers: each sees its own pixels, whether a file or a picture is handed in, and several teach together."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.config import CheckpointConfig, Recipe
from distill.data.corpus import Corpus
from distill.evaluate.encoders import open_encoder
from distill.feeds.corpus import CorpusSamples
from distill.teachers import VectorCache
from distill.teachers.aligned import AlignedPair
from distill.teachers.ensemble import make_banks, make_teachers
from distill.teachers.student import CheckpointTeacher
from distill.training.run import prepare
from mobileclip.photos import open_photo
from tests.distill.conftest import run


def test_a_student_teaches_with_its_own_pixels_and_words(student: Path, data: Path, tmp_path: Path) -> None:
    teacher, encoder = CheckpointTeacher(CheckpointConfig(str(student)), tmp_path), open_encoder(str(student))
    paths = sorted((data / "shapes/images").glob("*.png"))[:40]
    pictures = [open_photo(path) for path in paths]
    wanted = encoder.encode_pixels(np.stack([encoder.recipe(picture) for picture in pictures]))
    assert np.allclose(teacher.encode_images(paths), wanted, atol=1e-5)
    assert np.allclose(teacher.encode_pictures(pictures[:3]), wanted[:3], atol=1e-5)
    texts = ["a red disc", "there is a square that is blue", "a"] * 20
    assert np.allclose(teacher.encode_texts(texts), encoder.encode_texts(texts), atol=1e-5)
    assert teacher.logit_scale == pytest.approx(float(teacher.model.logit_scale.exp()))
    assert CheckpointTeacher(CheckpointConfig(str(student), 55.0), tmp_path).logit_scale == 55.0
    before = teacher.identity
    weights = student / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    try:
        import os

        os.utime(weights, ns=(stamp, stamp + 1))
        assert CheckpointTeacher(CheckpointConfig(str(student)), tmp_path).identity != before
    finally:
        os.utime(weights, ns=(stamp, stamp))


def test_an_aligned_pair_encodes_pictures_as_it_recalls_files(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    (data / "classes.csv").write_text("file,label\n" + "".join(f"{i:04}.png,thing {i}\n" for i in range(1000)))
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"aligned.class_names": "classes.csv"})
    paths = [sample.photo.path for sample in Corpus.read(recipe, data).samples][:5]
    for weight in (0.0, 0.5):
        config = dataclasses.replace(recipe.teachers[0], conse_weight=weight)
        pair = AlignedPair(config, recipe_folder, data, VectorCache(tmp_path))
        recalled = pair.recall_images(paths)
        assert np.allclose(pair.encode_images(paths), recalled, atol=1e-5)
        assert np.allclose(pair.encode_pictures([open_photo(path) for path in paths[:2]]), recalled[:2], atol=1e-5)
        assert np.allclose(pair.encode_texts(["a red disc"]), pair.recall_texts(["a red disc"]), atol=1e-6)
        assert pair.px == 64


def test_imagenet_s_classes_are_called_as_open_clip_calls_them(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    settings = {"aligned.class_names": "open_clip", "aligned.class_texts": {"daisy": "daisy flower"}}
    recipe = Recipe.load(recipe_folder / "recipe.toml", settings)
    prompts = AlignedPair(recipe.teachers[0], recipe_folder, data, VectorCache(tmp_path)).class_prompts()
    assert len(prompts) == 1000 and prompts[0] == "a photo of a tench"
    assert prompts[134] == "a photo of a crane bird" and prompts[985] == "a photo of a daisy flower"


def test_a_checkpoint_embeds_the_names_of_classes(student: Path, data: Path, tmp_path: Path) -> None:
    """As the vectors that a student with a classifier starts from."""
    assert CheckpointTeacher(CheckpointConfig(str(student)), tmp_path).class_embeddings() is None
    (data / "two.csv").write_text("file,label\n1.png,disc\n0.png,square\n")
    for source, first, count in (("open_clip", "a photo of a tench", 1000), ("two.csv", "a photo of a square", 2)):
        teacher = CheckpointTeacher(CheckpointConfig(str(student), class_names=source), tmp_path, data)
        embeddings = teacher.class_embeddings()
        assert embeddings is not None and embeddings.shape == (count, 32)
        assert np.allclose(embeddings[0], teacher.encode_texts([first])[0], atol=1e-6)


def test_all_named_teachers_teach_together(recipe_folder: Path, data: Path, student: Path, tmp_path: Path) -> None:
    overrides = {
        "checkpoints": [{"path": str(student)}, {"path": str(student), "logit_scale": 9.0}],
        "loss": {"ensemble": 1.0, "feature": 1.0, "affinity": 1.0, "interactive": 0.5, "bank": 16},
        "stages": [{"epochs": 1, "px": 48}],
    }
    recipe = Recipe.load(recipe_folder / "recipe.toml", overrides)
    trainer = prepare(recipe, recipe_folder, data, tmp_path, lambda *_: None, workers=0).trainer
    assert isinstance(trainer.feed.samples, CorpusSamples)
    banks = trainer.feed.samples.banks
    assert [bank.logit_scale for bank in banks] == [40.0, pytest.approx(banks[1].logit_scale), 9.0]
    assert torch.equal(banks[1].photos, banks[2].photos) and not torch.equal(banks[0].photos, banks[1].photos)
    assert all(torch.allclose(bank.texts.norm(dim=1), torch.ones(len(bank.texts)), atol=1e-5) for bank in banks)
    losses = [step.losses for step in trainer.run()]
    assert {"ensemble", "feature", "affinity", "interactive"} <= set(losses[0])
    assert losses[-1]["loss"] < losses[0]["loss"]


def test_teachers_alone_need_no_aligned_pair(
    recipe_folder: Path, data: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their vectors are computed once."""
    said: list[str] = []
    text = (recipe_folder / "recipe.toml").read_text()
    begin, end = text.index("[aligned]"), text.index("[loss]")
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "recipe.toml").write_text(
        f"{text[:begin]}[[checkpoints]]\npath = {json.dumps(str(student))}\n{text[end:]}"
    )
    for name in ("tiny.toml", "merges.txt.gz"):
        (folder / name).write_bytes((recipe_folder / name).read_bytes())
    assert (run(folder, data, tmp_path / "run", stages=[{"epochs": 1, "px": 48}]) / "model.safetensors").is_file()
    recipe = Recipe.load(folder / "recipe.toml")
    corpus = Corpus.read(recipe, data)
    teachers = make_teachers(recipe, folder, data, tmp_path / "run", corpus, lambda what, *_: said.append(what))

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    for name in ("encode_images", "encode_texts"):
        monkeypatch.setattr(teachers[0], name, never)
    (bank,) = make_banks(recipe, teachers, tmp_path / "run", corpus, lambda what, *_: said.append(what))
    assert len(bank.photos) == len(corpus.samples) and set(said) == {"teacher photos", "teacher texts"}


def test_a_sentence_is_its_own_vector_and_what_its_words_were(encoders: Path) -> None:
    """Against transformers' hidden layers, one sentence at a time, so that padding cannot help."""
    from transformers import AutoModel, AutoTokenizer

    from distill.teachers.encoders import SentenceEncoder
    from mobileclip.errors import PocketclipError

    folder, texts = encoders / "sentences", ["a red disc", "there is a square that is blue", "a"]
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = []
    for text in texts:
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        parts = [
            hidden[-1][0].mean(dim=0),
            hidden[0][0].mean(dim=0),
            hidden[1][0].mean(dim=0),
            hidden[-1][0].amax(dim=0),
        ]
        wanted.append(np.concatenate([(part / part.norm()).numpy() for part in parts]))
    encoder = SentenceEncoder(folder, layers=(0, 1), strongest=True, batch=2)
    assert encoder.width == 4 * 24
    assert np.allclose(encoder.encode_texts(texts), np.stack(wanted), atol=1e-5)
    plain = SentenceEncoder(folder)
    assert plain.width == 24 and plain.identity != encoder.identity
    assert np.allclose(plain.encode_texts(texts), np.stack(wanted)[:, :24], atol=1e-5)
    with pytest.raises(PocketclipError, match="hidden layers 0 to 1"):
        SentenceEncoder(folder, layers=(2,))

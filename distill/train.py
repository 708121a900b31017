"""A recipe from beginning to end: data, teacher vectors, student, plot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.config import Recipe
from distill.data.corpus import Corpus
from distill.files import locate
from distill.inherit import turn_to_teacher
from distill.task import TeacherBank
from distill.teachers import Teacher, VectorCache
from distill.teachers.aligned import AlignedPair
from distill.teachers.encoders import load_trunk_weights
from distill.teachers.openclip import OpenClipTeacher
from distill.trainer import CHECKPOINT, Trainer
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, ModelConfig, create_model

Report = Callable[[str, int, int, str], None]
"""Called with (what, done, total, note)."""


@dataclass(frozen=True)
class Run:
    """A recipe made ready: everything that training needs, teacher vectors computed."""

    recipe: Recipe
    trainer: Trainer
    merges: bytes
    out: Path

    def finish(self) -> Path:
        """Write the student's checkpoint and the loss plot; returns the checkpoint's folder."""
        from distill.report import plot_losses

        folder = self.out / "student"
        recipe = self.recipe
        about = {"name": recipe.name, "licence": recipe.licence, "provenance": recipe.provenance}
        save_checkpoint(self.trainer.student, self.merges, folder, about)
        plot_losses(self.out / "metrics.jsonl", self.out / "losses.png")
        return folder


def prepare(recipe: Recipe, base: Path, data: Path, out: Path, report: Report, workers: int = 1) -> Run:
    """Read the data, compute or load the teacher's vectors, build the student, and go back to its checkpoint.

    Args:
        recipe: all settings.
        base: the recipe's folder; merges and weights are looked for from here.
        data: the folder that the recipe's data files are relative to.
        out: the run's folder.
        report: told how far each long step is.
        workers: processes that decode photos.

    Raises:
        PocketclipError: a file is missing or a setting does not fit.
    """
    merges = locate(recipe.merges, base).read_bytes()
    corpus = Corpus.read(recipe, data)
    report("data", len(corpus.samples), len(corpus.samples), f"{len(corpus.texts):,} texts")
    torch.manual_seed(recipe.seed)
    model = build_student(recipe, base)
    tokenizer = Tokenizer.load(merges, model.config.text.context_length)
    # The end-of-text token is the last id of both, so they must agree.
    if tokenizer.vocab_size != model.config.text.vocab_size:
        raise ConfigError(
            f"{recipe.merges} makes {tokenizer.vocab_size} tokens, the text tower has {model.config.text.vocab_size}"
        )
    bank = teach(recipe, base, data, out, corpus, report)
    if recipe.start and not (out / CHECKPOINT).exists() and bank.texts.shape[1] == model.config.embed_dim:
        cosine = turn_to_teacher(model, tokenizer, corpus, bank, recipe.seed)
        report("start", 1, 1, f"cosine to the teacher {cosine:.2f}")
    trainer = Trainer(recipe, model, tokenizer, corpus, bank, out, workers)
    if trainer.resume():
        report("resume", trainer.step, trainer.steps, "from the checkpoint")
    return Run(recipe, trainer, merges, out)


def build_student(recipe: Recipe, base: Path) -> CLIP:
    """Build the recipe's student, started from a checkpoint (`start`) or with a pretrained trunk (`init`).

    `model` names a shipped configuration, or a .toml beside the recipe.
    """
    beside = base / recipe.model
    config = ModelConfig.load(beside if beside.suffix == ".toml" and beside.is_file() else recipe.model)
    if recipe.start:
        started = load_checkpoint(locate(recipe.start, base)).model
        if dataclasses.replace(started.config, parameters=config.parameters) != config:
            raise ConfigError(f"{recipe.start}: a {started.config.name}, not the {config.name} that the recipe names")
        return started
    model = create_model(config)
    if recipe.init:
        load_trunk_weights(model.image.trunk, locate(recipe.init, base))
    return model


def teach(recipe: Recipe, base: Path, data: Path, out: Path, corpus: Corpus, report: Report) -> TeacherBank:
    """Make the recipe's teacher and return its vectors of the whole corpus, from the cache where they are there."""
    classes = posterior = None
    cache = VectorCache(out / "cache", lambda done, total, what: report(f"teacher {what}", done, total, ""))
    teacher: Teacher
    if recipe.aligned is not None:
        pair = AlignedPair(recipe.aligned, base, data, cache)
        pair.fit(corpus, out, recipe.seed, lambda e, n, loss: report("heads", e, n, f"loss {loss:.3f}"))
        teacher = pair
        # Its encoders cache their own vectors; the heads are cheap.
        photos, texts = (
            pair.encode_images([s.path for s in corpus.samples]),
            pair.encode_texts(corpus.texts),
        )
        if recipe.loss.posterior:
            classes = _unit(pair.encode_texts(pair.class_prompts()))
            posterior = pair.log_posterior([s.path for s in corpus.samples])
    else:
        assert recipe.open_clip is not None
        teacher = OpenClipTeacher(recipe.open_clip)
        photos = cache.images(teacher, [s.path for s in corpus.samples])
        texts = cache.texts(teacher, corpus.texts)
    return TeacherBank(_unit(photos), _unit(texts), teacher.logit_scale, classes, posterior)


def _unit(vectors: object) -> Tensor:
    return F.normalize(torch.as_tensor(vectors), dim=-1)

"""A whole training run: data, teachers, student, plot and report."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.config import Recipe
from distill.config.saved import save_recipe
from distill.data.corpus import Corpus
from distill.data.remote import copy_remote
from distill.distributed import barrier, choose_device, rank
from distill.feeds.corpus import CorpusSamples
from distill.feeds.feed import Feed
from distill.feeds.reinforced import ReinforcedSamples
from distill.feeds.samples import Samples
from distill.feeds.targets import OnlineTargets, StoredTargets, Targets
from distill.files import locate_weights
from distill.half import HALF
from distill.logs import StepLog
from distill.losses import Need
from distill.progress import ReportProgress
from distill.teachers.encoders import load_trunk_weights
from distill.teachers.ensemble import corpus_features, make_banks, make_teachers
from distill.teachers.trunk_features import CorpusFeatures, TrunkEncoder
from distill.training.checkpoints import RunCheckpoints
from distill.training.initialize import align_to_teacher, deepen, inherit, interpolate
from distill.training.trainer import Trainer
from distill.training.validation import Validator
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.errors import ConfigError
from mobileclip.files import PathLike
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, create_model
from mobileclip.towers.image import ClassVectors

PLACES_PHOTOS = 8192
"""Largest number of photos that `ImageTower.fit_places` uses."""


@dataclass(frozen=True)
class Run:
    """A run that is ready to train: all teacher embeddings are computed."""

    recipe: Recipe
    trainer: Trainer
    merges: bytes
    out: Path
    resumed: str
    """A sentence about the checkpoint that the run resumes from; "" for a new run."""

    def finish(self) -> Path:
        """Write the student's checkpoint, the loss plot and the report; returns the checkpoint's folder.

        All processes must call it; the first one writes.
        """
        from distill.report.charts import plot_losses
        from distill.report.page import write_report

        folder, student = self.out / "student", self.trainer.student()
        if rank() == 0:
            self._fit_places(student)
            save_checkpoint(student, self.merges, folder, self.recipe.about)
            plot_losses(self.out / "metrics.jsonl", self.out / "losses.png")
            write_report(self.out, self.recipe)
        return folder

    def _fit_places(self, student: CLIP) -> None:
        """Fit `ImageTower.places` to the photos of the last stage with photos, as a run begins with them."""
        if student.image.places is None:
            return
        student.image.places.zero_()
        student.to(self.trainer.device).eval()
        stage = next((stage for stage in reversed(self.recipe.stages) if not stage.texts_only), None)
        rows: list[tuple[Tensor, Tensor]] = []
        with torch.inference_mode():
            for batch in self.trainer.feed.batches(0, stage, 0) if stage else ():
                pixels = batch.pixels.to(self.trainer.device)
                features = pixels if pixels.ndim == 2 else student.image.features(pixels)
                pooled = features[:, : student.image.projection.in_features]
                rows.append((pooled.float().cpu(), student.image.project(features).float().cpu()))
                if sum(len(part) for part, _ in rows) >= PLACES_PHOTOS:
                    break
        student.cpu()
        if rows:
            student.image.fit_local_projection(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


def prepare(
    recipe: Recipe,
    base: PathLike,
    data: PathLike,
    out: PathLike,
    report: ReportProgress,
    workers: int = 1,
    device: torch.device | None = None,
    resume: str = "auto",
    logs: Sequence[StepLog] = (),
    corpus: Corpus | None = None,
) -> Run:
    """Read the data, compute or load teacher embeddings, create the student, and load its last checkpoint if any.

    Args:
        recipe: all settings.
        base: the folder that paths of merges and weights are relative to, usually the recipe's.
        data: the folder that the recipe's data files are relative to.
        out: the run's folder.
        report: called with the progress of each long step.
        workers: number of processes that decode photos.
        device: where to train; by default, what the recipe says.
        resume: which checkpoint to start from, see `RunCheckpoints.choose`.
        logs: where else each step's figures go; only the first process writes.
        corpus: the photos and texts; by default, all of the recipe's.

    Raises:
        PocketclipError: a file is missing, or settings don't match.
    """
    base, data, out = Path(base), Path(data), Path(out)
    start = RunCheckpoints(out, recipe.keep_last).choose(resume)
    merges, tokenizer = recipe.tokenizer(base)
    torch.manual_seed(recipe.seed)
    model = build_student(recipe, base)
    copy_remote(recipe.photos, data, report)
    feed = make_feed(recipe, base, data, out, model, tokenizer, report, workers, corpus)
    barrier()  # machines may differ by hours, which a step wouldn't wait for
    validator = Validator(recipe, tokenizer, merges, data, out)
    before = copy.deepcopy(model) if recipe.keep_start else None  # weights of a checkpoint replace these
    device = device or choose_device(recipe.optim.device)
    trainer = Trainer(recipe, model, feed, out, device, validator, merges, logs, before)
    resumed = trainer.resume(start)
    if rank() == 0:
        save_recipe(out, recipe)
    return Run(recipe, trainer, merges, out, resumed)


def make_feed(
    recipe: Recipe,
    base: Path,
    data: Path,
    out: Path,
    model: CLIP,
    tokenizer: Tokenizer,
    report: ReportProgress,
    workers: int,
    corpus: Corpus | None = None,
) -> Feed:
    """Return the feed for the recipe's sources and teachers, and prepare the student for its first teacher.

    Reinforced data brings embeddings along. Otherwise, teachers embed the corpus now, or each batch if `teach` says so.
    """
    samples: Samples
    targets: Targets
    if recipe.reinforced:
        samples = reinforced = ReinforcedSamples(recipe, data)
        entries = reinforced.teachers
        targets = StoredTargets([entry.dim for entry in entries], [entry.logit_scale for entry in entries])
        report("data", samples.photo_count, samples.photo_count, f"{samples.text_count:,} texts")
    else:
        corpus = corpus or Corpus.read(recipe, data)
        report("data", len(corpus.samples), len(corpus.samples), f"{len(corpus.texts):,} texts")
        teachers = make_teachers(recipe, base, data, out, corpus, report)
        if recipe.teach == "online" and teachers:
            targets = OnlineTargets(teachers, bool(recipe.loss.needing(Need.POSTERIOR)))
            sizes = [teacher.px for teacher in teachers]
            samples = CorpusSamples(corpus, tokenizer, view_sizes=sizes, policy=recipe.reinforcement)
        else:
            banks = make_banks(recipe, teachers, out, corpus, report)
            features = _trunk_features(recipe, out, model, corpus, report)
            unreadable = [bank.photos.isnan().any(dim=1).numpy() for bank in banks]
            corpus = _leave_out(corpus, [*unreadable, *([features.photos.unreadable()] if features else [])], report)
            targets = StoredTargets(
                [bank.texts.shape[1] for bank in banks],
                [bank.logit_scale for bank in banks],
                banks[0].classes if banks else None,
            )
            samples = CorpusSamples(corpus, tokenizer, banks, features)
    feed = Feed(recipe, model.config, tokenizer, samples, targets, workers)
    if model.image.classes is not None and not recipe.starts_from_student:
        _initialize_classes(model.image.classes, targets.classes)
    # The axes of an embedding space are arbitrary. Resuming replaces the student's weights anyway.
    if recipe.starts_from_student and feed.widths[:1] == (model.config.embed_dim,):
        report("start", 1, 1, f"cosine to the teacher {align_to_teacher(model, recipe, feed):.2f}")
    return feed


def _leave_out(corpus: Corpus, unreadable: Sequence[NDArray[np.bool_]], report: ReportProgress) -> Corpus:
    """Mark the photos that a teacher or the trunk could not read, each (samples,)."""
    for rows in unreadable:
        corpus = corpus.without(rows)
    if corpus.unreadable:
        read = len(corpus.samples) - len(corpus.unreadable)
        report("data", read, len(corpus.samples), f"{len(corpus.unreadable)} photos cannot be read and are left out")
    return corpus


def _trunk_features(
    recipe: Recipe, out: Path, model: CLIP, corpus: Corpus, report: ReportProgress
) -> CorpusFeatures | None:
    """Compute the student's trunk features of all photos, if a stage needs them."""
    if not any(stage.features for stage in recipe.stages):
        return None
    image, device = model.config.image, choose_device(recipe.optim.device)
    encoder = TrunkEncoder(
        model.image.trunk,
        image.trunk,
        model.config.pixels,
        model.image.maps,
        device,
        HALF.get(recipe.optim.precision) if device.type != "cpu" else None,  # ONNX Runtime is faster in float32
    )
    return corpus_features(encoder, out, corpus, report)


def _initialize_classes(classes: ClassVectors, vectors: Tensor | None) -> None:
    """Initialize a student's class embeddings with the first teacher's."""
    if vectors is None or vectors.T.shape != classes.vectors.weight.shape:
        wanted = " × ".join(map(str, classes.vectors.weight.T.shape))
        raise ConfigError(
            f"image.classes needs the first teacher's embeddings of its classes, {wanted}: "
            "give [aligned] class_names of as many classes, or start from a checkpoint"
        )
    classes.set_vectors(vectors)


def build_student(recipe: Recipe, base: PathLike) -> CLIP:
    """Create the recipe's student with its initial weights; see `start`, `inherit`, `init` and `blend` of `Recipe`.

    Args:
        recipe: the recipe.
        base: the recipe's folder.

    Raises:
        PocketclipError: a file is missing, or a checkpoint has another shape than the student needs.
    """
    base = Path(base)
    config = recipe.student(base)
    model = create_model(config)
    if recipe.inherit:
        inherit(model, load_checkpoint(locate_weights(recipe.inherit, base)).model, recipe.inherit_layers)
    if recipe.init:
        _load_trunk(model, locate_weights(recipe.init, base))
    if not recipe.start:
        return model
    started = load_checkpoint(locate_weights(recipe.start, base)).model
    if dataclasses.replace(started.config, parameters=config.parameters) != config:
        shallower, started = started, create_model(config)
        deepen(started, shallower)
    if recipe.blend:
        trunk = interpolate(started.image.trunk, model.image.trunk, recipe.blend)
        started.image.trunk.load_state_dict(trunk.state_dict())
    return started


def _load_trunk(model: CLIP, path: Path) -> None:
    """Load a timm model's weights, with its classifier if the student has one."""
    image, classes = model.config.image, model.image.classes
    if classes is None:
        load_trunk_weights(model.image.trunk, path)
        return
    import timm

    whole = timm.create_model(image.trunk, pretrained=False, num_classes=image.classes, **image.options)
    load_trunk_weights(whole, path)
    state = whole.state_dict()
    model.image.trunk.load_state_dict({name: state[name] for name in model.image.trunk.state_dict()})
    classes.classifier.load_state_dict(whole.get_classifier().state_dict())

"""All teachers of a recipe, and their embeddings of its corpus."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from distill.config import Recipe
from distill.data.corpus import Corpus
from distill.distributed import choose_device, first_process_first
from distill.losses import Need
from distill.progress import ReportProgress
from distill.teachers import aligned, openclip, student  # noqa: F401 (imported to register their constructors)
from distill.teachers.bank import TeacherBank
from distill.teachers.base import CachedTeacher, ClassifyingTeacher, NamingTeacher, Teacher, unit_tensor
from distill.teachers.cache import VectorCache
from distill.teachers.registry import TeacherContext, construct_teacher
from distill.teachers.trunk_features import CorpusFeatures, TrunkEncoder
from mobileclip.files import PathLike

CACHE = "cache"
"""Folder of teacher embeddings in a run's folder. Runs can share it."""


def make_teachers(
    recipe: Recipe, base: PathLike, data: PathLike, out: PathLike, corpus: Corpus | None, report: ReportProgress
) -> tuple[Teacher, ...]:
    """Construct every teacher of a recipe, in the recipe's order, and fit those that must be fitted.

    Only one process at a time does this in a folder, and the first one of a run before the others, so heads are fitted
    once.

    Args:
        recipe: names the teachers.
        base: the folder that relative paths of weights start from.
        data: the data folder.
        out: the folder whose `cache/` keeps fitted heads and the encoders' embeddings.
        corpus: what teachers are fitted to; None if the recipe has no teacher that needs it.
        report: called with the progress of each long step.

    Raises:
        PocketclipError: weights are missing or damaged.
    """
    device = choose_device(recipe.optim.device)
    context = TeacherContext(Path(base), Path(data), _cache(out, report), corpus, recipe.seed, report, device)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    # The lock must be inside: a process that waits for the others must not hold it.
    with first_process_first(), FileLock(out / ".lock"):
        return tuple(construct_teacher(config, context) for config in recipe.teachers)


def make_banks(
    recipe: Recipe, teachers: tuple[Teacher, ...], out: PathLike, corpus: Corpus, report: ReportProgress
) -> tuple[TeacherBank, ...]:
    """Return every teacher's embeddings of a whole corpus, from the cache if they are there."""
    cache, photos, banks = _cache(out, report), [sample.photo for sample in corpus.samples], []
    with first_process_first():
        for teacher in teachers:
            if isinstance(teacher, CachedTeacher):
                images, texts = teacher.recall_images(photos), teacher.recall_texts(corpus.texts)
            else:
                images, texts = cache.images(teacher, photos), cache.texts(teacher, corpus.texts)
            classes = posterior = None
            if isinstance(teacher, NamingTeacher) and (embeddings := teacher.class_embeddings()) is not None:
                classes = unit_tensor(embeddings)
            if isinstance(teacher, ClassifyingTeacher) and recipe.loss.needing(Need.POSTERIOR):
                posterior = teacher.log_posterior(photos)
            banks.append(TeacherBank(unit_tensor(images), unit_tensor(texts), teacher.logit_scale, classes, posterior))
    return tuple(banks)


def corpus_features(encoder: TrunkEncoder, out: PathLike, corpus: Corpus, report: ReportProgress) -> CorpusFeatures:
    """Return a trunk's features of every photo of a corpus, from the cache if they are there."""

    def report_features(what: str, done: int, total: int, note: str = "") -> None:
        report("features", done, total, note)

    with first_process_first():
        return CorpusFeatures.of(encoder, VectorCache(Path(out) / CACHE, report_features), corpus)


def _cache(out: PathLike, report: ReportProgress) -> VectorCache:
    def report_teacher(what: str, done: int, total: int, note: str = "") -> None:
        report(f"teacher {what}", done, total, note)

    return VectorCache(Path(out) / CACHE, report_teacher)

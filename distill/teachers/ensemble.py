"""All teachers that a recipe names, and their vectors of its corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.config import AlignedPairConfig, OpenClipConfig, Recipe
from distill.data.corpus import Corpus
from distill.distributed import first_process_first
from distill.losses import Need
from distill.teachers.aligned import AlignedPair
from distill.teachers.bank import TeacherBank
from distill.teachers.base import ImageEncoder, Teacher
from distill.teachers.cache import VectorCache
from distill.teachers.openclip import OpenClipTeacher
from distill.teachers.student import CheckpointTeacher

Report = Callable[[str, int, int, str], None]
"""Called with (what, done, total, note)."""

CACHE = "cache"
"""Folder of what teachers say, below a run's; runs may share it."""


def make_teachers(
    recipe: Recipe, base: Path, data: Path, out: Path, corpus: Corpus | None, report: Report
) -> tuple[Teacher, ...]:
    """Make every teacher that a recipe names, in the recipe's order; the aligned pair's heads are fitted.

    Args:
        recipe: names them.
        base: what relative paths of weights start from.
        data: the data folder.
        out: heads and encoders' vectors are kept in its `cache/`.
        corpus: what the aligned pair is fitted to; others need none.
        report: told how far each long step is.

    Raises:
        PocketclipError: weights are missing or damaged.
    """
    teachers: list[Teacher] = []
    with first_process_first():
        for config in recipe.taught_by:
            if isinstance(config, AlignedPairConfig):
                assert corpus is not None
                pair = AlignedPair(config, base, data, _cache(out, report))
                pair.fit(corpus, out / CACHE, recipe.seed, lambda e, n, loss: report("heads", e, n, f"loss {loss:.3f}"))
                teachers.append(pair)
            elif isinstance(config, OpenClipConfig):
                teachers.append(OpenClipTeacher(config))
            else:
                teachers.append(CheckpointTeacher(config, base))
    return tuple(teachers)


def make_banks(
    recipe: Recipe, teachers: tuple[Teacher, ...], out: Path, corpus: Corpus, report: Report
) -> tuple[TeacherBank, ...]:
    """Return every teacher's vectors of a whole corpus, from the cache where they are there."""
    cache, photos, banks = _cache(out, report), [sample.path for sample in corpus.samples], []
    with first_process_first():
        for teacher in teachers:
            classes = posterior = None
            if isinstance(teacher, AlignedPair):
                # Its encoders' vectors are cached; the heads are cheap.
                images, texts = teacher.recall_images(photos), teacher.recall_texts(corpus.texts)
                if teacher.config.class_names:
                    classes = _unit(teacher.recall_texts(teacher.class_prompts()))
                if recipe.loss.needing(Need.POSTERIOR):
                    posterior = teacher.log_posterior(photos)
            else:
                images, texts = cache.images(teacher, photos), cache.texts(teacher, corpus.texts)
            banks.append(TeacherBank(_unit(images), _unit(texts), teacher.logit_scale, classes, posterior))
    return tuple(banks)


def trunk_features(encoder: ImageEncoder, out: Path, corpus: Corpus, report: Report) -> Tensor:
    """Return what an encoder makes of every photo of a corpus, (samples, width), from the cache where it is there."""
    cache = VectorCache(out / CACHE, lambda done, total, what: report("features", done, total, ""))
    with first_process_first():
        return torch.from_numpy(cache.images(encoder, [sample.path for sample in corpus.samples]))


def _cache(out: Path, report: Report) -> VectorCache:
    return VectorCache(out / CACHE, lambda done, total, what: report(f"teacher {what}", done, total, ""))


def _unit(vectors: object) -> Tensor:
    return F.normalize(torch.as_tensor(vectors), dim=-1)

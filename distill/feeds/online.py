"""Training beside the teacher itself: augmentations drawn anew, every view encoded when it is needed.

What reinforcement replaces; needed where a data set is seen once only, and to compare with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.data.augment import DECODE_MARGIN, apply, draw
from distill.data.samples import RawSample, plan_units, whole
from distill.data.tars import TarSample
from distill.distributed import size
from distill.feeds.steps import Drawn, Steps, draw_text, epoch_size, fetch, rows_a_step
from distill.losses import TeacherEmbeddings
from distill.teachers.base import Teacher
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig


class OnlineSamples:
    """Photos of captions files, tables of labels and tars, with views for teachers instead of their vectors.

    Args:
        recipe: sources and the augmentations' ranges.
        data: the data folder.
        sizes: sides of the views that the teachers want, one a teacher.

    Raises:
        DataError: a source is missing, malformed or reinforced already.
    """

    def __init__(self, recipe: Recipe, data: Path, sizes: Sequence[int]) -> None:
        self.policy, self.sizes = recipe.reinforcement, tuple(sizes)
        self.photos: list[tuple[str, RawSample | TarSample]] = []
        counts: dict[str, list[int]] = {}
        self.only_texts: list[str] = []
        units, self.identity = plan_units(recipe, data)
        for unit in units:
            found, _ = unit.read()
            self.photos += [(unit.source, one) for one in found]
            self.only_texts += unit.texts
            if not unit.texts:
                counts.setdefault(unit.source, []).append(len(found))
        self.sources: Sequence[tuple[float, Sequence[int]]] = [
            (source.per_epoch, counts[source.name]) for source in recipe.photos
        ]
        self.texts = len(self.only_texts) + len(self.photos)

    def photo(self, number: int, random: np.random.Generator, px: int) -> Drawn:
        """Return a photo, see `Samples`."""
        source, found = self.photos[number]
        sample = whole(found, source)
        picture = sample.photo.open(DECODE_MARGIN * max(px, *self.sizes))
        augmentation = draw(random, self.policy, picture.width / picture.height)
        views = {side: torch.from_numpy(np.array(apply(picture, augmentation, side))) for side in set(self.sizes)}
        text, _ = self._text(sample, random)
        return Drawn(picture, augmentation, text, sample.group, tuple(views[side] for side in self.sizes), ())

    def text(self, number: int, random: np.random.Generator) -> tuple[str, tuple[Tensor, ...]]:
        """Return a text, see `Samples`: those without photos come first, then one of each photo."""
        if number < len(self.only_texts):
            return self.only_texts[number], ()
        source, found = self.photos[number - len(self.only_texts)]
        return self._text(whole(found, source), random)

    def _text(self, sample: RawSample, random: np.random.Generator) -> tuple[str, tuple[Tensor, ...]]:
        texts = sample.captions + sample.synthetic
        return texts[draw_text(random, len(sample.captions), len(sample.synthetic))], ()


class OnlineFeed:
    """Batches whose views the teachers encode at once; see `distill.feeds.cached.Feed`. There is no reference.

    Args:
        recipe: sources, augmentations, batch sizes and seed.
        data: the data folder.
        config: of the student.
        tokenizer: the student's.
        teachers: one or more; they run on this process, between the steps.
        workers: processes that decode photos ahead.

    Raises:
        PocketclipError: a source is missing or malformed, or the batch does not divide among the processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Path,
        config: ModelConfig,
        tokenizer: Tokenizer,
        teachers: Sequence[Teacher],
        workers: int = 1,
    ) -> None:
        self.recipe, self.config, self.tokenizer, self.workers = recipe, config, tokenizer, workers
        self.teachers = teachers
        self.samples = OnlineSamples(recipe, data, [teacher.px for teacher in teachers])
        self.identity = "|".join([self.samples.identity, *(teacher.identity for teacher in teachers)])
        self.photos, self.texts = len(self.samples.photos), self.samples.texts
        self.widths = tuple(teacher.encode_texts(["a photo"]).shape[1] for teacher in teachers)
        if recipe.optim.batch % size():
            raise ConfigError(f"optim.batch: {recipe.optim.batch} is not a multiple of {size()} processes")

    def steps(self, epoch: int, stage: Stage) -> int:
        """Return how many whole batches an epoch has."""
        total = self.samples.texts if stage.texts_only else epoch_size(self.samples)
        return total // rows_a_step(self.recipe.optim, stage)

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        """Yield this process's share of an epoch's batches, from number `first` on."""
        recipe = self.recipe
        steps = Steps(self.samples, stage, recipe.optim, recipe.seed, epoch, self.tokenizer, self.config.pixels)
        for fetched in fetch(steps, first, self.workers):
            views = fetched.image or tuple(torch.empty(0) for _ in self.teachers)
            teachers = tuple(
                TeacherEmbeddings(
                    self._encode(teacher, seen, width), _unit(teacher.encode_texts(fetched.texts)), teacher.logit_scale
                )
                for teacher, seen, width in zip(self.teachers, views, self.widths, strict=True)
            )
            yield Batch(fetched.pixels, fetched.tokens, fetched.groups, teachers, tried=fetched.read)

    def _encode(self, teacher: Teacher, views: Tensor, width: int) -> Tensor:
        if not len(views):
            return torch.zeros(0, width)
        return _unit(teacher.encode_pictures([Image.fromarray(view) for view in views.numpy()]))


def _unit(vectors: np.ndarray) -> Tensor:
    return F.normalize(torch.from_numpy(vectors).float(), dim=-1)

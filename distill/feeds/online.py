"""Training with teachers that run at every step: each view is new, and teachers encode it when it is needed.

Reinforced data replaces this. It remains for data that is used only once, and for comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from distill.batch import Batch
from distill.config import PhotoSource, Recipe, Stage
from distill.data.augment import DECODE_MARGIN, apply, draw
from distill.data.samples import CaptionedPhoto, plan_shards, with_captions
from distill.data.tables import DataError
from distill.data.tars import TarSample
from distill.distributed import size
from distill.feeds.steps import (
    PhotoSample,
    Steps,
    TextSample,
    draw_text_index,
    epoch_size,
    prepare_steps,
    rows_per_step,
)
from distill.losses import TeacherEmbeddings
from distill.teachers.base import Teacher
from mobileclip.errors import ConfigError
from mobileclip.files import PathLike
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from mobileclip.vectors import Floats


class OnlineSamples:
    """Photos of captions files, labels files and tars, with views for the teachers instead of their embeddings.

    Args:
        recipe: sources, and ranges of the augmentations.
        data: the data folder.
        sizes: the side of each teacher's views in pixels.

    Raises:
        DataError: a source is missing, malformed or reinforced already.
    """

    def __init__(self, recipe: Recipe, data: PathLike, sizes: Sequence[int]) -> None:
        self.policy, self.sizes = recipe.reinforcement, tuple(sizes)
        self._photos: list[tuple[PhotoSource, CaptionedPhoto | TarSample]] = []
        self._texts: list[str] = []
        counts: dict[str, list[int]] = {}
        sources = {source.name: source for source in recipe.photos}
        parts, self.identity = plan_shards(recipe, data)
        for part in parts:
            found, _ = part.read()
            self._photos += [(sources[part.source], sample) for sample in found]
            self._texts += part.texts
            if not part.texts:
                counts.setdefault(part.source, []).append(len(found))
        for source in recipe.photos:
            if not sum(counts.get(source.name, ())):
                raise DataError(f"photos.{source.name}: none of the samples in its tars has a picture and a text")
        self.sources: Sequence[tuple[float, Sequence[int]]] = [
            (source.per_epoch, counts[source.name]) for source in recipe.photos
        ]
        self.photo_count = len(self._photos)
        self.text_count = len(self._texts) + len(self._photos)

    def photo(self, number: int, random: np.random.Generator, px: int) -> PhotoSample:
        """Return a photo, see `Samples`."""
        source, found = self._photos[number]
        sample = with_captions(found, source)
        picture = sample.photo.open(DECODE_MARGIN * max((px, *self.sizes)))
        augmentation = draw(random, self.policy, picture.width / picture.height)
        views = {side: torch.from_numpy(np.array(apply(picture, augmentation, side))) for side in set(self.sizes)}
        targets = tuple(views[side] for side in self.sizes)
        return PhotoSample(picture, augmentation, sample.group, _draw_text(sample, random), targets)

    def text(self, number: int, random: np.random.Generator) -> TextSample:
        """Return a text, see `Samples`. Texts without photos come first, then one text of each photo."""
        if number < len(self._texts):
            return TextSample(self._texts[number], ())
        source, found = self._photos[number - len(self._texts)]
        return _draw_text(with_captions(found, source), random)


def _draw_text(sample: CaptionedPhoto, random: np.random.Generator) -> TextSample:
    texts = sample.captions + sample.synthetic
    return TextSample(texts[draw_text_index(random, len(sample.captions), len(sample.synthetic))], ())


class OnlineFeed:
    """Batches whose views the teachers encode at once, without reference embeddings; see `distill.feeds.cached.Feed`.

    Args:
        recipe: sources, augmentations, batch sizes and seed.
        data: the data folder.
        config: the student's.
        tokenizer: the student's.
        teachers: one or more; they run in this process, between the steps.
        workers: processes that decode photos ahead.

    Raises:
        PocketclipError: a source is missing or malformed, or the batch size isn't a multiple of the processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: PathLike,
        config: ModelConfig,
        tokenizer: Tokenizer,
        teachers: Sequence[Teacher],
        workers: int = 1,
    ) -> None:
        self.recipe, self.config, self.tokenizer, self.workers = recipe, config, tokenizer, workers
        self.teachers = teachers
        self.samples = OnlineSamples(recipe, data, [teacher.px for teacher in teachers])
        self.identity = "|".join([self.samples.identity, *(teacher.identity for teacher in teachers)])
        self.photo_count, self.text_count = self.samples.photo_count, self.samples.text_count
        self.widths = tuple(teacher.encode_texts(["a photo"]).shape[1] for teacher in teachers)
        if recipe.optim.batch % size():
            raise ConfigError(f"optim.batch: {recipe.optim.batch} is not a multiple of {size()} processes")

    def steps(self, epoch: int, stage: Stage) -> int:
        """Return the number of full batches in an epoch."""
        total = self.text_count if stage.texts_only else epoch_size(self.samples)
        return total // rows_per_step(self.recipe.optim, stage)

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        """Yield this process's share of an epoch's batches, from number `first` on."""
        recipe = self.recipe
        steps = Steps(self.samples, stage, recipe.optim, recipe.seed, epoch, self.tokenizer, self.config.pixels)
        for rows in prepare_steps(steps, first, self.workers):
            all_views = rows.photo_targets or tuple(torch.empty(0) for _ in self.teachers)
            teachers = tuple(
                TeacherEmbeddings(
                    _encode_views(teacher, views, width), _unit(teacher.encode_texts(rows.texts)), teacher.logit_scale
                )
                for teacher, views, width in zip(self.teachers, all_views, self.widths, strict=True)
            )
            yield Batch(rows.pixels, rows.tokens, rows.groups, teachers, tried=rows.tried)


def _encode_views(teacher: Teacher, views: Tensor, width: int) -> Tensor:
    """Return unit embeddings (n, width) of views (n, px, px, 3) uint8."""
    if not len(views):
        return torch.zeros(0, width)
    return _unit(teacher.encode_pictures([Image.fromarray(view) for view in views.numpy()]))


def _unit(vectors: Floats) -> Tensor:
    return F.normalize(torch.from_numpy(vectors).float(), dim=-1)

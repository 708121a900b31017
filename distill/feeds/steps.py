"""Batches that worker processes prepare step by step; seed, epoch and position determine each.

A step is the unit of work. It comes out the same in any worker, whether or not earlier steps were prepared, so a
resumed run simply starts at a later step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill.config import OptimConfig, Stage
from distill.data.epoch import draw_epoch
from distill.data.retype import retype
from distill.data.tables import DataError
from distill.data.tars import SampleError
from distill.distributed import rank, size
from distill.feeds.samples import PhotoSample, Samples, TextSample
from mobileclip.errors import PhotoError, PocketclipError, TextCutWarning
from mobileclip.preprocess import PixelRecipe
from mobileclip.tokenizer import Tokenizer

Row = TypeVar("Row")

SORT_WINDOW = 64
"""Number of steps whose texts are sorted by length together."""

TRIES = 4
"""How many batches' worth of other photos to try if none of a batch can be read."""


@dataclass(frozen=True)
class StepRows:
    """This process's rows of one step, as a worker prepared them.

    Attributes:
        pixels, tokens, groups, tried: see `Batch`.
        texts: the texts before tokenization.
        photo_targets: one tensor per teacher, `PhotoSample.targets` stacked; empty without photos.
        text_targets: one tensor per teacher, `TextSample.targets` stacked.
        posterior: `PhotoSample.posterior` stacked, or None.
    """

    pixels: Tensor
    texts: tuple[str, ...]
    tokens: Tensor
    groups: Tensor
    photo_targets: tuple[Tensor, ...]
    text_targets: tuple[Tensor, ...]
    tried: int
    posterior: Tensor | None = None


def rows_per_step(optim: OptimConfig, stage: Stage) -> int:
    """Return the number of photos (without photos: texts) in a step of all processes together."""
    return optim.batch + (optim.extra_texts if stage.texts_only else 0)


def group_number(group: str) -> int:
    """Return a number for a group, the same on every process."""
    return int.from_bytes(hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


class Steps(Dataset[StepRows | PocketclipError]):
    """The steps of an epoch; of each, this process's rows.

    Args:
        samples: where photos and texts come from.
        stage: sets the size of the pictures.
        optim: sets the batch size of all processes together.
        seed: the run's seed.
        epoch: number of the epoch.
        tokenizer: the student's.
        pixels: the student's.
        sort: whether the texts of a step without photos have similar lengths, which saves padding. All steps of an
            epoch together still have every text once.
    """

    def __init__(
        self,
        samples: Samples,
        stage: Stage,
        optim: OptimConfig,
        seed: int,
        epoch: int,
        tokenizer: Tokenizer,
        pixels: PixelRecipe,
        sort: bool = False,
    ) -> None:
        self.samples, self.stage, self.optim, self.seed, self.epoch = samples, stage, optim, seed, epoch
        self.tokenizer = tokenizer
        self.pixels = dataclasses.replace(pixels, size=stage.px or pixels.size)
        self.rank, self.size = rank(), size()  # worker processes can't find out
        self.order = self._draw_texts(sort) if stage.texts_only else draw_epoch(samples.sources, seed, epoch)

    def _draw_texts(self, sort: bool) -> NDArray[np.int64]:
        """Draw the texts of an epoch: in random order, or sorted within windows of steps, which are then shuffled."""
        random = np.random.default_rng((self.seed, self.epoch, 1))
        order = random.permutation(self.samples.text_count)
        lengths = self.samples.text_lengths
        if not sort or lengths is None:
            return order
        window = SORT_WINDOW * self.rows
        parts = [order[start : start + window] for start in range(0, len(order), window)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        full = order[: len(order) // self.rows * self.rows].reshape(-1, self.rows)
        shuffled: NDArray[np.int64] = random.permutation(full).ravel()
        return shuffled

    @property
    def rows(self) -> int:
        """Rows of a step, see `rows_per_step`."""
        return rows_per_step(self.optim, self.stage)

    def __len__(self) -> int:
        return len(self.order) // self.rows

    def __getitem__(self, step: int) -> StepRows | PocketclipError:
        positions = range(step * self.rows, (step + 1) * self.rows)[self.rank :: self.size]
        try:
            if self.stage.texts_only:
                texts = [text for at in positions if (text := self._text(at)) is not None]
                return self._join(step, [], self._fill(texts, len(positions)), 0)
            unread: Counter[str] = Counter()
            photos = [photo for at in positions if (photo := self._photo(at, unread)) is not None]
            tried = len(positions)
            if not photos:  # a damaged stretch of a tar, for example
                photos = self._elsewhere(step, len(positions), unread)
                tried += len(photos)
            photos = self._fill(photos, len(positions))
            extra = self._extra(step, [photo.text for photo in photos])
            return self._join(step, photos, extra, tried)
        except PocketclipError as error:
            return error  # raised in the main process, without the worker's traceback

    def _elsewhere(self, step: int, wanted: int, unread: Counter[str]) -> list[PhotoSample]:
        """Read other photos of the epoch in place of a batch without a single readable one.

        Raises:
            DataError: none of them can be read either; names the reasons.
        """
        random = np.random.default_rng((self.seed, self.epoch, step, self.rank, 5))
        found: list[PhotoSample] = []
        for position in random.choice(len(self.order), min(TRIES * wanted, len(self.order)), replace=False):
            if (photo := self._photo(int(position), unread)) is not None:
                found.append(photo)
                if len(found) == wanted:
                    break
        if not found:
            reasons = "; ".join(f"{count} × {reason}" for reason, count in unread.most_common(3))
            raise DataError(
                f"none of the photos of a batch, nor of {unread.total() - wanted} others, can be read ({reasons})"
            )
        return found

    def _photo(self, position: int, unread: Counter[str]) -> PhotoSample | None:
        """Read the photo at a position of the epoch; None, with its reason counted, if it can't be read."""
        random = np.random.default_rng((self.seed, self.epoch, position, 2))
        try:
            return self.samples.photo(int(self.order[position]), random, self.stage)
        except (PhotoError, SampleError) as error:
            unread[error.reason if isinstance(error, PhotoError) else str(error)] += 1
            return None

    def _text(self, position: int) -> TextSample | None:
        """Read the text at a position of an epoch without photos; None if it can't be read."""
        return self._read_text(int(self.order[position]), np.random.default_rng((self.seed, self.epoch, position, 3)))

    def _read_text(self, number: int, random: np.random.Generator) -> TextSample | None:
        try:
            return self.samples.text(number, random)
        except SampleError:
            return None

    def _extra(self, step: int, photos: list[TextSample]) -> list[TextSample]:
        """Draw this process's extra texts, without those that its photos use.

        If photos use all, their texts are repeated in place of others if several processes train.
        """
        used = {sample.text for sample in photos}
        wanted, count = self.optim.extra_texts // self.size, self.samples.text_count
        random = np.random.default_rng((self.seed, self.epoch, 4, step, self.rank))
        numbers = random.choice(count, min(2 * wanted, count), replace=False)
        unique: dict[str, TextSample] = {}
        for number in numbers.tolist():
            sample = self._read_text(number, random)
            if sample is not None and sample.text not in used:
                unique.setdefault(sample.text, sample)
            if len(unique) == wanted:
                break
        return self._fill(list(unique.values()) or photos * (self.size > 1), wanted)

    def _fill(self, rows: list[Row], wanted: int) -> list[Row]:
        """Repeat rows in place of unreadable ones if several processes train, as all need the same number of rows."""
        if self.size == 1 or not rows:
            return rows[:wanted]
        return [rows[i % len(rows)] for i in range(wanted)]

    def _join(self, step: int, photos: list[PhotoSample], extra: list[TextSample], tried: int) -> StepRows:
        texts = [photo.text for photo in photos] + extra
        posterior = [photo.posterior for photo in photos if photo.posterior is not None]
        return StepRows(
            self._pixels(photos),
            tuple(sample.text for sample in texts),
            self._tokens(step, texts),
            torch.tensor([group_number(photo.group) for photo in photos], dtype=torch.int64),
            stack_targets(photos),
            stack_targets(texts),
            tried,
            torch.stack(posterior) if posterior else None,
        )

    def _tokens(self, step: int, texts: list[TextSample]) -> Tensor:
        """Return the student's tokens (n, context length); a share of the texts is retyped first."""
        random = np.random.default_rng((self.seed, self.epoch, step, self.rank, 6))
        retyped = random.random(len(texts)) < self.stage.retyped
        typed = [retype(one.text, random) if change else one.text for one, change in zip(texts, retyped, strict=True)]
        rows = [None if change else one.tokens for one, change in zip(texts, retyped, strict=True)]
        unknown = [number for number, row in enumerate(rows) if row is None]
        with warnings.catch_warnings():  # the warning would appear at every step
            warnings.simplefilter("ignore", TextCutWarning)
            found = self.tokenizer([typed[number] for number in unknown])
        tokens = np.zeros((len(texts), found.shape[1]), np.int64)
        for number, row in enumerate(rows):
            if row is not None:
                tokens[number] = row
        tokens[unknown] = found
        return torch.from_numpy(tokens)

    def _pixels(self, photos: list[PhotoSample]) -> Tensor:
        if not photos:
            return torch.empty(0, 3, 1, 1)
        views = torch.stack([photo.view for photo in photos])
        return views if self.stage.features else torch.from_numpy(self.pixels.normalize_uint8(views.numpy()))


def stack_targets(samples: Sequence[PhotoSample | TextSample]) -> tuple[Tensor, ...]:
    """Stack the targets of samples, one tensor per teacher."""
    return tuple(torch.stack(rows) for rows in zip(*(sample.targets for sample in samples), strict=True))


def _as_is(rows: Any) -> Any:
    return rows


def prepare_steps(steps: Steps, first: int, workers: int) -> Iterator[StepRows]:
    """Yield the steps of an epoch from number `first` on, prepared ahead by `workers` processes.

    Raises:
        PocketclipError: data is missing or damaged that was there at the start.
    """
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, len(steps)),
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    for rows in loader:
        if isinstance(rows, PocketclipError):
            raise rows
        yield rows

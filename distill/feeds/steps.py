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
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill.config import OptimConfig, Stage
from distill.data.augment import Augmentation, apply
from distill.data.tables import DataError
from distill.data.tars import SampleError
from distill.distributed import rank, size
from mobileclip.errors import PhotoError, PocketclipError, TextCutWarning
from mobileclip.preprocess import PixelRecipe
from mobileclip.tokenizer import Tokenizer

Row = TypeVar("Row")

SHUFFLE_WINDOW = 2**16
"""Samples that are shuffled together. Larger sets are shuffled by shard first, so that a step reads few shards."""


TRIES = 4
"""How many batches' worth of other photos to try if none of a batch can be read."""


class TextSample(NamedTuple):
    """A text, and its embedding (d,) by each teacher; `targets` is empty if teachers still have to encode it."""

    text: str
    targets: tuple[Tensor, ...]


class PhotoSample(NamedTuple):
    """A photo as one epoch uses it.

    Attributes:
        picture: the decoded photo.
        augmentation: how to make the student's view.
        group: what it shows; equal for photos that aren't each other's negatives.
        text: one of its texts.
        targets: one tensor per teacher: the embedding (d,) of its view, or the view (px, px, 3) uint8 that the teacher
            still has to encode.
    """

    picture: Image.Image
    augmentation: Augmentation
    group: str
    text: TextSample
    targets: tuple[Tensor, ...]


class Samples(Protocol):
    """Photos and texts by number. All randomness comes from the generator that is passed in."""

    sources: Sequence[tuple[float, Sequence[int]]]
    """For each source, the share drawn in an epoch, and the number of photos in each of its shards."""
    text_count: int
    """How many texts there are: `text` accepts numbers below this."""

    def photo(self, number: int, random: np.random.Generator, px: int) -> PhotoSample:
        """Return a photo, decoded for views of `px`. Photos are numbered across all shards of all sources.

        Raises:
            PhotoError, SampleError: it can't be read.
        """

    def text(self, number: int, random: np.random.Generator) -> TextSample:
        """Return a text for which no photo is needed.

        Raises:
            SampleError: it can't be read.
        """


@dataclass(frozen=True)
class StepRows:
    """This process's rows of one step, as a worker prepared them.

    Attributes:
        pixels, tokens, groups, tried: see `Batch`.
        texts: the texts before tokenization.
        photo_targets: one tensor per teacher, `PhotoSample.targets` stacked; empty without photos.
        text_targets: one tensor per teacher, `TextSample.targets` stacked.
    """

    pixels: Tensor
    texts: tuple[str, ...]
    tokens: Tensor
    groups: Tensor
    photo_targets: tuple[Tensor, ...]
    text_targets: tuple[Tensor, ...]
    tried: int


def shuffle_shards(
    sizes: Sequence[int], random: np.random.Generator, window: int = SHUFFLE_WINDOW
) -> NDArray[np.int64]:
    """Shuffle the samples of shards with these sizes: first the shards, then the samples within windows."""
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    shards = random.permutation(len(sizes))
    order = np.concatenate([np.arange(0), *(np.arange(starts[i], starts[i + 1]) for i in shards)]).astype(np.int64)
    for start in range(0, len(order), window):
        random.shuffle(order[start : start + window])
    return order


def draw_text_index(random: np.random.Generator, captions: int, synthetic: int) -> int:
    """Draw an index into captions followed by synthetic captions.

    Both kinds are equally likely, as in MobileCLIP, where both losses have the same weight.
    """
    if synthetic and random.integers(2):
        return captions + int(random.integers(synthetic))
    return int(random.integers(captions))


def rows_per_step(optim: OptimConfig, stage: Stage) -> int:
    """Return the number of photos (without photos: texts) in a step of all processes; a multiple of their number."""
    return (optim.batch + (optim.extra_texts if stage.texts_only else 0)) // size() * size()


def epoch_size(samples: Samples) -> int:
    """Return the number of photos that an epoch draws."""
    counts = [(share, sum(sizes)) for share, sizes in samples.sources]
    return sum(int(share) * count + round(share % 1 * count) for share, count in counts)


def epoch_order(samples: Samples, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw the photos of an epoch: each source by its share, in its own order, evenly mixed with the other sources."""
    random = np.random.default_rng((seed, epoch))
    orders, start = [], 0
    for share, sizes in samples.sources:
        rounds = [shuffle_shards(sizes, random) for _ in range(int(share))]
        rounds.append(shuffle_shards(sizes, random)[: round(share % 1 * sum(sizes))])
        orders.append(start + np.concatenate(rounds))
        start += sum(sizes)
    source_of = random.permutation(np.repeat(np.arange(len(orders)), [len(order) for order in orders]))
    mixed = np.empty(len(source_of), np.int64)
    for number, order in enumerate(orders):
        mixed[source_of == number] = order
    return mixed


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
    ) -> None:
        self.samples, self.stage, self.optim, self.seed, self.epoch = samples, stage, optim, seed, epoch
        self.tokenizer = tokenizer
        self.pixels = dataclasses.replace(pixels, size=stage.px or pixels.size)
        self.rank, self.size = rank(), size()  # worker processes can't find out
        random = np.random.default_rng((seed, epoch, 1))
        self.order = random.permutation(samples.text_count) if stage.texts_only else epoch_order(samples, seed, epoch)

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
                texts = [text for at in positions if (text := self._text(int(self.order[at]), at)) is not None]
                return self._join([], self._fill(texts, len(positions)), 0)
            unread: Counter[str] = Counter()
            photos = [photo for at in positions if (photo := self._photo(at, unread)) is not None]
            tried = len(positions)
            if not photos:  # a damaged stretch of a tar, for example
                photos = self._elsewhere(step, len(positions), unread)
                tried += len(photos)
            photos = self._fill(photos, len(positions))
            extra = self._extra(step, {photo.text.text for _, photo in photos})
            return self._join(photos, extra, tried)
        except PocketclipError as error:
            return error  # raised in the main process, without the worker's traceback

    def _elsewhere(self, step: int, wanted: int, unread: Counter[str]) -> list[tuple[Tensor, PhotoSample]]:
        """Read other photos of the epoch in place of a batch without a single readable one.

        Raises:
            DataError: none of them can be read either; names the reasons.
        """
        random = np.random.default_rng((self.seed, self.epoch, step, self.rank, 5))
        found: list[tuple[Tensor, PhotoSample]] = []
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

    def _photo(self, position: int, unread: Counter[str]) -> tuple[Tensor, PhotoSample] | None:
        """Read the photo at a position of the epoch; None, with its reason counted, if it can't be read."""
        random = np.random.default_rng((self.seed, self.epoch, position, 2))
        try:
            photo = self.samples.photo(int(self.order[position]), random, self.stage.px)
        except (PhotoError, SampleError) as error:
            unread[error.reason if isinstance(error, PhotoError) else str(error)] += 1
            return None
        view = np.asarray(apply(photo.picture, photo.augmentation, self.stage.px))
        return torch.from_numpy(self.pixels.normalize_uint8(view[None])[0]), photo

    def _text(self, number: int, *key: int) -> TextSample | None:
        try:
            return self.samples.text(number, np.random.default_rng((self.seed, self.epoch, 3, *key)))
        except SampleError:
            return None

    def _extra(self, step: int, used: set[str]) -> list[TextSample]:
        """Draw this process's extra texts, without those that its photos use."""
        wanted = self.optim.extra_texts // self.size
        random = np.random.default_rng((self.seed, self.epoch, 4, step, self.rank))
        count = self.samples.text_count
        numbers = random.choice(count, min(2 * wanted, count), replace=False)
        read = (self._text(int(number), step, int(number)) for number in numbers)
        unique = {sample.text: sample for sample in read if sample is not None}
        return self._fill([sample for text, sample in unique.items() if text not in used], wanted)

    def _fill(self, rows: list[Row], wanted: int) -> list[Row]:
        """Repeat rows in place of unreadable ones if several processes train, as all need the same number of rows."""
        if self.size == 1 or not rows:
            return rows[:wanted]
        return [rows[i % len(rows)] for i in range(wanted)]

    def _join(self, photos: list[tuple[Tensor, PhotoSample]], extra: list[TextSample], tried: int) -> StepRows:
        samples = [photo for _, photo in photos]
        texts = [photo.text for photo in samples] + extra
        with warnings.catch_warnings():  # the warning would appear at every step
            warnings.simplefilter("ignore", TextCutWarning)
            tokens = torch.from_numpy(self.tokenizer([sample.text for sample in texts])).long()
        return StepRows(
            torch.stack([pixels for pixels, _ in photos]) if photos else torch.empty(0, 3, 1, 1),
            tuple(sample.text for sample in texts),
            tokens,
            torch.tensor([group_number(photo.group) for photo in samples], dtype=torch.int64),
            stack_targets(samples),
            stack_targets(texts),
            tried,
        )


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

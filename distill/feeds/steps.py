"""Batches that workers make step by step, each decided by seed, epoch and position alone.

A whole step is one piece of work: whichever worker takes it, and whether or not the steps before it were ever made, it
comes out the same. Resuming is starting at a later step.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
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
from distill.data.sources import DataError
from distill.data.tars import SampleError
from distill.distributed import rank, size
from mobileclip.errors import PhotoError, PocketclipError, TextCutWarning
from mobileclip.preprocess import PixelRecipe
from mobileclip.tokenizer import Tokenizer

Row = TypeVar("Row")

WINDOW = 2**16
"""Samples shuffled freely; larger sets by whole shards first, so that a step reads from few of them."""


Words = tuple[str, tuple[Tensor, ...]]
"""A text, and one tensor a teacher as in `Drawn.words`."""


class Drawn(NamedTuple):
    """A sample as it is met in one epoch.

    `image` and `words` have one tensor a teacher: vectors, or what the teacher still has to encode.
    """

    picture: Image.Image
    augmentation: Augmentation
    text: str
    group: str
    image: tuple[Tensor, ...]
    words: tuple[Tensor, ...]


class Samples(Protocol):
    """Photos and texts by number. Everything random comes from the generator that is handed in."""

    sources: Sequence[tuple[float, Sequence[int]]]
    """For each source its share drawn in an epoch, and how many photos each of its shards holds."""
    texts: int
    """How many numbers `text` takes."""

    def photo(self, number: int, random: np.random.Generator, px: int) -> Drawn:
        """Return a photo, decoded for views of `px`; numbers run through all shards of all sources.

        Raises:
            PhotoError, SampleError: it cannot be read.
        """

    def text(self, number: int, random: np.random.Generator) -> Words:
        """Return a text that needs no photo, and its teachers' vectors.

        Raises:
            SampleError: it cannot be read.
        """


@dataclass(frozen=True)
class Fetched:
    """A step's share as a worker made it: as in `Batch`, with texts beside their tokens."""

    pixels: Tensor
    texts: tuple[str, ...]
    tokens: Tensor
    groups: Tensor
    image: tuple[Tensor, ...]
    words: tuple[Tensor, ...]
    read: int


def shuffled(sizes: Sequence[int], random: np.random.Generator, window: int = WINDOW) -> NDArray[np.int64]:
    """Order the samples of shards: the shards at random, then freely within windows of so many samples."""
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    shards = random.permutation(len(sizes))
    order = np.concatenate([np.arange(0), *(np.arange(starts[i], starts[i + 1]) for i in shards)]).astype(np.int64)
    for start in range(0, len(order), window):
        random.shuffle(order[start : start + window])
    return order


def draw_text(random: np.random.Generator, captions: int, synthetic: int) -> int:
    """Draw a position among captions and the synthetic ones behind them.

    Each kind has half a chance, as in MobileCLIP, where both losses weigh the same.
    """
    if synthetic and random.integers(2):
        return captions + int(random.integers(synthetic))
    return int(random.integers(captions))


def rows_a_step(optim: OptimConfig, stage: Stage) -> int:
    """Photos of all processes in a step, or texts where it has no photos; as many for each process."""
    return (optim.batch + (optim.extra_texts if stage.texts_only else 0)) // size() * size()


def epoch_size(samples: Samples) -> int:
    """How many photos an epoch draws."""
    counts = [(share, sum(sizes)) for share, sizes in samples.sources]
    return sum(int(share) * count + round(share % 1 * count) for share, count in counts)


def epoch_order(samples: Samples, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw an epoch's photos: each source by its share in an order of its own, the sources mixed evenly."""
    random = np.random.default_rng((seed, epoch))
    drawn, start = [], 0
    for share, sizes in samples.sources:
        rounds = [shuffled(sizes, random) for _ in range(int(share))]
        rounds.append(shuffled(sizes, random)[: round(share % 1 * sum(sizes))])
        drawn.append(start + np.concatenate(rounds))
        start += sum(sizes)
    source_of = random.permutation(np.repeat(np.arange(len(drawn)), [len(order) for order in drawn]))
    mixed = np.empty(len(source_of), np.int64)
    for number, order in enumerate(drawn):
        mixed[source_of == number] = order
    return mixed


def group_number(group: str) -> int:
    """Return the same number for the same group, on every process."""
    return int.from_bytes(hashlib.blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


class Steps(Dataset[Fetched | PocketclipError]):
    """The steps of an epoch, this process's share of each.

    Args:
        samples: where photos and texts come from.
        stage: size of the pictures.
        optim: sizes of the batch of all processes.
        seed: of the run.
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
        self.rank, self.size = rank(), size()  # workers do not know
        random = np.random.default_rng((seed, epoch, 1))
        self.order = random.permutation(samples.texts) if stage.texts_only else epoch_order(samples, seed, epoch)

    @property
    def rows(self) -> int:
        """Photos a step, or texts where there are no photos, of all processes."""
        return rows_a_step(self.optim, self.stage)

    def __len__(self) -> int:
        return len(self.order) // self.rows

    def __getitem__(self, step: int) -> Fetched | PocketclipError:
        positions = range(step * self.rows, (step + 1) * self.rows)[self.rank :: self.size]
        try:
            if self.stage.texts_only:
                said = [words for at in positions if (words := self._text(int(self.order[at]), at)) is not None]
                return self._join([], self._filled(said, len(positions)), 0)
            drawn = [row for at in positions if (row := self._photo(at)) is not None]
            if self.size > 1 and not drawn:
                return DataError(
                    f"none of {len(positions)} photos of a batch can be read; see whether they are all there"
                )
            drawn = self._filled(drawn, len(positions))
            extra = self._extra(step, {one.text for _, one in drawn})
            return self._join(drawn, extra, len(positions))
        except PocketclipError as error:
            return error  # raised where no trace of a worker surrounds it

    def _photo(self, position: int) -> tuple[Tensor, Drawn] | None:
        random = np.random.default_rng((self.seed, self.epoch, position, 2))
        try:
            one = self.samples.photo(int(self.order[position]), random, self.stage.px)
        except (PhotoError, SampleError):
            return None
        seen = np.asarray(apply(one.picture, one.augmentation, self.stage.px))
        return torch.from_numpy(self.pixels.normalize_uint8(seen[None])[0]), one

    def _text(self, number: int, *about: int) -> Words | None:
        try:
            return self.samples.text(number, np.random.default_rng((self.seed, self.epoch, 3, *about)))
        except SampleError:
            return None

    def _extra(self, step: int, said: set[str]) -> list[Words]:
        """Draw this process's further texts, none of which a photo of its batch has."""
        wanted = self.optim.extra_texts // self.size
        random = np.random.default_rng((self.seed, self.epoch, 4, step, self.rank))
        some = random.choice(self.samples.texts, min(2 * wanted, self.samples.texts), replace=False)
        read = (self._text(int(number), step, int(number)) for number in some)
        found = dict(words for words in read if words is not None)
        return self._filled([pair for pair in found.items() if pair[0] not in said], wanted)

    def _filled(self, rows: list[Row], wanted: int) -> list[Row]:
        """Repeat rows where some could not be read, for every process must bring as many; alone it need not."""
        if self.size == 1 or not rows:
            return rows[:wanted]
        return [rows[i % len(rows)] for i in range(wanted)]

    def _join(self, drawn: list[tuple[Tensor, Drawn]], extra: list[Words], read: int) -> Fetched:
        rows = [one for _, one in drawn]
        texts = tuple(one.text for one in rows) + tuple(text for text, _ in extra)
        with warnings.catch_warnings():  # at every step anew
            warnings.simplefilter("ignore", TextCutWarning)
            tokens = torch.from_numpy(self.tokenizer(texts)).long()
        words = [one.words for one in rows] + [vectors for _, vectors in extra]
        return Fetched(
            torch.stack([pixels for pixels, _ in drawn]) if drawn else torch.empty(0, 3, 1, 1),
            texts,
            tokens,
            torch.tensor([group_number(one.group) for one in rows], dtype=torch.int64),
            tuple(torch.stack(parts) for parts in zip(*(one.image for one in rows), strict=True)),
            tuple(torch.stack(parts) for parts in zip(*words, strict=True)),
            read,
        )


def _same(fetched: Any) -> Any:
    return fetched


def fetch(steps: Steps, first: int, workers: int) -> Iterator[Fetched]:
    """Yield an epoch's steps from `first` on, made ahead by so many processes.

    Raises:
        PocketclipError: data that were there at the start are missing or damaged.
    """
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, len(steps)),
        collate_fn=_same,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    for fetched in loader:
        if isinstance(fetched, PocketclipError):
            raise fetched
        yield fetched

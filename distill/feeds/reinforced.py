"""Training from reinforced data: photos seen as teachers saw them, beside the vectors that were stored then."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distill.batch import Batch
from distill.config import PhotoSource, Recipe, Stage
from distill.data.augment import DECODE_MARGIN, Augmentation, from_datacompdr
from distill.data.sources import DataError
from distill.data.tars import (
    PICTURES,
    Place,
    Reinforced,
    SampleError,
    TarSample,
    find_tars,
    read_datacompdr,
    read_index,
)
from distill.distributed import size
from distill.feeds.steps import Drawn, Steps, Words, draw_text, epoch_size, fetch, rows_a_step
from distill.losses import TeacherEmbeddings
from distill.reinforce.shards import SIDECAR, Shard, Sidecar, TeacherNote, expand
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig

# Opened once in each process; a handle costs a mapped file, not its contents.
_open = functools.lru_cache(128)(Shard)


class Folder(Protocol):
    """One reinforced source."""

    teachers: tuple[TeacherNote, ...]
    photos: Sequence[int]
    """How many photos each shard holds."""
    texts: Sequence[int]
    """How many texts without photos each shard holds."""

    def photo(self, shard: int, row: int, random: np.random.Generator, px: int) -> Drawn:
        """Return a photo with one of its augmentations and one of its texts, drawn.

        Raises:
            PhotoError, SampleError: it cannot be read.
        """

    def vectors(self, shard: int, row: int, random: np.random.Generator) -> tuple[tuple[Tensor, ...], Words]:
        """Return the vectors of one view of a photo, and one of its texts with its vectors.

        Raises:
            SampleError: they cannot be read.
        """

    def text(self, shard: int, row: int) -> Words:
        """Return a text without a photo, and its vectors."""


class OwnFolder:
    """What `pocketclip reinforce` wrote.

    Args:
        folder: of the reinforcement.
        data: the data folder, that photos are named relative to.

    Raises:
        DataError: it is unfinished, or a shard is missing or not the one that was counted.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        sidecar = Sidecar.load(folder)
        if not sidecar.complete:
            raise DataError(f"{folder}: not all shards are done; run the same `pocketclip reinforce` again")
        self.teachers, self.names = sidecar.teachers, [note.name for note in sidecar.shards]
        self.views = sidecar.policy.augmentations
        self.photos: Sequence[int] = [note.photos for note in sidecar.shards]
        self.texts: Sequence[int] = [note.texts for note in sidecar.shards]
        for note in sidecar.shards:
            if Shard.digest_of(folder, note.name) != note.digest:
                raise DataError(f"{folder}: shard {note.name} is not the one that {SIDECAR} counts")

    def photo(self, shard: int, row: int, random: np.random.Generator, px: int) -> Drawn:
        """See `Folder`."""
        view, image, (text, words) = self._seen(shard, row, random)
        store = _open(self.folder, self.names[shard])
        line = store.line(row)
        place = Place(self.data / line["photo"], tuple(line["place"]) if "place" in line else None)
        augmentation = Augmentation.decode(store.row("augmentations", row, view).tolist())
        return Drawn(place.open(DECODE_MARGIN * px), augmentation, text, line["group"], image, words)

    def vectors(self, shard: int, row: int, random: np.random.Generator) -> tuple[tuple[Tensor, ...], Words]:
        """See `Folder`."""
        return self._seen(shard, row, random)[1:]

    def _seen(self, shard: int, row: int, random: np.random.Generator) -> tuple[int, tuple[Tensor, ...], Words]:
        store = _open(self.folder, self.names[shard])
        line, view = store.line(row), int(random.integers(self.views))
        said = draw_text(random, len(line["captions"]), len(line["synthetic"]))
        image = tuple(store.vector(f"image.{t}", row, view) for t in range(len(self.teachers)))
        text = (line["captions"] + line["synthetic"])[said]
        return view, image, (text, self._words(store, line["text"] + said))

    def text(self, shard: int, row: int) -> Words:
        """See `Folder`."""
        store = _open(self.folder, self.names[shard])
        line = store.line(row)
        return line["captions"][0], self._words(store, line["text"])

    def _words(self, store: Shard, row: int) -> tuple[Tensor, ...]:
        return tuple(store.vector(f"text.{t}", row) for t in range(len(self.teachers)))


class DataCompDRFolder:
    """DataCompDR's own tars, joined with pictures and captions; vectors are read out of each sample.

    Args:
        folder: of tars and a `reinforcement.json` that names the teachers.

    Raises:
        DataError: there is no sample with a picture and vectors, or the teachers' dimensions do not fit those.
    """

    def __init__(self, folder: Path) -> None:
        self.teachers = Sidecar.load(folder).teachers
        self.texts: Sequence[int] = ()
        self.shards = [[s for s in read_index(tar)[0] if _is_complete(s)] for tar in find_tars(folder)]
        self.photos: Sequence[int] = [len(shard) for shard in self.shards]
        first = next((shard[0] for shard in self.shards if shard), None)
        if first is None:
            raise DataError(
                f"{folder}: no sample has a picture, paug.json and vectors; join the tars with the pictures"
            )
        self.dims = [note.dim for note in self.teachers]
        if (found := _stored_width(first)) != sum(self.dims):
            raise DataError(f"{folder / SIDECAR}: teachers of {self.dims} dimensions, but vectors of {found}")

    def photo(self, shard: int, row: int, random: np.random.Generator, px: int) -> Drawn:
        """See `Folder`."""
        stored, view, image, (text, words) = self._seen(shard, row, random)
        sample = self.shards[shard][row]
        picture = sample.photo.open()  # whole, for the boxes are in its pixels
        try:
            augmentation = from_datacompdr(stored.augmentations[view], picture.size)
        except DataError as error:
            raise SampleError(str(error)) from error
        return Drawn(picture, augmentation, text, sample.key, image, words)

    def vectors(self, shard: int, row: int, random: np.random.Generator) -> tuple[tuple[Tensor, ...], Words]:
        """See `Folder`."""
        return self._seen(shard, row, random)[2:]

    def _seen(
        self, shard: int, row: int, random: np.random.Generator
    ) -> tuple[Reinforced, int, tuple[Tensor, ...], Words]:
        stored = read_datacompdr(self.shards[shard][row])
        view = int(random.integers(len(stored.augmentations)))
        said = draw_text(random, stored.captions, len(stored.texts) - stored.captions)
        return stored, view, self._cut(stored.image[view]), (stored.texts[said], self._cut(stored.text[said]))

    def text(self, shard: int, row: int) -> Words:
        """There is none."""
        raise IndexError(row)

    def _cut(self, vector: np.ndarray) -> tuple[Tensor, ...]:
        if len(vector) != sum(self.dims):
            raise SampleError(f"vectors of {len(vector)} dimensions")
        return tuple(expand(part) for part in torch.from_numpy(vector).split(self.dims))


def _is_complete(sample: TarSample) -> bool:
    members = sample.members
    return "paug.json" in members and ("npz" in members or "pth.gz" in members) and any(p in members for p in PICTURES)


def _stored_width(sample: TarSample) -> int:
    try:
        return read_datacompdr(sample).image.shape[1]
    except SampleError as error:
        raise DataError(f"{sample.tar}: {sample.key}: {error}") from error


class ReinforcedSamples:
    """The photos of several reinforced sources, and their further texts.

    Args:
        sources: of kind `reinforced`.
        data: the data folder.

    Raises:
        PocketclipError: a folder is missing, damaged or unfinished, or the sources have different teachers.
    """

    def __init__(self, sources: Sequence[PhotoSource], data: Path) -> None:
        self.folders: list[Folder] = []
        digest = hashlib.sha256()
        for source in sources:
            folder = data / source.file
            kind = Sidecar.load(folder).layout
            self.folders.append(DataCompDRFolder(folder) if kind == "datacompdr" else OwnFolder(folder, data))
            digest.update((folder / SIDECAR).read_bytes() + str(self.folders[-1].photos).encode())
        self.identity = digest.hexdigest()[:16]
        self.teachers = self.folders[0].teachers
        for source, other in zip(sources, self.folders, strict=True):
            if other.teachers != self.teachers:
                raise ConfigError(f"photos.{source.name}: not of the same teachers as photos.{sources[0].name}")
        self.sources: Sequence[tuple[float, Sequence[int]]] = [
            (s.per_epoch, f.photos) for s, f in zip(sources, self.folders, strict=True)
        ]
        self.photo_places = _Places([folder.photos for folder in self.folders])
        self.text_places = _Places([folder.texts for folder in self.folders])
        self.texts = self.text_places.total + self.photo_places.total

    def photo(self, number: int, random: np.random.Generator, px: int) -> Drawn:
        """Return a photo, see `Samples`."""
        folder, shard, row = self.photo_places[number]
        return self.folders[folder].photo(shard, row, random, px)

    def text(self, number: int, random: np.random.Generator) -> Words:
        """Return a text, see `Samples`: those without photos come first, then one of each photo."""
        if number < self.text_places.total:
            folder, shard, row = self.text_places[number]
            return self.folders[folder].text(shard, row)
        folder, shard, row = self.photo_places[number - self.text_places.total]
        return self.folders[folder].vectors(shard, row, random)[1]

    def reference(self, wanted: int, random: np.random.Generator) -> tuple[tuple[Tensor, Tensor], ...]:
        """Draw vectors of photos and of texts, one pair (n, d), (m, d) a teacher; n and m are at most `wanted`."""
        images, words = [], []
        for number in random.choice(self.photo_places.total, min(wanted, self.photo_places.total), replace=False):
            folder, shard, row = self.photo_places[int(number)]
            with suppress(SampleError):
                images.append(self.folders[folder].vectors(shard, row, random)[0])
        for number in random.choice(self.texts, min(wanted, self.texts), replace=False):
            with suppress(SampleError):
                words.append(self.text(int(number), random)[1])
        stacked = [[torch.stack(one) for one in zip(*side, strict=True)] for side in (images, words)]
        return tuple(zip(*stacked, strict=True))


class _Places:
    """Numbers that run through all shards of all folders."""

    def __init__(self, sizes: Sequence[Sequence[int]]) -> None:
        self.shards = [(folder, shard) for folder, counts in enumerate(sizes) for shard in range(len(counts))]
        self.ends = np.cumsum([count for counts in sizes for count in counts], dtype=np.int64)
        self.total = int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, number: int) -> tuple[int, int, int]:
        at = int(np.searchsorted(self.ends, number, side="right"))
        return *self.shards[at], number - (int(self.ends[at - 1]) if at else 0)


class ReinforcedFeed:
    """Batches of reinforced photos; see `distill.feeds.cached.Feed`.

    The reference of an epoch is drawn once at its beginning: reading thousands of single vectors at every step would
    take longer than many steps.

    Args:
        recipe: sources, batch sizes and seed.
        data: the data folder.
        config: of the student.
        tokenizer: the student's.
        workers: processes that read ahead.

    Raises:
        PocketclipError: see `ReinforcedSamples`; or the batch does not divide among the processes.
    """

    def __init__(self, recipe: Recipe, data: Path, config: ModelConfig, tokenizer: Tokenizer, workers: int = 1) -> None:
        self.recipe, self.config, self.tokenizer, self.workers = recipe, config, tokenizer, workers
        if mixed := next((source for source in recipe.photos if source.kind != "reinforced"), None):
            raise ConfigError(f"photos.{mixed.name}: is not reinforced as the others are; reinforce it too")
        if recipe.texts:
            raise ConfigError("texts: belong into the recipe of `pocketclip reinforce`, which stores their vectors")
        self.samples = ReinforcedSamples(recipe.photos, data)
        self.teachers, self.identity = self.samples.teachers, self.samples.identity
        self.widths = tuple(note.dim for note in self.teachers)
        self.photos, self.texts = self.samples.photo_places.total, self.samples.texts
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
        scales = [note.logit_scale for note in self.teachers]
        reference: tuple[TeacherEmbeddings, ...] = ()
        if recipe.loss.compares_with_reference:
            random = np.random.default_rng((recipe.seed, epoch, 5))
            pairs = self.samples.reference(recipe.loss.bank, random)
            reference = tuple(TeacherEmbeddings(*pair, scale) for pair, scale in zip(pairs, scales, strict=True))
        for fetched in fetch(steps, first, self.workers):
            image = fetched.image or tuple(torch.zeros(0, width) for width in self.widths)
            teachers = (TeacherEmbeddings(*one) for one in zip(image, fetched.words, scales, strict=True))
            yield Batch(fetched.pixels, fetched.tokens, fetched.groups, tuple(teachers), reference, tried=fetched.read)

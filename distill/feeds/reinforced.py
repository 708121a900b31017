"""Training on reinforced data: the views that the teachers saw, with the embeddings stored for them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill.config import Recipe, Stage
from distill.data.augment import DECODE_MARGIN, Augmentation, apply, from_datacompdr
from distill.data.epoch import Shares, draw_text_index
from distill.data.tables import DataError
from distill.data.tars import (
    PICTURES,
    DataCompDRSample,
    PhotoRef,
    SampleError,
    TarSample,
    find_tars,
    read_datacompdr,
    read_index,
)
from distill.feeds.samples import PhotoSample, TextSample
from distill.reinforce.shards import SIDECAR, Shard, Sidecar, TeacherEntry, expand
from mobileclip.errors import ConfigError
from mobileclip.files import PathLike
from mobileclip.vectors import Floats

# Opened once in each process. An open shard needs address space for its mapped file, but no memory for the contents.
_open_shard = functools.lru_cache(128)(Shard)


class ReinforcedFolder(Protocol):
    """One reinforced source. Samples are addressed by shard and row."""

    teachers: tuple[TeacherEntry, ...]
    photo_counts: Sequence[int]
    """Number of photos in each shard."""
    text_counts: Sequence[int]
    """Number of texts without photos in each shard."""

    def photo(self, shard: int, row: int, random: np.random.Generator, px: int) -> PhotoSample:
        """Return a photo with a randomly drawn augmentation and text.

        Raises:
            PhotoError, SampleError: it can't be read.
        """

    def embeddings(self, shard: int, row: int, random: np.random.Generator) -> tuple[tuple[Tensor, ...], TextSample]:
        """Return the embeddings of a photo's randomly drawn view, one per teacher, and a randomly drawn text of it.

        Raises:
            SampleError: they can't be read.
        """

    def text(self, shard: int, row: int) -> TextSample:
        """Return a text without a photo."""


class PocketclipFolder:
    """A folder that `pocketclip reinforce` wrote.

    Args:
        folder: the folder.
        data: the data folder; photos are stored by their path in it.

    Raises:
        DataError: the folder is unfinished, or a shard is missing or was replaced.
    """

    def __init__(self, folder: PathLike, data: PathLike) -> None:
        self.folder, self.data = Path(folder), Path(data)
        sidecar = Sidecar.load(folder)
        if not sidecar.complete:
            raise DataError(f"{folder}: some shards are missing; run the same `pocketclip reinforce` again")
        self.teachers, self.names = sidecar.teachers, [entry.name for entry in sidecar.shards]
        self.views = sidecar.policy.augmentations
        self.photo_counts: Sequence[int] = [entry.photos for entry in sidecar.shards]
        self.text_counts: Sequence[int] = [entry.texts for entry in sidecar.shards]
        for entry in sidecar.shards:
            if Shard.digest_of(folder, entry.name) != entry.digest:
                raise DataError(f"{folder}: shard {entry.name} is not the one that {SIDECAR} lists")

    def photo(self, shard: int, row: int, random: np.random.Generator, px: int) -> PhotoSample:
        """See `ReinforcedFolder`."""
        view, targets, text = self._draw(shard, row, random)
        store = _open_shard(self.folder, self.names[shard])
        line = store.line(row)
        photo = PhotoRef(self.data / line["photo"], tuple(line["place"]) if "place" in line else None)
        augmentation = Augmentation.decode(store.row("augmentations", row, view).tolist())
        return PhotoSample(_view(photo.open(DECODE_MARGIN * px), augmentation, px), line["group"], text, targets)

    def embeddings(self, shard: int, row: int, random: np.random.Generator) -> tuple[tuple[Tensor, ...], TextSample]:
        """See `ReinforcedFolder`."""
        return self._draw(shard, row, random)[1:]

    def _draw(self, shard: int, row: int, random: np.random.Generator) -> tuple[int, tuple[Tensor, ...], TextSample]:
        """Draw a view and a text; return the number of the view, its embeddings, and the text."""
        store = _open_shard(self.folder, self.names[shard])
        line, view = store.line(row), int(random.integers(self.views))
        index = draw_text_index(random, len(line["captions"]), len(line["synthetic"]))
        targets = tuple(store.vector(f"image.{t}", row, view) for t in range(len(self.teachers)))
        text = (line["captions"] + line["synthetic"])[index]
        return view, targets, self._text(store, text, line["text"] + index)

    def text(self, shard: int, row: int) -> TextSample:
        """See `ReinforcedFolder`."""
        store = _open_shard(self.folder, self.names[shard])
        line = store.line(row)
        return self._text(store, line["captions"][0], line["text"])

    def _text(self, store: Shard, text: str, row: int) -> TextSample:
        return TextSample(text, tuple(store.vector(f"text.{t}", row) for t in range(len(self.teachers))))


class DataCompDRFolder:
    """DataCompDR's own tars, joined with pictures and captions. Embeddings are read from the samples.

    Args:
        folder: contains the tars, and a `reinforcement.json` that names the teachers.

    Raises:
        DataError: no sample has a picture and embeddings, or the teachers' dimensions don't match the embeddings.
    """

    def __init__(self, folder: PathLike) -> None:
        self.teachers = Sidecar.load(folder).teachers
        self.text_counts: Sequence[int] = ()
        self.shards = [[s for s in read_index(tar)[0] if _is_complete(s)] for tar in find_tars(folder)]
        self.photo_counts: Sequence[int] = [len(shard) for shard in self.shards]
        first = next((shard[0] for shard in self.shards if shard), None)
        if first is None:
            raise DataError(
                f"{folder}: no sample has a picture, paug.json and embeddings; join the tars with the pictures"
            )
        self.dims = [entry.dim for entry in self.teachers]
        if (width := _stored_width(first)) != sum(self.dims):
            raise DataError(f"{Path(folder) / SIDECAR}: teachers of {self.dims} dimensions, but embeddings of {width}")

    def photo(self, shard: int, row: int, random: np.random.Generator, px: int) -> PhotoSample:
        """See `ReinforcedFolder`."""
        stored, view, targets, text = self._draw(shard, row, random)
        sample = self.shards[shard][row]
        picture = sample.photo.open()  # at full size, because boxes are in its pixels
        try:
            augmentation = from_datacompdr(stored.augmentations[view], picture.size)
        except DataError as error:
            raise SampleError(str(error)) from error
        return PhotoSample(_view(picture, augmentation, px), sample.key, text, targets)

    def embeddings(self, shard: int, row: int, random: np.random.Generator) -> tuple[tuple[Tensor, ...], TextSample]:
        """See `ReinforcedFolder`."""
        return self._draw(shard, row, random)[2:]

    def _draw(
        self, shard: int, row: int, random: np.random.Generator
    ) -> tuple[DataCompDRSample, int, tuple[Tensor, ...], TextSample]:
        """Draw a view and a text; return the sample, the number of the view, its embeddings, and the text."""
        stored = read_datacompdr(self.shards[shard][row])
        view = int(random.integers(len(stored.augmentations)))
        index = draw_text_index(random, stored.captions, len(stored.texts) - stored.captions)
        text = TextSample(stored.texts[index], self._split(stored.text[index]))
        return stored, view, self._split(stored.image[view]), text

    def text(self, shard: int, row: int) -> TextSample:
        """Raise IndexError: there are no texts without photos."""
        raise IndexError(row)

    def _split(self, vector: Floats) -> tuple[Tensor, ...]:
        """Split the concatenated embeddings of all teachers."""
        if len(vector) != sum(self.dims):
            raise SampleError(f"embeddings of {len(vector)} dimensions")
        return tuple(expand(part) for part in torch.from_numpy(vector).split(self.dims))


def _view(picture: Image.Image, augmentation: Augmentation, px: int) -> Tensor:
    """Return the student's view (px, px, 3) uint8."""
    return torch.from_numpy(np.array(apply(picture, augmentation, px)))


def _is_complete(sample: TarSample) -> bool:
    members = sample.members
    return "paug.json" in members and ("npz" in members or "pth.gz" in members) and any(p in members for p in PICTURES)


def _stored_width(sample: TarSample) -> int:
    try:
        return read_datacompdr(sample).image.shape[1]
    except SampleError as error:
        raise DataError(f"{sample.tar}: {sample.key}: {error}") from error


class ReinforcedSamples:
    """The photos and texts of several reinforced sources; see `Samples`.

    Args:
        recipe: has sources of kind `reinforced` only.
        data: the data folder.

    Raises:
        PocketclipError: a folder is missing, damaged or unfinished, the sources have different teachers, or some aren't
            reinforced.
    """

    text_lengths, unreadable, reference_per_step = None, 0, False

    def __init__(self, recipe: Recipe, data: PathLike) -> None:
        sources = recipe.photos
        if mixed := next((source for source in sources if source.kind != "reinforced"), None):
            raise ConfigError(f"photos.{mixed.name}: is not reinforced, but the others are; reinforce it too")
        if recipe.texts:
            raise ConfigError("texts: belong in the recipe of `pocketclip reinforce`, which stores their embeddings")
        self.folders: list[ReinforcedFolder] = []
        digest = hashlib.sha256()
        for source in sources:
            folder = Path(data) / source.file
            layout = Sidecar.load(folder).layout
            self.folders.append(DataCompDRFolder(folder) if layout == "datacompdr" else PocketclipFolder(folder, data))
            digest.update((folder / SIDECAR).read_bytes() + str(self.folders[-1].photo_counts).encode())
        self.identity = digest.hexdigest()[:16]
        self.teachers = self.folders[0].teachers
        for source, other in zip(sources, self.folders, strict=True):
            if other.teachers != self.teachers:
                raise ConfigError(f"photos.{source.name}: not of the same teachers as photos.{sources[0].name}")
        self.sources: Shares = [
            (source.per_epoch, folder.photo_counts) for source, folder in zip(sources, self.folders, strict=True)
        ]
        self._photos = _RowNumbers([folder.photo_counts for folder in self.folders])
        self._texts = _RowNumbers([folder.text_counts for folder in self.folders])
        self.photo_count = self._photos.total
        self.text_count = self._texts.total + self._photos.total

    def photo(self, number: int, random: np.random.Generator, stage: Stage) -> PhotoSample:
        """See `Samples`."""
        folder, shard, row = self._photos[number]
        return self.folders[folder].photo(shard, row, random, stage.px)

    def text(self, number: int, random: np.random.Generator) -> TextSample:
        """See `Samples`. Texts without photos come first, then one text of each photo."""
        if number < self._texts.total:
            folder, shard, row = self._texts[number]
            return self.folders[folder].text(shard, row)
        folder, shard, row = self._photos[number - self._texts.total]
        return self.folders[folder].embeddings(shard, row, random)[1]

    def reference(self, wanted: int, random: np.random.Generator) -> tuple[tuple[Tensor, Tensor], ...]:
        """See `Samples`."""
        photos, texts = [], []
        for number in random.choice(self.photo_count, min(wanted, self.photo_count), replace=False):
            folder, shard, row = self._photos[int(number)]
            with suppress(SampleError):
                photos.append(self.folders[folder].embeddings(shard, row, random)[0])
        for number in random.choice(self.text_count, min(wanted, self.text_count), replace=False):
            with suppress(SampleError):
                texts.append(self.text(int(number), random).targets)
        stacked = [[torch.stack(rows) for rows in zip(*side, strict=True)] for side in (photos, texts)]
        return tuple(zip(*stacked, strict=True))


class _RowNumbers:
    """Numbers the rows of all shards of all folders: maps a number to folder, shard and row."""

    def __init__(self, sizes: Sequence[Sequence[int]]) -> None:
        self.shards = [(folder, shard) for folder, counts in enumerate(sizes) for shard in range(len(counts))]
        self.ends = np.cumsum([count for counts in sizes for count in counts], dtype=np.int64)
        self.total = int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, number: int) -> tuple[int, int, int]:
        at = int(np.searchsorted(self.ends, number, side="right"))
        return *self.shards[at], number - (int(self.ends[at - 1]) if at else 0)

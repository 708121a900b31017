"""The photos and texts of a recipe, listed in memory; the pictures stay on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distill.config import Recipe
from distill.config.sources import View
from distill.data.epoch import Shares, draw_epoch, draw_text_index, epoch_size
from distill.data.sources import CaptionedPhoto, all_missing, is_photo_file, list_photos, read_texts
from mobileclip.files import PathLike

READ_TOGETHER = 256
"""Photos that are drawn one after the other in sources too large to be shuffled as a whole."""


@dataclass(frozen=True)
class Corpus:
    """Photos with their texts, and texts without photos.

    Attributes:
        samples: the photos of all sources, one source after the other.
        source_of: the number of each sample's source, (len(samples),).
        shares: for each source, the share of its photos that an epoch draws.
        texts: all distinct texts; those of photos come first.
        text_ids: for each sample, the positions of its texts in `texts`: captions, then synthetic captions.
        groups: a number for each sample; samples with equal numbers show the same.
        views: for each source, its further views.
        unreadable: numbers of the samples whose photos can't be read; no epoch draws them.
    """

    samples: tuple[CaptionedPhoto, ...]
    source_of: NDArray[np.int64]
    shares: tuple[float, ...]
    texts: tuple[str, ...]
    text_ids: tuple[NDArray[np.int64], ...]
    groups: NDArray[np.int64]
    views: tuple[tuple[View, ...], ...] = ()
    unreadable: frozenset[int] = frozenset()

    @classmethod
    def read(cls, recipe: Recipe, data: PathLike) -> Corpus:
        """Read all sources of a recipe, without listed photos that aren't on disk.

        Raises:
            DataError: a source is missing or malformed, is reinforced, or none of its photos exists.
        """
        samples: list[CaptionedPhoto] = []
        source_of: list[int] = []
        for number, source in enumerate(recipe.photos):
            listed = list_photos(source, data).photos
            found = [sample for sample in listed if sample.photo.span or is_photo_file(sample.photo.path)]
            if not found:
                raise all_missing(source, data, len(listed))
            samples += found
            source_of += [number] * len(found)
        position: dict[str, int] = {}
        text_ids = tuple(
            np.array([position.setdefault(text, len(position)) for text in sample.texts]) for sample in samples
        )
        for text_source in recipe.texts:
            for text in read_texts(text_source, data):
                position.setdefault(text, len(position))
        group_ids: dict[str, int] = {}
        groups = [group_ids.setdefault(sample.group, len(group_ids)) for sample in samples]
        return cls(
            tuple(samples),
            np.array(source_of, np.int64),
            tuple(source.per_epoch for source in recipe.photos),
            tuple(position),
            text_ids,
            np.array(groups, np.int64),
            tuple(source.views for source in recipe.photos),
        )

    @property
    def identity(self) -> str:
        """A digest of the names, texts and groups of all photos, and of all other texts, in order."""
        lines = [f"{sample.key}|{sample.group}|{sample.captions}|{sample.synthetic}" for sample in self.samples]
        drawn = [str(self.shares), str(self.views), str(sorted(self.unreadable))]
        text = "\n".join([*drawn, *lines, *self.texts])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def readable(self) -> NDArray[np.int64]:
        """Numbers of the samples whose photos can be read."""
        return np.array([i for i in range(len(self.samples)) if i not in self.unreadable], np.int64)

    @cached_property
    def text_meanings(self) -> NDArray[np.int64]:
        """A number for each text, (len(texts),); equal for texts that differ only in case and white space."""
        numbers: dict[str, int] = {}
        return np.array(
            [numbers.setdefault(" ".join(t.casefold().split()), len(numbers)) for t in self.texts], np.int64
        )

    def without(self, unreadable: NDArray[np.bool_]) -> Corpus:
        """Return this corpus with more samples marked as unreadable, (len(samples),); numbers don't change."""
        more = self.unreadable.union(np.flatnonzero(unreadable).tolist())
        return dataclasses.replace(self, unreadable=more)

    def few(self, photos: int, texts: int) -> Corpus:
        """Return a part of this corpus, for a trial: evenly spaced photos of every source, with all their texts.

        Args:
            photos: how many photos an epoch should draw; each source keeps at least one.
            texts: how many texts of no photo to keep.
        """
        share = photos / max(1, epoch_size(self.sources))
        rows: list[int] = []
        for number in range(len(self.shares)):
            members = np.flatnonzero(self.source_of == number)
            rows += _spaced(members, math.ceil(share * len(members))).tolist()
        none = np.zeros(0, np.int64)
        used = np.unique(np.concatenate([none, *(self.text_ids[row] for row in rows)]))
        paired = np.unique(np.concatenate([none, *self.text_ids]))
        others = np.setdiff1d(np.arange(len(self.texts)), paired)
        kept = np.concatenate([used, _spaced(others, texts)])
        return Corpus(
            tuple(self.samples[row] for row in rows),
            self.source_of[rows],
            self.shares,
            tuple(self.texts[text] for text in kept),
            tuple(np.searchsorted(used, self.text_ids[row]) for row in rows),
            self.groups[rows],
            self.views,
            frozenset(number for number, row in enumerate(rows) if row in self.unreadable),
        )

    @cached_property
    def sources(self) -> Shares:
        """For each source, its share, and the sizes of its shards; together they number the `readable` samples."""
        counts = np.bincount(self.source_of[self.readable], minlength=len(self.shares)).tolist()
        return [
            (share, [min(READ_TOGETHER, count - start) for start in range(0, count, READ_TOGETHER)])
            for share, count in zip(self.shares, counts, strict=True)
        ]

    def epoch(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Draw the samples of an epoch in random order: from each source its share. The seed determines the result."""
        return self.readable[draw_epoch(self.sources, seed, epoch)]

    def draw_text(self, sample: int, random: np.random.Generator) -> int:
        """Draw one of a sample's texts; returns its position in `texts`."""
        captions, synthetic = (len(texts) for texts in (self.samples[sample].captions, self.samples[sample].synthetic))
        return int(self.text_ids[sample][draw_text_index(random, captions, synthetic)])


def _spaced(numbers: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Return evenly spaced items, at most `wanted`."""
    return numbers[np.linspace(0, len(numbers), min(wanted, len(numbers)), endpoint=False).astype(np.int64)]

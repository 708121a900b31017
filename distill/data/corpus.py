"""The photos and texts of a recipe, listed in memory; the pictures stay on disk."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distill.config import Recipe
from distill.data.sources import Sample, all_missing, is_photo_file, read_photos, read_texts
from mobileclip.files import PathLike


@dataclass(frozen=True)
class Corpus:
    """Photos with their texts, and texts without photos.

    Attributes:
        samples: the photos of all sources.
        source_of: the number of each sample's source, (len(samples),).
        shares: for each source, the share of its photos that an epoch draws.
        texts: all distinct texts; those of photos come first.
        text_ids: for each sample, the positions of its texts in `texts`.
        groups: a number for each sample; samples with equal numbers show the same.
        unreadable: numbers of the samples whose photos can't be read; no epoch draws them.
    """

    samples: tuple[Sample, ...]
    source_of: NDArray[np.int64]
    shares: tuple[float, ...]
    texts: tuple[str, ...]
    text_ids: tuple[NDArray[np.int64], ...]
    groups: NDArray[np.int64]
    unreadable: frozenset[int] = frozenset()

    @classmethod
    def read(cls, recipe: Recipe, data: PathLike) -> Corpus:
        """Read all sources of a recipe, without photos that aren't on disk.

        Raises:
            DataError: a captions or labels file is missing or malformed, or none of its photos exists.
        """
        samples: list[Sample] = []
        source_of: list[int] = []
        for number, source in enumerate(recipe.photos):
            listed = read_photos(source, data)
            found = [sample for sample in listed if is_photo_file(sample.path)]
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
            np.array(source_of),
            tuple(source.per_epoch for source in recipe.photos),
            tuple(position),
            text_ids,
            np.array(groups),
        )

    @property
    def identity(self) -> str:
        """A digest of the names, texts and groups of all photos, and of all other texts, in order."""
        lines = [f"{sample.path.name}|{sample.group}|{sample.texts}" for sample in self.samples]
        text = "\n".join([str(self.shares), str(sorted(self.unreadable)), *lines, *self.texts])
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

    def epoch(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Draw the samples of an epoch in random order: from each source its share. The seed determines the result."""
        random = np.random.default_rng((seed, epoch))
        drawn = []
        for number, share in enumerate(self.shares):
            members = self.readable[self.source_of[self.readable] == number]
            rounds, rest = divmod(share, 1)
            drawn += [members] * int(rounds)
            drawn.append(random.choice(members, round(rest * len(members)), replace=False))
        order: NDArray[np.int64] = random.permutation(np.concatenate(drawn))
        return order

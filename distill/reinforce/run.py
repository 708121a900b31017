"""Dataset reinforcement: teacher embeddings of stored augmentations, computed once for many students.

Faghri et al. 2023; for CLIP, MobileCLIP (Vasu et al. 2024, section 3.2). Each part of the data becomes a shard, see
`distill.reinforce.shards`. Any number of processes, started by hand, by torchrun or by a scheduler, divide the work:
a process locks a file for the part it works on. If it dies, the operating system releases the lock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from distill.config import Recipe, Reinforcement
from distill.config.teachers import table_names
from distill.data.augment import DECODE_MARGIN, Augmentation, apply, draw
from distill.data.corpus import Corpus
from distill.data.sources import CaptionedPhoto
from distill.data.tables import DataError
from distill.progress import ReportProgress
from distill.reinforce.plan import ShardInput, plan_shards
from distill.reinforce.shards import (
    SCHEMA,
    SIDECAR,
    Shard,
    ShardEntry,
    Sidecar,
    TeacherEntry,
    compress,
    is_complete,
    write_shard,
)
from distill.teachers.base import Teacher
from distill.teachers.ensemble import make_teachers
from mobileclip.errors import ConfigError, PhotoError
from mobileclip.files import PathLike

TEXTS_PER_CALL = 64


class SampleViews(NamedTuple):
    """A sample with its augmented views, as a worker prepared it, or the reason why it is unreadable.

    Attributes:
        sample: the sample.
        augmentations: (k, ·) float32.
        views: for each size, (k, px, px, 3) uint8; empty if the photo is unreadable.
        reason: why it is unreadable; empty if it isn't.
    """

    sample: CaptionedPhoto
    augmentations: Tensor
    views: tuple[Tensor, ...]
    reason: str


def assemble_teachers(
    recipe: Recipe, base: PathLike, data: PathLike, out: PathLike, report: ReportProgress
) -> tuple[Teacher, ...]:
    """Make a recipe's teachers, with a corpus in memory only if one is fitted to it; see `make_teachers`.

    Args:
        recipe: names the teachers. An aligned pair is fitted to the recipe's photos.
        base: the folder that relative paths of weights start from.
        data: the data folder.
        out: where fitted heads and encoders' embeddings are kept.
        report: called with the progress of each long step.

    Raises:
        PocketclipError: weights or sources are missing or damaged.
    """
    if not recipe.teachers:
        raise ConfigError(f"recipe {recipe.name}: name a teacher, {table_names()}")
    needed = any(teacher.needs_corpus for teacher in recipe.teachers)
    corpus = Corpus.read(recipe, data) if needed else None
    return make_teachers(recipe, base, data, out, corpus, report)


def seeded_random(seed: int, *key: object) -> np.random.Generator:
    """Return a generator that a seed and a key determine, on every machine the same."""
    text = "|".join(map(str, (seed, *key)))
    return np.random.default_rng(list(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()))


def make_views(picture: Image.Image, augmentations: Sequence[Augmentation], px: int) -> Tensor:
    """Make one view per augmentation, (k, px, px, 3) uint8."""
    return torch.from_numpy(np.stack([np.asarray(apply(picture, augmentation, px)) for augmentation in augmentations]))


def encode_views(teacher: Teacher, views: Tensor) -> Tensor:
    """Return a teacher's embeddings (k, d) float32 of all views (k, px, px, 3) uint8 of a photo.

    They form one batch, without views of other photos: matrix products round differently in other batches, and stored
    embeddings should be reproducible to the last bit (on the same machine, with the same number of threads).
    """
    return torch.from_numpy(teacher.encode_pictures([Image.fromarray(view) for view in views.numpy()])).float()


class ViewDataset(Dataset[SampleViews]):
    """The views of each sample of a source; the seed and the sample's key determine them."""

    def __init__(
        self,
        samples: Sequence[CaptionedPhoto],
        policy: Reinforcement,
        seed: int,
        sizes: list[int],
    ) -> None:
        self.samples, self.policy, self.seed, self.sizes = samples, policy, seed, sizes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> SampleViews:
        sample = self.samples[position]
        try:
            picture = sample.photo.open(DECODE_MARGIN * max(self.sizes))
        except PhotoError as error:
            reason = f"{error.reason} ({error.detail})" if error.detail else error.reason
            return SampleViews(sample, torch.empty(0), (), reason)
        random = seeded_random(self.seed, sample.key)
        aspect = picture.width / picture.height
        augmentations = [draw(random, self.policy, aspect) for _ in range(self.policy.augmentations)]
        numbers = torch.from_numpy(np.stack([augmentation.encode() for augmentation in augmentations]))
        views = tuple(make_views(picture, augmentations, px) for px in self.sizes)
        return SampleViews(sample, numbers, views, "")


def _as_is(views: Any) -> Any:
    return views


@dataclass
class _ShardBuilder:
    """Collects the rows of a shard."""

    teachers: Sequence[Teacher]
    entries: tuple[TeacherEntry, ...]
    policy: Reinforcement
    lines: list[dict[str, Any]] = field(default_factory=list)
    unread: list[dict[str, Any]] = field(default_factory=list)
    augmentations: list[Tensor] = field(default_factory=list)
    image: list[list[Tensor]] = field(default_factory=list)
    text: list[list[Tensor]] = field(default_factory=list)
    rows: int = 0
    first_rows: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add_texts(self, texts: tuple[str, ...]) -> int:
        """Return the first row of these texts' embeddings; the same combination of texts is encoded only once."""
        if texts not in self.first_rows:
            self.first_rows[texts] = self.rows
            self.rows += len(texts)
            self.text.append([torch.from_numpy(t.encode_texts(texts)).float() for t in self.teachers])
        return self.first_rows[texts]

    def add_photo(self, sample: SampleViews, sizes: list[int], line: dict[str, Any]) -> None:
        """Encode a photo's views and add its line."""
        views = dict(zip(sizes, sample.views, strict=True))
        self.image.append(
            [encode_views(t, views[entry.px]) for t, entry in zip(self.teachers, self.entries, strict=True)]
        )
        self.augmentations.append(sample.augmentations)
        self.lines.append(line)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the shard by name."""
        views, width = self.policy.augmentations, 5 + 2 * self.policy.operations
        tensors = {"augmentations": torch.cat([torch.empty(0, views, width), *(a[None] for a in self.augmentations)])}
        for number, entry in enumerate(self.entries):
            image = torch.cat([torch.empty(0, views, entry.dim), *(row[number][None] for row in self.image)])
            text = torch.cat([torch.empty(0, entry.dim), *(row[number] for row in self.text)])
            for name, vectors in ((f"image.{number}", image), (f"text.{number}", text)):
                tensors |= {name + suffix: part for suffix, part in compress(vectors, self.policy.dtype).items()}
        return tensors


class Reinforcer:
    """Reinforces a recipe's data.

    Args:
        recipe: photos, texts, seed and `[reinforcement]`.
        data: the data folder; photos in it are stored by their relative path.
        out: the folder of shards; created if missing.
        teachers: one or more.
        workers: processes that decode photos.

    Raises:
        DataError: a source is missing or malformed, or `out` contains other reinforced data.
    """

    def __init__(
        self, recipe: Recipe, data: PathLike, out: PathLike, teachers: Sequence[Teacher], workers: int = 1
    ) -> None:
        self.data, self.out, self.teachers, self.workers = Path(data), Path(out), teachers, workers
        self.policy, self.seed = recipe.reinforcement, recipe.seed
        self.photo_sources = {source.name: source for source in recipe.photos}
        self.parts, basis = plan_shards(recipe, data)
        entries = tuple(
            TeacherEntry(t.identity, t.encode_texts(["a photo"]).shape[1], float(t.logit_scale), t.px) for t in teachers
        )
        self.sizes = sorted({entry.px for entry in entries})
        shards = tuple(ShardEntry(part.name, part.source) for part in self.parts)
        self.sidecar = Sidecar(
            SCHEMA, "pocketclip", entries, policy=self.policy, seed=self.seed, basis=basis, shards=shards
        )
        self.out.mkdir(parents=True, exist_ok=True)
        with FileLock(self.out / ".plan.lock"):
            self._write_or_compare_sidecar()

    def _write_or_compare_sidecar(self) -> None:
        """Write the sidecar; if there is one, check that it has the same settings."""
        if not (self.out / SIDECAR).exists():
            self.sidecar.save(self.out)
            return
        existing = Sidecar.load(self.out)
        wanted = dataclasses.asdict(self.sidecar)
        uncounted = tuple(ShardEntry(entry.name, entry.source) for entry in existing.shards)
        found = dataclasses.asdict(dataclasses.replace(existing, shards=uncounted, complete=False))
        if different := [name for name in wanted if wanted[name] != found[name]]:
            raise DataError(
                f"{self.out / SIDECAR}: made with other {different[0]}; use another --out, or remove the folder"
            )

    def run(self, report: ReportProgress) -> int:
        """Make the shards that no other process makes; return how many are missing because others still make them.

        Raises:
            DataError: a tar can't be read, or a shard can't be written.
        """
        for number, part in enumerate(self.parts):
            report("shards", number, len(self.parts), "")
            with suppress(Timeout), FileLock(self.out / f".{part.name}.lock", timeout=0):
                if not is_complete(self.out, part.name):
                    self._make(part, report)
        report("shards", len(self.parts), len(self.parts), "")
        missing = [part for part in self.parts if not is_complete(self.out, part.name)]
        if not missing:
            with FileLock(self.out / ".plan.lock"):
                self._complete()
        return len(missing)

    def _complete(self) -> None:
        """Write the counts of all shards into the sidecar, unless another process did."""
        if Sidecar.load(self.out).complete:
            return
        counted = []
        for part in self.parts:
            count = Shard(self.out, part.name).count()
            counted.append(dataclasses.replace(count, name=part.name, source=part.source))
        dataclasses.replace(self.sidecar, shards=tuple(counted), complete=True).save(self.out)

    def _make(self, part: ShardInput, report: ReportProgress) -> None:
        for leftover in self.out.glob(f".{part.name}.*.part"):  # of a killed process, because we hold the lock
            leftover.unlink(missing_ok=True)
        builder = _ShardBuilder(self.teachers, self.sidecar.teachers, self.policy)
        for start in range(0, len(part.texts), TEXTS_PER_CALL):
            texts = part.texts[start : start + TEXTS_PER_CALL]
            first = builder.add_texts(texts)
            builder.lines += [
                {"key": f"{part.source}/{start + i}", "captions": [text], "text": first + i}
                for i, text in enumerate(texts)
            ]
        samples, omissions = part.read(self.photo_sources, self.data)
        builder.unread += [{"key": f"{part.source}/{key}", "unread": reason} for key, reason in omissions]
        started = time.perf_counter()
        views = self._views(samples) if samples else iter(())
        for done, sample in enumerate(views, 1):
            line = self._line(sample)
            if sample.reason:
                builder.unread.append({**line, "unread": sample.reason})
            else:
                line["text"] = builder.add_texts(sample.sample.texts)
                builder.add_photo(sample, self.sizes, line)
            report("photos", done, len(samples), f"{done / (time.perf_counter() - started):.1f} photos/s")
        write_shard(self.out, part.name, builder.lines + builder.unread, builder.tensors())

    def _views(self, samples: Sequence[CaptionedPhoto]) -> Iterator[SampleViews]:
        yield from DataLoader(
            ViewDataset(samples, self.policy, self.seed, self.sizes),
            batch_size=None,
            collate_fn=_as_is,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
        )

    def _line(self, views: SampleViews) -> dict[str, Any]:
        """Return the JSON line of a sample, except its text row and reason."""
        sample = views.sample
        path = sample.photo.path
        stored = path.relative_to(self.data) if path.is_relative_to(self.data) else path.absolute()
        line: dict[str, Any] = {"key": sample.key, "group": sample.group, "photo": stored.as_posix()}
        if sample.photo.span:
            line["place"] = list(sample.photo.span)
        return {**line, "captions": list(sample.captions), "synthetic": list(sample.synthetic)}

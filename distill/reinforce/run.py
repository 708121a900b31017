"""Dataset reinforcement: what teachers say of each photo under stored augmentations, computed once for many students.

Faghri et al. 2023; for CLIP, MobileCLIP (Vasu et al. 2024, section 3.2). Each unit of the data becomes a shard
(`distill.reinforce.shards`). Any number of processes, by hand, by torchrun or by a scheduler, share the
work: each takes units that nobody holds, under a lock that the operating system lifts when its holder dies.
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
from distill.data.augment import DECODE_MARGIN, apply, draw
from distill.data.corpus import Corpus
from distill.data.samples import RawSample, Unit, plan_units, whole
from distill.data.sources import DataError
from distill.data.tars import SampleError, TarSample
from distill.reinforce.shards import (
    SCHEMA,
    SIDECAR,
    Shard,
    ShardNote,
    Sidecar,
    TeacherNote,
    compress,
    is_done,
    write_shard,
)
from distill.teachers.base import Teacher
from distill.teachers.ensemble import Report, make_teachers
from mobileclip.errors import ConfigError, PhotoError

TEXTS_A_CALL = 64


class Viewed(NamedTuple):
    """A sample as a worker hands it over: its augmentations (k, ·) and their views, or the reason why not.

    `views` has one tensor for each size asked for, (k, px, px, 3) uint8.
    """

    key: str
    sample: RawSample | None
    augmentations: Tensor
    views: tuple[Tensor, ...]
    reason: str


def assemble_teachers(recipe: Recipe, base: Path, data: Path, out: Path, report: Report) -> tuple[Teacher, ...]:
    """Make a recipe's teachers where no corpus is held in memory; one process at a time fits what must be fitted.

    Args:
        recipe: names them. An aligned pair is fitted to those of its photos that are not in tars.
        base: what relative paths of weights start from.
        data: the data folder.
        out: where fitted heads and encoders' vectors are kept.
        report: told how far each long step is.

    Raises:
        PocketclipError: weights are missing or damaged, or there is nothing to fit an aligned pair to.
    """
    if not recipe.taught_by:
        raise ConfigError(f"recipe {recipe.name}: name a teacher, [aligned], [[open_clip]] or [[checkpoints]]")
    listed = tuple(source for source in recipe.photos if source.kind in ("captions", "labels"))
    if recipe.aligned and not listed:
        raise ConfigError("aligned: is fitted to captions files and tables of labels, and the recipe has none")
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        corpus = Corpus.read(dataclasses.replace(recipe, photos=listed), data) if recipe.aligned else None
        return make_teachers(recipe, base, data, out, corpus, report)


def randomness(seed: int, *about: object) -> np.random.Generator:
    """Return random numbers decided by a seed and what they are for, on every machine the same."""
    text = "|".join(map(str, (seed, *about)))
    return np.random.default_rng(list(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()))


def view(picture: Image.Image, augmentations: Sequence[Any], px: int) -> Tensor:
    """Make the views of all augmentations, uint8 (k, px, px, 3)."""
    return torch.from_numpy(np.stack([np.asarray(apply(picture, one, px)) for one in augmentations]))


def encode_views(teacher: Teacher, views: Tensor) -> Tensor:
    """Return a teacher's vectors (k, d) float32 of one photo's views (k, px, px, 3) uint8.

    All views of a photo, and of no other, are one batch: a product of matrices rounds otherwise in another batch, and
    what is stored shall be computed again to the last bit (on the same machine, with as many threads).
    """
    return torch.from_numpy(teacher.encode_pictures([Image.fromarray(one) for one in views.numpy()])).float()


class Views(Dataset[Viewed]):
    """The views of each sample of a unit, drawn by seed and key alone."""

    def __init__(
        self, samples: Sequence[RawSample | TarSample], source: str, policy: Reinforcement, seed: int, sizes: list[int]
    ) -> None:
        self.samples, self.source, self.policy, self.seed, self.sizes = samples, source, policy, seed, sizes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Viewed:
        found = self.samples[position]
        empty = torch.empty(0)
        try:
            sample = whole(found, self.source)
        except SampleError as error:
            return Viewed(f"{self.source}/{found.key}", None, empty, (), str(error))
        try:
            picture = sample.photo.open(DECODE_MARGIN * max(self.sizes))
        except PhotoError as error:
            reason = f"{error.reason} ({error.detail})" if error.detail else error.reason
            return Viewed(sample.key, sample, empty, (), reason)
        random = randomness(self.seed, sample.key)
        drawn = [draw(random, self.policy, picture.width / picture.height) for _ in range(self.policy.augmentations)]
        numbers = torch.from_numpy(np.stack([one.encode() for one in drawn]))
        return Viewed(sample.key, sample, numbers, tuple(view(picture, drawn, px) for px in self.sizes), "")


def _same(viewed: Any) -> Any:
    return viewed


@dataclass
class _Rows:
    """A shard in the making."""

    teachers: Sequence[Teacher]
    notes: tuple[TeacherNote, ...]
    policy: Reinforcement
    lines: list[dict[str, Any]] = field(default_factory=list)
    unread: list[dict[str, Any]] = field(default_factory=list)
    augmentations: list[Tensor] = field(default_factory=list)
    image: list[list[Tensor]] = field(default_factory=list)
    text: list[list[Tensor]] = field(default_factory=list)
    rows: int = 0
    known: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add_texts(self, texts: tuple[str, ...]) -> int:
        """Return the row at which these texts' vectors begin; texts said together before are not encoded again."""
        if texts not in self.known:
            self.known[texts] = self.rows
            self.rows += len(texts)
            self.text.append([torch.from_numpy(t.encode_texts(texts)).float() for t in self.teachers])
        return self.known[texts]

    def add_photo(self, viewed: Viewed, sizes: list[int], line: dict[str, Any]) -> None:
        """Encode a photo's views and texts."""
        views = dict(zip(sizes, viewed.views, strict=True))
        self.image.append([encode_views(t, views[note.px]) for t, note in zip(self.teachers, self.notes, strict=True)])
        self.augmentations.append(viewed.augmentations)
        self.lines.append(line)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as it is stored."""
        views, width = self.policy.augmentations, 5 + 2 * self.policy.operations
        made = {"augmentations": torch.cat([torch.empty(0, views, width), *(a[None] for a in self.augmentations)])}
        for number, note in enumerate(self.notes):
            image = torch.cat([torch.empty(0, views, note.dim), *(row[number][None] for row in self.image)])
            text = torch.cat([torch.empty(0, note.dim), *(row[number] for row in self.text)])
            for name, vectors in ((f"image.{number}", image), (f"text.{number}", text)):
                made |= {name + ending: part for ending, part in compress(vectors, self.policy.dtype).items()}
        return made


class Reinforcer:
    """Reinforces a recipe's data.

    Args:
        recipe: photos, texts, seed and `[reinforcement]`.
        data: the data folder; photos below it are stored by their path in it.
        out: the folder of shards; made when missing.
        teachers: one or more.
        workers: processes that decode photos.

    Raises:
        DataError: a source is missing or malformed, or `out` holds the reinforcement of something else.
    """

    def __init__(self, recipe: Recipe, data: Path, out: Path, teachers: Sequence[Teacher], workers: int = 1) -> None:
        self.data, self.out, self.teachers, self.workers = data, out, teachers, workers
        self.policy, self.seed = recipe.reinforcement, recipe.seed
        self.units, basis = plan_units(recipe, data)
        notes = tuple(
            TeacherNote(t.identity, t.encode_texts(["a photo"]).shape[1], float(t.logit_scale), t.px) for t in teachers
        )
        self.sizes = sorted({note.px for note in notes})
        shards = tuple(ShardNote(unit.name, unit.source) for unit in self.units)
        self.sidecar = Sidecar(
            SCHEMA, "pocketclip", notes, policy=self.policy, seed=self.seed, basis=basis, shards=shards
        )
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".plan.lock"):
            self._agree()

    def _agree(self) -> None:
        """Write the sidecar, or make sure that the one there asks for the very same."""
        if not (self.out / SIDECAR).exists():
            self.sidecar.save(self.out)
            return
        there = Sidecar.load(self.out)
        wanted = dataclasses.asdict(self.sidecar)
        plain = tuple(ShardNote(note.name, note.source) for note in there.shards)
        found = dataclasses.asdict(dataclasses.replace(there, shards=plain, complete=False))
        if other := [name for name in wanted if wanted[name] != found[name]]:
            raise DataError(
                f"{self.out / SIDECAR}: made with other {other[0]}; use another --out, or remove the folder"
            )

    def run(self, report: Report) -> int:
        """Make the shards that nobody else makes; returns how many are still missing, in others' hands.

        Raises:
            DataError: a tar cannot be read, or a shard not be written.
        """
        for number, unit in enumerate(self.units):
            report("shards", number, len(self.units), "")
            with suppress(Timeout), FileLock(self.out / f".{unit.name}.lock", timeout=0):
                if not is_done(self.out, unit.name):
                    self._make(unit, report)
        report("shards", len(self.units), len(self.units), "")
        missing = [unit for unit in self.units if not is_done(self.out, unit.name)]
        if not missing:
            with FileLock(self.out / ".plan.lock"):
                self._complete()
        return len(missing)

    def _complete(self) -> None:
        """Count what all shards hold, once."""
        if Sidecar.load(self.out).complete:
            return
        counted = []
        for unit in self.units:
            count = Shard(self.out, unit.name).count()
            counted.append(dataclasses.replace(count, name=unit.name, source=unit.source))
        dataclasses.replace(self.sidecar, shards=tuple(counted), complete=True).save(self.out)

    def _make(self, unit: Unit, report: Report) -> None:
        for leftover in self.out.glob(f"{unit.name}.*.part"):  # of a process that was killed: the lock is ours
            leftover.unlink(missing_ok=True)
        rows = _Rows(self.teachers, self.sidecar.teachers, self.policy)
        for start in range(0, len(unit.texts), TEXTS_A_CALL):
            texts = unit.texts[start : start + TEXTS_A_CALL]
            first = rows.add_texts(texts)
            rows.lines += [
                {"key": f"{unit.source}/{start + i}", "captions": [text], "text": first + i}
                for i, text in enumerate(texts)
            ]
        samples, skipped = unit.read()
        rows.unread += [{"key": f"{unit.source}/{key}", "unread": reason} for key, reason in skipped]
        started = time.perf_counter()
        for done, viewed in enumerate(self._views(samples, unit.source), 1):
            line = self._line(viewed)
            if viewed.reason or viewed.sample is None:
                rows.unread.append({**line, "unread": viewed.reason})
            else:
                line["text"] = rows.add_texts(viewed.sample.captions + viewed.sample.synthetic)
                rows.add_photo(viewed, self.sizes, line)
            report("photos", done, len(samples), f"{done / (time.perf_counter() - started):.1f} photos/s")
        write_shard(self.out, unit.name, rows.lines + rows.unread, rows.tensors())

    def _views(self, samples: Sequence[RawSample | TarSample], source: str) -> Iterator[Viewed]:
        views = Views(samples, source, self.policy, self.seed, self.sizes)
        yield from DataLoader(
            views,
            batch_size=None,
            collate_fn=_same,
            num_workers=self.workers if len(samples) else 0,
            prefetch_factor=4 if self.workers and len(samples) else None,
        )

    def _line(self, viewed: Viewed) -> dict[str, Any]:
        sample = viewed.sample
        if sample is None:
            return {"key": viewed.key}
        path = sample.photo.path
        below = path.relative_to(self.data) if path.is_relative_to(self.data) else path.absolute()
        line: dict[str, Any] = {"key": sample.key, "group": sample.group, "photo": below.as_posix()}
        if sample.photo.place:
            line["place"] = list(sample.photo.place)
        return {**line, "captions": list(sample.captions), "synthetic": list(sample.synthetic)}

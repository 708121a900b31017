"""The photos and texts of a recipe's sources as one kind of sample, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.config import PhotoSource, Recipe
from distill.data.sources import DataError, read_photos, read_texts
from distill.data.tars import Place, Skipped, TarSample, find_tars, read_index

TEXTS_A_UNIT = 8192


@dataclass(frozen=True)
class RawSample:
    """A photo with its texts.

    Attributes:
        key: its name, different from every other's, that decides its augmentations.
        group: equals another's where both show the same.
        photo: where it lies.
        captions: true of it, at least one.
        synthetic: captions that a model wrote.
    """

    key: str
    group: str
    photo: Place
    captions: tuple[str, ...]
    synthetic: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """A part of a recipe's data that becomes one shard: photos, or a tar of them, or texts.

    Attributes:
        name: of the shard.
        source: the recipe's name of where it comes from.
        samples: photos named one by one.
        tar: or those of a tar.
        texts: or texts without photos.
    """

    name: str
    source: str
    samples: tuple[RawSample, ...] = ()
    tar: Path | None = None
    texts: tuple[str, ...] = ()

    def read(self) -> tuple[Sequence[RawSample | TarSample], list[Skipped]]:
        """Return the photos of the unit, those of a tar unread but for their places, and what the tar has lost."""
        return read_index(self.tar) if self.tar else (self.samples, [])


def listed_samples(source: PhotoSource, data: Path) -> list[RawSample]:
    """Read a captions file or a table of labels; photos need not exist.

    Raises:
        DataError: a file is missing or malformed.
    """
    start = (data / source.file).parent
    return [
        RawSample(
            f"{source.name}/{_below(sample.path, start)}",
            sample.group,
            Place(sample.path),
            sample.texts,
            sample.synthetic,
        )
        for sample in read_photos(source, data)
    ]


def _below(path: Path, folder: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def tar_sample(found: TarSample, source: str) -> RawSample:
    """Read the captions of a tar's sample.

    Raises:
        SampleError: it has no picture or no caption, or they are damaged.
    """
    key = f"{source}/{found.tar.stem}/{found.key}"
    synthetic = tuple(text for said in found.synthetic().values() for text in said)
    return RawSample(key, key, found.photo, found.captions(), synthetic)


def whole(sample: RawSample | TarSample, source: str) -> RawSample:
    """Return a sample with its texts, whichever kind it is.

    Raises:
        SampleError: see `tar_sample`.
    """
    return tar_sample(sample, source) if isinstance(sample, TarSample) else sample


def plan_units(recipe: Recipe, data: Path) -> tuple[list[Unit], str]:
    """Cut the sources of a recipe into units; also a digest of all that they are made of.

    Raises:
        DataError: a source is missing, malformed, or reinforced already.
    """
    parts: list[tuple[str, tuple[RawSample, ...], Path | None, tuple[str, ...]]] = []
    digest = hashlib.sha256()
    names = [source.name for source in recipe.photos] + [source.name for source in recipe.texts]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two sources are named {double}; photos are known by their source's name")
    for source in recipe.photos:
        if source.kind == "reinforced":
            raise DataError(f"photos.{source.name}: is reinforced already")
        if source.kind == "webdataset":
            for tar in find_tars(data / source.file):
                parts.append((source.name, (), tar, ()))
                digest.update(f"{source.name}|{tar.name}|{tar.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            continue
        samples = listed_samples(source, data)
        for sample in samples:
            said = f"{sample.key}|{sample.group}|{sample.captions}|{sample.synthetic}\n"
            digest.update(said.encode("utf-8", "surrogatepass"))
        size = recipe.reinforcement.shard
        parts += [(source.name, tuple(samples[i : i + size]), None, ()) for i in range(0, len(samples), size)]
    for texts in recipe.texts:
        said_here = read_texts(texts, data)
        digest.update("\n".join([texts.name, *said_here]).encode("utf-8", "surrogatepass"))
        steps = range(0, len(said_here), TEXTS_A_UNIT)
        parts += [(texts.name, (), None, tuple(said_here[i : i + TEXTS_A_UNIT])) for i in steps]
    return [Unit(f"{number:05}", *part) for number, part in enumerate(parts)], digest.hexdigest()

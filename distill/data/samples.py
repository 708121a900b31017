"""The photos and texts of all kinds of sources, cut into the parts that become shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.config import PhotoSource, Recipe
from distill.data.sources import photo_folder, read_photos, read_texts, readable_name
from distill.data.tables import DataError
from distill.data.tars import Omission, PhotoRef, TarSample, find_tars, read_index
from mobileclip.files import PathLike

TEXTS_PER_SHARD = 8192


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo with its texts.

    Attributes:
        key: its unique name, which determines its augmentations.
        group: what it shows; photos of the same group aren't each other's negatives.
        photo: where to read it.
        captions: texts that are true of it, at least one.
        synthetic: captions that a model wrote.
    """

    key: str
    group: str
    photo: PhotoRef
    captions: tuple[str, ...]
    synthetic: tuple[str, ...] = ()

    @classmethod
    def from_tar(cls, sample: TarSample, source: PhotoSource) -> CaptionedPhoto:
        """Read the captions of a sample in a tar, or make them from its label and the source's templates.

        Raises:
            SampleError: it has no picture, no caption and no label, or they are damaged.
        """
        key = f"{source.name}/{sample.tar.stem}/{sample.key}"
        if (label := sample.label()) is not None:
            phrase = readable_name(label, dict(source.names))
            return cls(key, phrase, sample.photo, tuple(template.format(phrase) for template in source.templates))
        synthetic = tuple(text for texts in sample.synthetic().values() for text in texts)
        return cls(key, key, sample.photo, sample.captions(), synthetic)


@dataclass(frozen=True)
class ShardInput:
    """A part of a recipe's data that becomes one shard: listed photos, a tar, or texts.

    Attributes:
        name: name of the shard.
        source: name of the source in the recipe.
        samples: photos of a captions or labels file.
        tar: a tar of photos.
        texts: texts without photos.
    """

    name: str
    source: str
    samples: tuple[CaptionedPhoto, ...] = ()
    tar: Path | None = None
    texts: tuple[str, ...] = ()

    def read(self) -> tuple[Sequence[CaptionedPhoto | TarSample], list[Omission]]:
        """Return the photos, and what can't be used of the tar. The captions in a tar aren't read yet."""
        return usable_samples(self.tar) if self.tar else (self.samples, [])


def usable_samples(tar: PathLike) -> tuple[list[TarSample], list[Omission]]:
    """Index a tar; return the samples with a picture and a text, and everything else with its reason.

    Raises:
        DataError: the tar can't be opened.
    """
    samples, omissions = read_index(tar)
    lacking = [Omission(sample.key, sample.lacks) for sample in samples if sample.lacks]
    return [sample for sample in samples if not sample.lacks], omissions + lacking


def listed_photos(source: PhotoSource, data: PathLike) -> list[CaptionedPhoto]:
    """Read a captions or labels file; the photos need not exist.

    Raises:
        DataError: a file is missing or malformed.
    """
    start = photo_folder(source, data)
    return [
        CaptionedPhoto(
            f"{source.name}/{_relative(sample.path, start)}",
            sample.group,
            PhotoRef(sample.path),
            sample.texts,
            sample.synthetic,
        )
        for sample in read_photos(source, data)
    ]


def _relative(path: Path, folder: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def with_captions(sample: CaptionedPhoto | TarSample, source: PhotoSource) -> CaptionedPhoto:
    """Return a sample with its captions, read from the tar if necessary.

    Raises:
        SampleError: see `CaptionedPhoto.from_tar`.
    """
    return CaptionedPhoto.from_tar(sample, source) if isinstance(sample, TarSample) else sample


def plan_shards(recipe: Recipe, data: PathLike) -> tuple[list[ShardInput], str]:
    """Cut the sources of a recipe into the inputs of shards; also return a digest of all sources.

    Raises:
        DataError: a source is missing or malformed, or is reinforced already, or two have the same name.
    """
    data = Path(data)
    parts: list[tuple[str, tuple[CaptionedPhoto, ...], Path | None, tuple[str, ...]]] = []
    digest = hashlib.sha256()
    names = [source.name for source in recipe.photos] + [source.name for source in recipe.texts]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two sources are named {double}, but the names of photos start with that of their source")
    for source in recipe.photos:
        if source.kind == "reinforced":
            raise DataError(f"photos.{source.name}: is reinforced already")
        if source.kind == "webdataset":
            for tar in find_tars(data / source.file):
                parts.append((source.name, (), tar, ()))
                digest.update(f"{source.name}|{tar.name}|{tar.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            continue
        samples = listed_photos(source, data)
        for sample in samples:
            line = f"{sample.key}|{sample.group}|{sample.captions}|{sample.synthetic}\n"
            digest.update(line.encode("utf-8", "surrogatepass"))
        size = recipe.reinforcement.shard
        parts += [(source.name, tuple(samples[i : i + size]), None, ()) for i in range(0, len(samples), size)]
    for text_source in recipe.texts:
        texts = read_texts(text_source, data)
        digest.update("\n".join([text_source.name, *texts]).encode("utf-8", "surrogatepass"))
        starts = range(0, len(texts), TEXTS_PER_SHARD)
        parts += [(text_source.name, (), None, tuple(texts[i : i + TEXTS_PER_SHARD])) for i in starts]
    return [ShardInput(f"{number:05}", *part) for number, part in enumerate(parts)], digest.hexdigest()

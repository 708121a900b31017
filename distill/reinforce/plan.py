"""Cut the photos and texts of a recipe into the parts that become shards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.config import PhotoSource, Recipe
from distill.data.remote import source_tars
from distill.data.sources import CaptionedPhoto, list_photos, read_tar, read_texts
from distill.data.tables import DataError
from distill.data.tars import Omission
from mobileclip.files import PathLike

TEXTS_PER_SHARD = 8192


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

    def read(
        self, sources: Mapping[str, PhotoSource], data: PathLike
    ) -> tuple[Sequence[CaptionedPhoto], list[Omission]]:
        """Return the photos, and what can't be used of the tar; `sources` are the recipe's, by name."""
        return read_tar(self.tar, sources[self.source], data) if self.tar else (self.samples, [])


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
        if source.kind == "webdataset":
            for tar in source_tars(source.file, data):
                parts.append((source.name, (), tar, ()))
                digest.update(f"{source.name}|{tar.name}|{tar.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            continue
        samples = list_photos(source, data).photos
        for sample in samples:
            line = f"{sample.key}|{sample.group}|{sample.captions}|{sample.synthetic}\n"
            digest.update(line.encode("utf-8", "surrogatepass"))
        size = recipe.reinforcement.shard
        parts += [(source.name, samples[i : i + size], None, ()) for i in range(0, len(samples), size)]
    for text_source in recipe.texts:
        texts = read_texts(text_source, data)
        digest.update("\n".join([text_source.name, *texts]).encode("utf-8", "surrogatepass"))
        starts = range(0, len(texts), TEXTS_PER_SHARD)
        parts += [(text_source.name, (), None, tuple(texts[i : i + TEXTS_PER_SHARD])) for i in starts]
    return [ShardInput(f"{number:05}", *part) for number, part in enumerate(parts)], digest.hexdigest()

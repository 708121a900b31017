"""What a recipe reads: photos with texts, texts alone, and how photos are augmented for teachers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mobileclip.errors import ConfigError

PHOTO_TEMPLATES = ("a photo of {}", "{}", "a picture of {}", "a close-up photo of {}", "there is {} here")


@dataclass(frozen=True)
class PhotoSource:
    """Photos with texts: a captions file, a table of labels turned into texts by templates, WebDataset tars, or what
    `pocketclip reinforce` made of any of them."""

    name: str
    kind: Literal["captions", "labels", "webdataset", "reinforced"]
    file: str
    """Below the data folder. JSONL, CSV or TSV for captions and labels; photo paths in it are relative to the file.
    A tar, a folder of tars or a pattern for `webdataset`. A folder that `pocketclip reinforce` wrote, or one of
    DataCompDR tars, for `reinforced`."""
    splits: str = ""
    """A CSV with `file,split` for files that do not carry a `split` column themselves."""
    use: tuple[str, ...] = ()
    """Which splits to read; empty for all."""
    column: str = "label"
    """The column that holds the label, several joined by `|`."""
    templates: tuple[str, ...] = PHOTO_TEMPLATES
    names: Mapping[str, str] = field(default_factory=dict)
    """How to call a label in a text where its own name misleads; `_` and `-` become spaces anyway."""
    per_epoch: float = 1.0
    """Share of the photos drawn in an epoch: 0.5 is every other one, 2 is each twice."""

    def __post_init__(self) -> None:
        if not 0 < self.per_epoch <= 100:
            raise ConfigError(f"photos.{self.name}: per_epoch must lie in (0, 100]")


@dataclass(frozen=True)
class TextSource:
    """Texts without photos, for the text tower to learn the teacher's geometry from."""

    name: str
    kind: Literal["lines", "csv", "wordnet"]
    file: str
    column: str = "prompt"
    """For `csv`: the column that holds the text."""
    limit: int = 0
    """Keep only the first so many, 0 for all. WordNet nouns come most frequent first."""
    plural: bool = False
    """Each text, a noun, in its plural instead."""
    templates: tuple[str, ...] = ("{}",)
    """What is said of each: a name is met as a label far more often inside a prompt than bare."""


@dataclass(frozen=True)
class Reinforcement:
    """How photos are augmented for teachers, and what is stored of each; see `distill.reinforce.run`."""

    augmentations: int = 10
    """Views stored of each photo."""
    scale: tuple[float, ...] = (0.08, 1.0)
    """Smallest and largest share of the area that a crop keeps."""
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    """Smallest and largest width of a crop divided by its height."""
    mirror: float = 0.0
    """Chance that a view is mirrored. What is written on a photo is not readable then."""
    operations: int = 2
    """Of RandAugment, one after the other; 0 crops only."""
    magnitude: int = 9
    """Of these operations, 0 to 30."""
    dtype: Literal["float16", "bfloat16", "int8"] = "float16"
    """Of the stored vectors; int8 comes with a scale for each vector."""
    shard: int = 1024
    """Photos a shard; a tar of photos is one shard, however long."""

    def __post_init__(self) -> None:
        for name, top in (("scale", 1.0), ("ratio", 100.0)):
            limits = getattr(self, name)
            if len(limits) != 2 or not 0 < limits[0] <= limits[1] <= top:
                raise ConfigError(f"reinforcement.{name}: two numbers above 0, the smaller one first, are needed")
        if not (0 <= self.mirror <= 1 and 0 <= self.operations <= 14 and 0 <= self.magnitude <= 30):
            raise ConfigError("reinforcement: mirror lies in 0 … 1, operations in 0 … 14, magnitude in 0 … 30")
        if self.augmentations < 1 or self.shard < 1:
            raise ConfigError("reinforcement needs augmentations ≥ 1 and shard ≥ 1")

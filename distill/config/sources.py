"""The data of a recipe: photos with texts, texts without photos, and how photos are augmented for teachers."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from mobileclip.errors import ConfigError

View = Literal["mirror", "degraded"]
VIEWS: tuple[View, ...] = get_args(View)

PHOTO_TEMPLATES = ("a photo of {}", "{}", "a picture of {}", "a close-up photo of {}", "there is {} here")


def _check_templates(where: str, templates: Sequence[str]) -> None:
    """Raise ConfigError unless each template has `{}` and no other braces."""
    if not templates:
        raise ConfigError(f"{where}: templates cannot be empty; leave the setting out for the default")
    for template in templates:
        try:
            fields = [tuple(part[1:]) for part in string.Formatter().parse(template) if part[1] is not None]
        except ValueError:
            fields = []
        if not fields or any(field != ("", "", None) for field in fields):
            raise ConfigError(
                f"{where}: template {template!r}: {{}} stands for the name; other braces are written {{{{ and }}}}"
            )
        if len(fields) > 1:
            raise ConfigError(f"{where}: template {template!r}: {{}} can stand in it only once")


@dataclass(frozen=True)
class PhotoSource:
    """Photos with texts: a captions file, labels turned into texts by templates, WebDataset tars, or what `pocketclip
    reinforce` made of any of them."""

    name: str
    """The name of the source in messages and in the report."""
    kind: Literal["captions", "labels", "folders", "coco", "webdataset", "reinforced"]
    """`captions` and `labels` are tables, `folders` is a folder with one folder per class, `coco` a captions file of
    COCO, `webdataset` is tars, `reinforced` is what `pocketclip reinforce` wrote."""
    file: str
    """The file, relative to the data folder. For captions and labels: JSONL, CSV, TSV or Parquet, in which photo paths
    are relative to the file. For `folders`: the folder. For `coco`: the JSON. For `webdataset`: a tar, a folder of
    tars, or a pattern such as `set/{000..099}.tar`; each can be a URL, such as `s3://bucket/set/`. For `reinforced`: a
    folder that `pocketclip reinforce` wrote, or a folder of DataCompDR tars."""
    splits: str = ""
    """A CSV with columns `file,split`, for tables without a column `split`."""
    use: tuple[str, ...] = ()
    """The splits to read; empty for all."""
    folder: str = ""
    """For tables and `coco`: the folder that photo paths are relative to; itself relative to the folder of the file."""
    file_column: str = "file"
    """For tables: the column of the photo's path."""
    caption_column: str = "caption"
    """For `captions`: the column of the caption."""
    column: str = "label"
    """For `labels`: the column of the label. A photo can have several, separated by `|`."""
    templates: tuple[str, ...] = PHOTO_TEMPLATES
    """For `labels`, and labels in tars: the texts of a photo, in which `{}` stands for the label."""
    names: Mapping[str, str] = field(default_factory=dict)
    """For labels: what to call a label in a text if its name is misleading. `_` and `-` always become spaces."""
    views: tuple[View, ...] = ()
    """Further views of each photo for training with cached features (`features` of a stage, `attention` of
    `[aligned]`): its `mirror` image, which isn't for photos of writing, and `degraded`, the photo in gray, dark,
    blurred, sepia, tiny or turned. Each time, the photo itself or one of its views is drawn."""
    per_epoch: float = 1.0
    """Share of the photos in an epoch: 0.5 draws every other photo, 2 draws each twice."""

    def __post_init__(self) -> None:
        if not 0 < self.per_epoch <= 100:
            raise ConfigError(f"photos.{self.name}: per_epoch must lie in (0, 100]")
        if self.kind in ("webdataset", "reinforced") and (self.splits or self.use):
            raise ConfigError(f"photos.{self.name}: {self.kind} has no splits; name the files of one split instead")
        if self.folder and self.kind in ("folders", "webdataset", "reinforced"):
            raise ConfigError(f"photos.{self.name}: {self.kind} has its photos in `file`, not in `folder`")
        _check_templates(f"photos.{self.name}", self.templates)


@dataclass(frozen=True)
class RenderedPictures:
    """Pictures to render before training, so that a recipe needs no data; see `distill.render.dataset`."""

    folder: str
    """Where they are kept, relative to the data folder. Pictures that are there are used again."""
    per_kind: int = 24
    """Pictures of each of the 34 kinds, such as receipts, maps and screenshots."""

    def __post_init__(self) -> None:
        if self.per_kind < 1:
            raise ConfigError("render.per_kind must be at least 1")


@dataclass(frozen=True)
class TextSource:
    """Texts without photos, from which the text tower learns the teacher's similarities."""

    name: str
    """The name of the source in messages and in the report."""
    kind: Literal["lines", "csv", "wordnet"]
    """`lines` is a text file with one text per line, `csv` a column of a table, `wordnet` the nouns of WordNet."""
    file: str
    """The file, relative to the data folder."""
    column: str = "prompt"
    """For `csv`: the column of the text."""
    limit: int = 0
    """Number of texts to keep, from the beginning; 0 for all. The most frequent nouns of WordNet come first."""
    plural: bool = False
    """Whether to replace each text, a noun, by its plural."""
    templates: tuple[str, ...] = ("{}",)
    """The texts made of each one, in which `{}` stands for it. As labels, names are usually part of a prompt."""

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError(f"texts.{self.name}: limit cannot be negative")
        _check_templates(f"texts.{self.name}", self.templates)


@dataclass(frozen=True)
class Reinforcement:
    """How `pocketclip reinforce` and online teachers augment photos, and what the former stores."""

    augmentations: int = 10
    """Number of augmented views of each photo."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of a photo's area that a crop keeps."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio of a crop, width divided by height."""
    mirror: float = 0.0
    """Probability that a view is mirrored, which makes text in a photo unreadable."""
    operations: int = 2
    """Number of RandAugment operations per view; 0 only crops."""
    magnitude: int = 9
    """Strength of these operations, 0 to 30."""
    dtype: Literal["float16", "bfloat16", "int8"] = "float16"
    """Number format of the stored embeddings. int8 also stores a scale for each embedding."""
    shard: int = 1024
    """Photos per shard. A tar of photos is always one shard."""

    def __post_init__(self) -> None:
        for name, top in (("scale", 1.0), ("ratio", 100.0)):
            limits = getattr(self, name)
            if len(limits) != 2 or not 0 < limits[0] <= limits[1] <= top:
                raise ConfigError(f"reinforcement.{name}: needs two numbers above 0, the smaller first")
        if not (0 <= self.mirror <= 1 and 0 <= self.operations <= 14 and 0 <= self.magnitude <= 30):
            raise ConfigError("reinforcement: mirror must be 0 to 1, operations 0 to 14 and magnitude 0 to 30")
        if self.augmentations < 1 or self.shard < 1:
            raise ConfigError("reinforcement needs augmentations ≥ 1 and shard ≥ 1")

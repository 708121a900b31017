"""A recipe: everything that decides how a student is trained, read from one TOML file and checked."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mobileclip.errors import ConfigError

PHOTO_TEMPLATES = ("a photo of {}", "{}", "a picture of {}", "a close-up photo of {}", "there is {} here")


@dataclass(frozen=True)
class PhotoSource:
    """Photos with texts: a captions file, or a table of labels turned into texts by templates."""

    name: str
    kind: Literal["captions", "labels"]
    file: str
    """JSONL or CSV below the data folder; photo paths in it are relative to the file."""
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
    templates: tuple[str, ...] = ("{}",)
    """What is said of each: a name is met as a label far more often inside a prompt than bare."""


@dataclass(frozen=True)
class BackboneConfig:
    """A frozen timm classifier, of which the pooled features are used."""

    trunk: str
    """A timm name."""
    weights: str
    """A path, or `package:relative/path`."""
    px: int = 224
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    mirror: bool = False
    """Average the features of a photo and its mirror image, at twice the cost."""
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class AlignedPairConfig:
    """Two frozen encoders and the two heads that align them (LiT, Zhai et al. 2022, with both sides locked)."""

    backbones: tuple[BackboneConfig, ...]
    """One or more; their features are joined. The first one's classifier gives the posterior."""
    sentences: str
    """A sentence-transformers folder: a path, or `package:relative/path`."""
    embed_dim: int = 512
    hidden: int = 1024
    dropout: float = 0.3
    epochs: int = 40
    batch: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.05
    logit_scale: float = 40.0
    """The temperature at which the student mimics this teacher."""
    posterior_weight: float = 0.5
    """KL to the backbone's own class posterior over `a photo of a <class>`; 0 switches it off."""
    class_names: str = ""
    """A CSV below the data folder, `file,label`: the classifier's class names in the order of its files."""
    class_texts: Mapping[str, str] = field(default_factory=dict)
    """How to call a class in a text where its own name misleads."""
    conse_weight: float = 0.0
    """Adds to a photo's vector, this many times as long, what the classifier saw in it: the mean of the ten likeliest
    classes' text vectors, weighted by their probabilities (ConSE, Norouzi et al. 2014). 0 switches it off."""
    geometry_weight: float = 0.0
    """Relational KL to the pairwise geometry of `geometry_vectors`, another teacher's text vectors."""
    geometry_texts: str = ""
    geometry_vectors: str = ""


@dataclass(frozen=True)
class OpenClipConfig:
    """Any open_clip model: its name and a path to weights, or `local-dir:` and a folder. Nothing is downloaded."""

    model: str
    pretrained: str = ""


@dataclass(frozen=True)
class LossConfig:
    """How much of each loss; see `distill.losses`."""

    contrastive: float = 1.0
    affinity: float = 1.0
    feature: float = 1.0
    posterior: float = 0.0
    """Needs a teacher with a classifier: `[aligned]` with `class_names`."""
    bank: int = 4096
    """Teacher vectors of other texts and photos that the affinity losses compare against, a step."""

    def __post_init__(self) -> None:
        if min(self.contrastive, self.affinity, self.feature, self.posterior) < 0 or self.bank < 0:
            raise ConfigError("loss weights and bank cannot be negative")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay; both towers from their own rate."""

    batch: int = 128
    extra_texts: int = 256
    """Texts without photos in each batch."""
    lr_trunk: float = 5e-4
    """The pretrained image trunk."""
    lr: float = 1e-3
    """Everything that starts from scratch."""
    weight_decay: float = 0.05
    warmup: int = 200
    """Steps."""
    clip: float = 1.0
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones kept; 0 keeps the last."""
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Stage:
    """So many epochs at one picture size. Small pictures first makes training cheap."""

    epochs: int
    px: int = 0
    """Side of the pictures; 0 where `texts_only`."""
    texts_only: bool = False
    """The text tower alone learns, an epoch is every text once, and no photo is read."""
    crop: float = 0.5
    """Smallest share of the area that a random crop may keep."""
    frozen: tuple[str, ...] = ()
    """Parts that do not learn in this stage, by how their weights' names begin: `image.trunk`, `text.blocks.0`."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 < self.crop <= 1:
            raise ConfigError("a stage needs epochs ≥ 1 and crop in (0, 1]")
        if (self.px != 0) if self.texts_only else (self.px < 32):
            raise ConfigError("a stage needs px ≥ 32, or texts_only = true and no px")


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    model: str
    merges: str
    """The tokenizer's merges, relative to the recipe."""
    photos: tuple[PhotoSource, ...]
    stages: tuple[Stage, ...]
    aligned: AlignedPairConfig | None = None
    open_clip: OpenClipConfig | None = None
    texts: tuple[TextSource, ...] = ()
    init: str = ""
    """Weights of the image trunk to start from: a path, or `package:relative/path`."""
    start: str = ""
    """A checkpoint of the whole student to start from, instead of `init`: a file or a folder."""
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    licence: str = ""
    """Of the trained weights; travels with them."""
    provenance: str = ""
    """What the weights were trained on, in one line; travels with them."""
    seed: int = 0
    save_every: int = 200
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        if not self.photos or not self.stages:
            raise ConfigError(f"recipe {self.name}: at least one [[photos]] and one [[stages]] are needed")
        if (self.aligned is None) == (self.open_clip is None):
            raise ConfigError(f"recipe {self.name}: name one teacher, [aligned] or [open_clip]")
        needs_classes = self.aligned is not None and self.aligned.conse_weight and not self.aligned.class_names
        if needs_classes:
            raise ConfigError(f"recipe {self.name}: aligned.conse_weight needs aligned.class_names")
        if self.loss.posterior and not (self.aligned and self.aligned.class_names):
            raise ConfigError(f"recipe {self.name}: loss.posterior needs a teacher with class_names, under [aligned]")

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a recipe; `overrides` maps dotted names to values, e.g. `{"optim.lr": 3e-4}`.

        Raises:
            ConfigError: the file is missing or a setting is unknown, of the wrong type or out of range.
        """
        try:
            fields = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML ({error})") from error
        for name, value in (overrides or {}).items():
            *tables, key = name.split(".")
            table = fields
            for part in tables:
                table = table.setdefault(part, {})
            table[key] = value
        return build(cls, fields, str(path))


def build(kind: type[Any], fields: Any, where: str) -> Any:
    """Make a frozen dataclass from a TOML table, refusing what it does not know.

    Raises:
        ConfigError: naming the setting.
    """
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: a table is needed")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(fields) - set(known)):
        raise ConfigError(f"{where}: unknown setting {unknown[0]}; known are {', '.join(known)}")
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in fields.items()}
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Fit a TOML value to a field's type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where}: a list is needed")
        return tuple(_convert(arguments[0], item, where) for item in value)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is not hint:
        raise ConfigError(f"{where}: {value!r} is not of type {hint.__name__}")
    return value

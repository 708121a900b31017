"""The teachers that a recipe can name, with the settings of each.

The constructors are in `distill.teachers`, see `distill.teachers.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import GenericAlias
from typing import Any, ClassVar, Literal, TypeVar

from mobileclip.errors import ConfigError
from mobileclip.towers.config import AttentionConfig


@dataclass(frozen=True)
class TeacherConfig:
    """The settings of a teacher. Each kind of teacher is a subclass with the decorator `teacher_table`."""

    needs_corpus: ClassVar[bool] = False
    """Whether the teacher is fitted to the photos and texts of the recipe before it teaches."""

    @property
    def has_classes(self) -> bool:
        """Whether the teacher also returns class probabilities."""
        return False

    def weights(self) -> dict[str, str]:
        """Return the files and packages that the teacher reads, by the name of what they hold.

        Paths are relative to the recipe or the current folder, or `package:relative/path`.
        """
        return {}

    def tables(self) -> tuple[str, ...]:
        """Return the files below the data folder that the teacher reads."""
        return ()


@dataclass(frozen=True)
class TeacherTable:
    """How a kind of teacher is written in a recipe.

    Attributes:
        settings: its settings.
        repeated: whether a recipe can have several, as `[[name]]`, or only one, as `[name]`.
    """

    settings: type[TeacherConfig]
    repeated: bool


TEACHER_TABLES: dict[str, TeacherTable] = {}
"""Every kind of teacher by its key in a recipe. A recipe's teachers are in this order."""

Settings = TypeVar("Settings", bound=TeacherConfig)


def teacher_table(name: str, *, repeated: bool) -> Callable[[type[Settings]], type[Settings]]:
    """Make settings a table that recipes can contain.

    Args:
        name: the table's key.
        repeated: see `TeacherTable`.

    Raises:
        ValueError: the name is taken.
    """

    def add(settings: type[Settings]) -> type[Settings]:
        if name in TEACHER_TABLES:
            raise ValueError(f"recipes already have a teacher {name}")
        TEACHER_TABLES[name] = TeacherTable(settings, repeated)
        return settings

    return add


def teacher_types() -> dict[str, Any]:
    """Return the type of each teacher's key in a recipe."""
    return {
        name: GenericAlias(tuple, (table.settings, ...)) if table.repeated else table.settings
        for name, table in TEACHER_TABLES.items()
    }


def table_names() -> str:
    """Return the names of all tables as they are written in a recipe: "[aligned], [[open_clip]] or …"."""
    names = [f"[[{name}]]" if table.repeated else f"[{name}]" for name, table in TEACHER_TABLES.items()]
    return f"{', '.join(names[:-1])} or {names[-1]}"


@dataclass(frozen=True)
class BackboneConfig:
    """A frozen timm classifier. Its pooled features are used."""

    trunk: str
    """The model's name in timm."""
    weights: str
    """The file with its weights: a path relative to the recipe or the current folder, or `package:relative/path`."""
    px: int = 224
    """Side of its pictures, in pixels."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean of each color channel, 0 to 1, which is subtracted."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Standard deviation of each color channel, which divides the difference."""
    mirror: bool = False
    """Whether to average the features of a photo and of its mirror image, at twice the cost."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the backbone's arithmetic."""


@teacher_table("aligned", repeated=False)
@dataclass(frozen=True)
class AlignedPairConfig(TeacherConfig):
    """Two frozen encoders and the two heads that align them (LiT, Zhai et al. 2022, with both sides locked)."""

    needs_corpus: ClassVar[bool] = True

    backbones: tuple[BackboneConfig, ...]
    """One or more image encoders, whose features are joined. The first one's classifier gives the posterior."""
    sentences: str
    """A sentence-transformers folder: a path relative to the recipe or the current folder, or
    `package:relative/path`."""
    sentence_layers: tuple[int, ...] = ()
    """Hidden layers of the sentence encoder whose means over tokens are added to its embedding. They distinguish words
    with nearly the same meaning."""
    sentence_strongest: bool = False
    """Whether the last layer's maximum over tokens is added too."""
    embed_dim: int = 512
    """Dimension of the teacher's embeddings."""
    heads: int = 1
    """Number of pairs of heads, each trained from different random weights. A similarity is the mean of theirs. Their
    joined embeddings are reduced to `embed_dim` by their principal directions."""
    hidden: int = 1024
    """Width of the hidden layer of a head."""
    attention: AttentionConfig | None = None
    """Attention pooling over the first backbone's feature maps, whose unit vector is added to that of the pooled
    features. Its other settings are those of a student's `image.attention`."""
    dropout: float = 0.3
    """Dropout in the heads, 0 to 1, while they are trained."""
    epochs: int = 40
    """Epochs of the training of the heads."""
    batch: int = 1024
    """Photos per step of that training."""
    lr: float = 1e-3
    """Highest learning rate of that training."""
    weight_decay: float = 0.05
    """Weight decay of that training (AdamW)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the heads' arithmetic in that training, see `optim.precision`."""
    logit_scale: float = 40.0
    """The logit scale at which the student matches this teacher's similarities."""
    posterior_weight: float = 0.5
    """Weight of the KL divergence to the first backbone's class probabilities, over `a photo of a <class>`. 0 turns it
    off."""
    class_names: str = ""
    """The names of the classifier's classes: a CSV below the data folder with columns `file,label`, sorted by file, or
    `open_clip` for open_clip's names of ImageNet's 1,000 classes, which are less ambiguous ("drake", "crane")."""
    class_texts: Mapping[str, str] = field(default_factory=dict)
    """What to call a class in a text if its name is misleading."""
    conse_weight: float = 0.0
    """Adds what the classifier sees to a photo's embedding: the mean of the text embeddings of the ten most probable
    classes, weighted by their probabilities (ConSE, Norouzi et al. 2014), less the mean of all classes. This is its
    length relative to the embedding. 0 turns it off."""
    geometry_weight: float = 0.0
    """Weight of a relational KL divergence to the similarities between `geometry_vectors`. 0 turns it off."""
    geometry_texts: str = ""
    """A table below the data folder with a column `prompt`, one row for each of `geometry_vectors`."""
    geometry_vectors: str = ""
    """Text embeddings of another teacher: an .npy file below the data folder, float32 (texts, d)."""

    def __post_init__(self) -> None:
        if self.heads < 1 or not self.backbones:
            raise ConfigError("aligned needs heads ≥ 1 and at least one [[aligned.backbones]]")
        if self.conse_weight and not self.class_names:
            raise ConfigError("aligned.conse_weight needs aligned.class_names")

    @property
    def has_classes(self) -> bool:
        """Whether the classifier's classes have names."""
        return bool(self.class_names)

    def weights(self) -> dict[str, str]:
        """Return the sentence encoder's folder and the backbones' weights."""
        backbones = {f"backbones.{backbone.trunk}": backbone.weights for backbone in self.backbones}
        return {"sentences": self.sentences, **backbones}

    def tables(self) -> tuple[str, ...]:
        """Return the files of the geometry, if it has a weight."""
        return (self.geometry_texts, self.geometry_vectors) if self.geometry_weight else ()


@teacher_table("open_clip", repeated=True)
@dataclass(frozen=True)
class OpenClipConfig(TeacherConfig):
    """Any open_clip model whose weights are on disk. Nothing is downloaded."""

    model: str
    """The model's name in open_clip, or `local-dir:` and a folder with weights and their `open_clip_config.json`."""
    pretrained: str = ""
    """The file with its weights: a path relative to the recipe or the current folder. Empty for a folder."""
    tag: str = ""
    """The tag under which open_clip lists these weights, such as `openai`. It tells their pixels and their activation,
    and is needed only if other weights of this model differ in them."""
    logit_scale: float = 0.0
    """The logit scale at which the student matches this teacher's similarities; 0 for the model's own."""
    class_names: str = ""
    """For a student with a classifier (`image.classes`): the names of its classes, whose embeddings it starts from; as
    in `aligned`. Only the first teacher's are used."""

    def __post_init__(self) -> None:
        if self.logit_scale < 0:
            raise ConfigError(f"open_clip teacher {self.model}: logit_scale cannot be negative")

    def weights(self) -> dict[str, str]:
        """Return the file or folder with the weights."""
        folder = self.model.removeprefix("local-dir:")
        return {folder: self.pretrained if folder == self.model else folder}


@teacher_table("checkpoints", repeated=True)
@dataclass(frozen=True)
class CheckpointConfig(TeacherConfig):
    """One of your students, or any other checkpoint that `pocketclip evaluate` reads, as a teacher."""

    path: str
    """A file or folder: a path relative to the recipe or the current folder, or `package:relative/path`."""
    logit_scale: float = 0.0
    """The logit scale at which the student matches this teacher's similarities; 0 for the model's own."""
    class_names: str = ""
    """For a student with a classifier (`image.classes`): the names of its classes, whose embeddings it starts from; as
    in `aligned`. Only the first teacher's are used."""

    def __post_init__(self) -> None:
        if self.logit_scale < 0:
            raise ConfigError(f"checkpoint teacher {self.path}: logit_scale cannot be negative")

    def weights(self) -> dict[str, str]:
        """Return the checkpoint."""
        return {self.path: self.path}

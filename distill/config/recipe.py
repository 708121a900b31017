"""A recipe: every setting of a training, read from one TOML file and validated."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill.config.sources import PhotoSource, Reinforcement, RenderedPictures, TextSource
from distill.config.teachers import TEACHER_TABLES, TeacherConfig, table_names, teacher_types
from distill.config.training import LossConfig, OptimConfig, Stage, Validation
from distill.files import locate_weights
from distill.losses import LOSSES, Need
from mobileclip.checkpoints import openai_merges
from mobileclip.errors import ConfigError
from mobileclip.files import PathLike
from mobileclip.tables import build, inline_keys
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    """The name of the student. It travels with the weights and names the run's folder."""
    model: str
    """The student's architecture: the name of a shipped model, or a .toml file next to the recipe."""
    stages: tuple[Stage, ...]
    """The stages of the training, one after the other."""
    photos: tuple[PhotoSource, ...] = ()
    """The photos to train on. A recipe whose stages are all `texts_only` can do without."""
    teacher_tables: Mapping[str, Any] = field(default_factory=dict, metadata=inline_keys(teacher_types))
    """In a recipe, each kind of teacher is a table: `[aligned]`, `[[open_clip]]` and `[[checkpoints]]`. All of them
    teach together; see `teachers`. Without any, the student learns from its photos and texts alone, by losses such as
    `contrastive` that need no teacher."""
    merges: str = ""
    """The tokenizer's merges: a path relative to the recipe or the current folder, or `package:relative/path`. Models
    with OpenAI's tokenizer, such as MobileCLIP, don't use it."""
    teach: Literal["cached", "online"] = "cached"
    """`cached` embeds each whole photo once. `online` embeds, at every step, the crop that the student sees."""
    texts: tuple[TextSource, ...] = ()
    """Texts without photos to train on."""
    init: str = ""
    """Weights of the image trunk to start from: a path relative to the recipe or the current folder, or
    `package:relative/path`. By default, the trunk starts from random weights."""
    start: str = ""
    """A checkpoint of a whole student to start from, a file or a folder; its path is written as in `init`. It has the
    student's shape, or fewer text layers."""
    keep_start: float = 0.0
    """With `start`: the weight, 0 to 1, of the weights that the run started from in the finished student (WiSE-FT,
    Wortsman et al. 2022). It brings back what fine-tuning forgot. It may change when a run is resumed, so the same
    command with another value makes another student of a finished run."""
    inherit: str = ""
    """A checkpoint of a larger model to start from, a file or a folder; its path is written as in `init`. The student
    gets a part of its layers, channels and attention heads, see `inherit_layers` (TinyCLIP, Wu et al. 2023). The towers
    must be of the same kind, with attention heads of the same width, and the tokenizer must be the same."""
    inherit_layers: Literal["every", "first"] = "every"
    """Which layers a shallower student inherits: `every` second of a model with twice as many, and so on, or the
    `first` ones."""
    blend: float = 0.0
    """With both `start` and `init`: the weight of `init`, 0 to 1, in the image trunk (WiSE-FT, Wortsman et al. 2022).
    It brings back what fine-tuning forgot and keeps most of what it learned, but the projection must learn again."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The weights and settings of the losses."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer, and how a step is computed."""
    reinforcement: Reinforcement = field(default_factory=Reinforcement)
    """How photos are augmented for `pocketclip reinforce` and for online teachers."""
    licence: str = ""
    """The license of the trained weights, which travels with them."""
    provenance: str = ""
    """What the weights were trained on, in one line, which travels with them."""
    seed: int = 0
    """Seed of everything random: initial weights, order, crops, dropout."""
    save_every: int = 200
    """Steps between checkpoints."""
    keep_last: int = 2
    """Number of checkpoints to keep."""
    render: RenderedPictures | None = None
    """Pictures to render before training."""
    validate: Validation | None = None
    """How the best student of the run is chosen; without it, only the last one is kept."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """What to do if something that the recipe names is missing: its table, such as `photos` or `start`, and a sentence.
    `pocketclip recipe check` prints it."""

    def __post_init__(self) -> None:
        if not self.stages or not (self.photos or self.texts):
            raise ConfigError(f"recipe {self.name}: needs at least one [[stages]], and [[photos]] or [[texts]]")
        if not self.photos and not all(stage.texts_only for stage in self.stages):
            raise ConfigError(f"recipe {self.name}: without [[photos]], all stages must be texts_only")
        needing = [f"loss.{loss.name}" for loss in self.loss.active if loss.needs_teacher]
        if needing and not self.teachers and not self.reinforced:
            raise ConfigError(
                f"recipe {self.name}: {' and '.join(needing)} need a teacher: name a teacher, {table_names()}, or set "
                "these losses to 0 to train by loss.contrastive alone"
            )
        if not 0 <= self.blend <= 1 or (self.blend and not (self.start and self.init)):
            raise ConfigError(f"recipe {self.name}: blend must be between 0 and 1, and needs both start and init")
        if not 0 <= self.keep_start < 1 or (self.keep_start and not self.start):
            raise ConfigError(f"recipe {self.name}: keep_start must lie in [0, 1), and needs start")
        if self.inherit and (self.start or self.init):
            raise ConfigError(f"recipe {self.name}: set either inherit, or start or init")
        self._check_losses()
        self._check_features()
        if self.save_every < 1 or self.keep_last < 1 or self.seed < 0:
            raise ConfigError(f"recipe {self.name}: save_every ≥ 1, keep_last ≥ 1 and seed ≥ 0 are needed")

    def _check_losses(self) -> None:
        has_classes = bool(self.teachers) and self.teachers[0].has_classes
        if (needing := self.loss.needing(Need.POSTERIOR)) and not has_classes:
            raise ConfigError(
                f"recipe {self.name}: loss.{needing[0]} needs a first teacher with classes: [aligned] with class_names"
            )
        for_texts = [loss for loss in LOSSES.values() if loss.texts]
        if any(stage.texts_only for stage in self.stages) and not any(
            loss in self.loss.active and (self.loss.bank or Need.REFERENCE not in loss.needs) for loss in for_texts
        ):
            names = [f"loss.{loss.name}" + " with a bank" * (Need.REFERENCE in loss.needs) for loss in for_texts]
            raise ConfigError(f"recipe {self.name}: texts_only needs {', or '.join(names)}")

    def _check_features(self) -> None:
        """Check stages with features, which are computed before the first step by the initial trunk."""
        featured = [number for number, stage in enumerate(self.stages) if stage.features]
        if not featured:
            return
        if not all(stage.trunk_frozen for stage in self.stages[: featured[-1]]):
            raise ConfigError(f"recipe {self.name}: stages with features must come before the trunk learns")
        if self.reinforced:
            raise ConfigError(
                f"recipe {self.name}: features are of whole photos, but reinforced embeddings are of crops; name the "
                "photos that were reinforced"
            )
        if self.teach == "online" and self.teachers:
            raise ConfigError(
                f"recipe {self.name}: with features, online teachers would see the same whole photos in every epoch; "
                'set teach = "cached"'
            )
        if needing := self.loss.needing(Need.MASKED):
            raise ConfigError(f"recipe {self.name}: loss.{needing[0]} needs photos, not features")

    @property
    def teachers(self) -> tuple[TeacherConfig, ...]:
        """All teachers, [aligned] first. The first one has the classes, and the axes that a student is aligned to."""
        return tuple(teacher for _, teacher in self.named_teachers)

    @property
    def named_teachers(self) -> tuple[tuple[str, TeacherConfig], ...]:
        """All teachers in the same order, each with the key of its table."""
        tables = [(name, self.teacher_tables.get(name, ())) for name in TEACHER_TABLES]
        return tuple(
            (name, teacher) for name, table in tables for teacher in (table if isinstance(table, tuple) else (table,))
        )

    @property
    def reinforced(self) -> bool:
        """Whether the photos come with stored embeddings."""
        return any(source.kind == "reinforced" for source in self.photos)

    @property
    def starts_from_student(self) -> bool:
        """Whether the student starts from the weights of both towers of another model."""
        return bool(self.start or self.inherit)

    def student(self, base: PathLike) -> ModelConfig:
        """Return the architecture of the student: one that ships, or a .toml file next to the recipe.

        Args:
            base: the recipe's folder.

        Raises:
            ConfigError: there is neither, or the file doesn't describe a model.
        """
        beside = Path(base) / self.model
        return ModelConfig.load(beside if beside.suffix == ".toml" and beside.is_file() else self.model)

    def tokenizer(self, base: PathLike) -> tuple[bytes, Tokenizer]:
        """Return the content of the student's merges file, and its tokenizer.

        Args:
            base: the recipe's folder.

        Raises:
            PocketclipError: the file is missing or damaged, or has another number of merges than the student's tokens.
        """
        config = self.student(base)
        if config.tokenizer == "openai":
            merges = openai_merges()
            return merges, Tokenizer.load(merges, config.text.context_length, config.text.vocab_size - 514)
        if not self.merges:
            raise ConfigError(f"recipe {self.name}: merges is missing; {config.name} has a tokenizer of its own")
        merges = locate_weights(self.merges, base).read_bytes()
        tokenizer = Tokenizer.load(merges, config.text.context_length)
        if tokenizer.vocab_size != config.text.vocab_size:  # the end-of-text token must be the last id of both
            raise ConfigError(
                f"{self.merges} makes {tokenizer.vocab_size} tokens, but {config.name} has {config.text.vocab_size}"
            )
        return merges, tokenizer

    @property
    def about(self) -> dict[str, str]:
        """What a checkpoint says about its weights."""
        return {"name": self.name, "licence": self.licence, "provenance": self.provenance}

    @classmethod
    def load(cls, path: PathLike, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a recipe.

        Args:
            path: the TOML file.
            overrides: settings that replace the file's, by dotted name, such as `{"optim.lr": 3e-4}` or
                `{"photos[0].file": "captions.csv"}`.

        Raises:
            ConfigError: the file is missing or a setting is unknown, of the wrong type or out of range.
        """
        try:
            fields = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML ({error})") from error
        for name, value in (overrides or {}).items():
            _override(fields, name, value)
        return build(cls, fields, str(path))


def _override(fields: dict[str, Any], name: str, value: Any) -> None:
    """Set one setting of a recipe's tables.

    Args:
        fields: the tables.
        name: of the setting, such as `optim.lr` or `photos[0].file`.
        value: its new value.

    Raises:
        ConfigError: a part of the name isn't a table, or is a list that has no such item.
    """
    *tables, key = name.split(".")
    table: Any = fields
    for part in tables:
        part, bracket, number = part.removesuffix("]").partition("[")
        table = table.setdefault(part, {})
        if bracket:
            if not isinstance(table, list) or not (number.isdecimal() and int(number) < len(table)):
                count = len(table) if isinstance(table, list) else 0
                raise ConfigError(f"{name}: the recipe has {count} {part}, which are counted from 0")
            table = table[int(number)]
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: {part} isn't a table of single settings; set all of it, or {part}[0]")
    table[key] = value

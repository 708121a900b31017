"""A recipe: everything that decides how a student is trained, read from one TOML file and checked."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill.config.sources import PhotoSource, Reinforcement, TextSource
from distill.config.teachers import AlignedPairConfig, CheckpointConfig, OpenClipConfig
from distill.config.training import LossConfig, OptimConfig, Stage, Validation
from distill.losses import LOSSES, Need
from mobileclip.errors import ConfigError
from mobileclip.tables import build


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
    open_clip: tuple[OpenClipConfig, ...] = ()
    checkpoints: tuple[CheckpointConfig, ...] = ()
    """Teachers of our own format. All that are named teach together; the first of aligned, open_clip and checkpoints
    is the one whose classifier and axes count."""
    teach: Literal["cached", "online"] = "cached"
    """Teachers' vectors of each whole photo, computed once; or of the crop that the student sees, at every step."""
    texts: tuple[TextSource, ...] = ()
    init: str = ""
    """Weights of the image trunk to start from: a path relative to the recipe, or `package:relative/path`. By default,
    the trunk starts from random weights."""
    start: str = ""
    """A checkpoint of a whole student to start from, a file or a folder relative to the recipe. It has the student's
    shape, or fewer text layers."""
    inherit: str = ""
    """A checkpoint of a larger model to start from, a file or a folder relative to the recipe. The student gets a part
    of its layers, channels and attention heads, see `inherit_layers` (TinyCLIP, Wu et al. 2023). The towers must be of
    the same kind, with attention heads of the same width, and the tokenizer must be the same."""
    inherit_layers: Literal["every", "first"] = "every"
    """Which layers a shallower student inherits: `every` second of a model with twice as many, and so on, or the
    `first` ones."""
    blend: float = 0.0
    """With both `start` and `init`: the weight of `init`, 0 to 1, in the image trunk (WiSE-FT, Wortsman et al. 2022).
    It brings back what fine-tuning forgot and keeps most of what it learned, but the projection must learn again."""
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    reinforcement: Reinforcement = field(default_factory=Reinforcement)
    licence: str = ""
    """Of the trained weights; travels with them."""
    provenance: str = ""
    """What the weights were trained on, in one line; travels with them."""
    seed: int = 0
    save_every: int = 200
    """Steps between checkpoints."""
    keep_last: int = 2
    """Checkpoints kept."""
    validate: Validation | None = None
    """What the best student is chosen by."""

    def __post_init__(self) -> None:
        if not self.photos or not self.stages:
            raise ConfigError(f"recipe {self.name}: at least one [[photos]] and one [[stages]] are needed")
        if not self.taught_by and any(source.kind != "reinforced" for source in self.photos):
            raise ConfigError(f"recipe {self.name}: name a teacher, [aligned], [[open_clip]] or [[checkpoints]]")
        if not 0 <= self.blend <= 1 or (self.blend and not (self.start and self.init)):
            raise ConfigError(f"recipe {self.name}: blend lies in 0 … 1 and needs both start and init")
        if self.inherit and (self.start or self.init):
            raise ConfigError(f"recipe {self.name}: set either inherit, or start or init")
        needs_classes = self.aligned is not None and self.aligned.conse_weight and not self.aligned.class_names
        if needs_classes:
            raise ConfigError(f"recipe {self.name}: aligned.conse_weight needs aligned.class_names")
        self._check_losses()
        self._check_features()
        if self.save_every < 1 or self.keep_last < 1 or self.seed < 0:
            raise ConfigError(f"recipe {self.name}: save_every ≥ 1, keep_last ≥ 1 and seed ≥ 0 are needed")

    def _check_losses(self) -> None:
        if (needing := self.loss.needing(Need.POSTERIOR)) and not (self.aligned and self.aligned.class_names):
            raise ConfigError(
                f"recipe {self.name}: loss.{needing[0]} needs a teacher with class_names, under [aligned]"
            )
        for_texts = [loss for loss in LOSSES.values() if loss.texts]
        if any(stage.texts_only for stage in self.stages) and not any(
            loss in self.loss.active and (self.loss.bank or Need.REFERENCE not in loss.needs) for loss in for_texts
        ):
            names = [f"loss.{loss.name}" + " with a bank" * (Need.REFERENCE in loss.needs) for loss in for_texts]
            raise ConfigError(f"recipe {self.name}: texts_only needs {', or '.join(names)}")

    def _check_features(self) -> None:
        """Features are computed before the first step, by the trunk that the run begins with."""
        featured = [number for number, stage in enumerate(self.stages) if stage.features]
        if not featured:
            return
        if not all(stage.trunk_frozen for stage in self.stages[: featured[-1]]):
            raise ConfigError(f"recipe {self.name}: stages with features come before any in which the trunk learns")
        if self.teach == "online" or any(source.kind == "reinforced" for source in self.photos):
            raise ConfigError(
                f"recipe {self.name}: features are of photos on disk, neither reinforced nor taught online"
            )
        if needing := self.loss.needing(Need.MASKED):
            raise ConfigError(f"recipe {self.name}: loss.{needing[0]} needs photos, not features")

    @property
    def taught_by(self) -> tuple[AlignedPairConfig | OpenClipConfig | CheckpointConfig, ...]:
        """All teachers, in their order."""
        return (*((self.aligned,) if self.aligned else ()), *self.open_clip, *self.checkpoints)

    @property
    def starts_from_student(self) -> bool:
        """Whether the student starts from the weights of both towers of another model."""
        return bool(self.start or self.inherit)

    @property
    def about(self) -> dict[str, str]:
        """What travels with the weights."""
        return {"name": self.name, "licence": self.licence, "provenance": self.provenance}

    @property
    def basis(self) -> str:
        """All that a run must keep to from beginning to end; rates, limits and what is kept may change midway."""
        free = OptimConfig()
        optim = dataclasses.replace(
            self.optim, lr=free.lr, lr_text=free.lr_text, lr_trunk=free.lr_trunk, clip=free.clip, explode=free.explode
        )
        return repr(dataclasses.replace(self, optim=optim, save_every=1, keep_last=1, validate=None))

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
                if not isinstance(table, dict):
                    raise ConfigError(f"{name}: {part} is no table of single settings; set it as a whole")
            table[key] = value
        return build(cls, fields, str(path))

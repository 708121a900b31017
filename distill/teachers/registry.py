"""How each kind of teacher that a recipe names is constructed.

A new kind of teacher is a class with the `Teacher` protocol in a module of its own, settings with the decorator
`distill.config.teachers.teacher_table`, and a function with the decorator `constructor` that makes the one from the
other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from distill.config import TeacherConfig
from distill.data.corpus import Corpus
from distill.progress import ReportProgress
from distill.teachers.base import Teacher
from distill.teachers.cache import VectorCache
from mobileclip.errors import ConfigError

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class TeacherContext:
    """What a constructor can use besides the teacher's settings.

    Attributes:
        base: the folder that relative paths of weights start from, usually the recipe's.
        data: the data folder.
        cache: keeps embeddings between runs.
        corpus: the photos and texts to fit a teacher to, for settings with `needs_corpus`.
        seed: the recipe's seed.
        report: called with the progress of each long step.
        device: where large teachers run.
    """

    base: Path
    data: Path
    cache: VectorCache
    corpus: Corpus | None
    seed: int
    report: ReportProgress
    device: torch.device = _CPU


Constructor = Callable[[TeacherConfig, TeacherContext], Teacher]
_CONSTRUCTORS: dict[type[TeacherConfig], Constructor] = {}

Settings = TypeVar("Settings", bound=TeacherConfig)


def constructor(
    settings: type[Settings],
) -> Callable[[Callable[[Settings, TeacherContext], Teacher]], Callable[[Settings, TeacherContext], Teacher]]:
    """Register a function that constructs the teacher with these settings."""

    def add(construct: Callable[[Settings, TeacherContext], Teacher]) -> Callable[[Settings, TeacherContext], Teacher]:
        def checked(config: TeacherConfig, context: TeacherContext) -> Teacher:
            assert isinstance(config, settings)
            return construct(config, context)

        _CONSTRUCTORS[settings] = checked
        return construct

    return add


def construct_teacher(config: TeacherConfig, context: TeacherContext) -> Teacher:
    """Construct the teacher with these settings.

    Raises:
        ConfigError: no constructor is registered for settings of this type.
        PocketclipError: weights are missing or damaged.
    """
    if type(config) not in _CONSTRUCTORS:
        raise ConfigError(f"no teacher has settings of type {type(config).__name__}")
    return _CONSTRUCTORS[type(config)](config, context)

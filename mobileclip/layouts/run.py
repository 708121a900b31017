"""The checkpoints that a training run resumes from: `checkpoints/step-….pt` in its folder. They hold a student too."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mobileclip.towers import ModelConfig

STUDENT = "student"


def describe_student(config: ModelConfig, merges: bytes, about: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry `student` of a run's checkpoint, with which the checkpoint can be used without the run.

    Args:
        config: the student's architecture.
        merges: the bytes of its merges file.
        about: `name`, `licence` and `provenance` of the weights.
    """
    merges_bytes = (
        torch.frombuffer(bytearray(merges), dtype=torch.uint8) if merges else torch.empty(0, dtype=torch.uint8)
    )
    return {"config": json.dumps(dataclasses.asdict(config)), "merges": merges_bytes, "about": dict(about)}


def matches(state: Mapping[str, Any]) -> bool:
    """Whether this is the content of a run's checkpoint."""
    return {STUDENT, "task", "average"} <= state.keys()


def read_student(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, str], bytes]:
    """Return the student's weights, averaged if the run averages them; their metadata as in our own files; and merges.

    Args:
        state: a run's checkpoint, see `matches`.
    """
    student, average = state[STUDENT], state["average"]
    prefix = "model."
    weights = average.get("values") or {
        name.removeprefix(prefix): value for name, value in state["task"].items() if name.startswith(prefix)
    }
    metadata = {"pocketclip": student["config"], **student["about"]}
    return weights, metadata, bytes(student["merges"].tolist())

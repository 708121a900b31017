"""A student's weights on disk: one safetensors file that carries its configuration, its merges beside it."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mobileclip.errors import PocketclipError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, ModelConfig

WEIGHTS = "model.safetensors"
MERGES = "merges.txt.gz"


class CheckpointError(PocketclipError):
    """Weights that are missing, damaged or of another model."""


def read_torch(path: Path) -> dict[str, Any]:
    """Read a dictionary that torch saved, tensors and plain values only; nothing in the file is executed.

    Raises:
        CheckpointError: it cannot be read, is damaged, or holds anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        first = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{path}: damaged, or not a file of weights ({first})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a file of weights (it holds a {type(state).__name__})")
    return state


@dataclass(frozen=True)
class Checkpoint:
    """A student as it lies on disk.

    Attributes:
        model: float32 weights, eval mode.
        tokenizer: its own.
        merges: the bytes of its merges file.
        about: `name`, `licence` and `provenance` of the weights.
    """

    model: CLIP
    tokenizer: Tokenizer
    merges: bytes
    about: Mapping[str, str]


def save_checkpoint(
    model: CLIP,
    merges: bytes,
    folder: Path,
    about: Mapping[str, str],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write `model.safetensors` and `merges.txt.gz` into `folder`, each whole or not at all.

    Args:
        model: the student.
        merges: the bytes of its merges file.
        folder: made when missing.
        about: `name`, `licence` and `provenance` of the weights, which travel in the file.
        dtype: of the weights in the file; counters keep their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    config = json.dumps(dataclasses.asdict(model.config))
    partial = folder / f".{WEIGHTS}.{os.getpid()}.part"
    save_file(state, partial, metadata={"format": "pt", "pocketclip": config, **about})
    partial.replace(folder / WEIGHTS)
    partial = folder / f".{MERGES}.{os.getpid()}.part"
    partial.write_bytes(merges)
    partial.replace(folder / MERGES)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a student: a folder, or the safetensors file in it.

    Raises:
        CheckpointError: a file is missing, damaged, or the weights do not fit the configuration they carry.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{path}: no checkpoint here ({WEIGHTS} is missing)")
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, not a dictionary
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged or not a safetensors file ({error})") from error
    if "pocketclip" not in metadata:
        raise CheckpointError(f"{file}: not written by pocketclip (no configuration inside)")
    config = ModelConfig.from_dict(json.loads(metadata["pocketclip"]))
    model = CLIP(config)
    try:
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{file}: {' '.join(str(error).split())[:300]}") from error
    beside = file.with_name(MERGES)
    if not beside.is_file():
        raise CheckpointError(f"{beside}: missing; it belongs beside {file.name}")
    merges = beside.read_bytes()
    about = {key: metadata.get(key, "") for key in ("name", "licence", "provenance")}
    return Checkpoint(model.eval(), Tokenizer.load(merges, config.text.context_length), merges, about)

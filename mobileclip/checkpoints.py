"""Weights on disk: our own format, one safetensors file that carries its configuration, and those of others.

Ours has its merges beside it. Files of OpenCLIP, OpenAI and Apple are read through the tables in `layouts/`.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mobileclip.checkpoint_files import MERGES, OPENCLIP_CONFIG, OPENCLIP_WEIGHTS, WEIGHTS
from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike, atomic_write, write_bytes
from mobileclip.layouts import apple, openclip
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, ModelConfig, model_names


class CheckpointError(PocketclipError):
    """Weights that are missing, damaged or of another model."""


def read_torch(path: PathLike) -> dict[str, Any]:
    """Read a dictionary that torch saved, tensors and plain values only; nothing in the file is executed.

    Raises:
        CheckpointError: it cannot be read, is damaged, or holds anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path}: a TorchScript archive, a program: save its state_dict()") from error
        first = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{path}: damaged, or not a file of weights ({first})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a file of weights (it holds a {type(state).__name__})")
    return state


@dataclass(frozen=True)
class Checkpoint:
    """A model as it lies on disk.

    Attributes:
        model: float32 weights, eval mode.
        tokenizer: its own.
        merges: the bytes of its merges file.
        about: `name`, `licence` and `provenance` of the weights.
        missing: weights that the file lacked, where it was not read strictly.
        unexpected: weights of the file that the model has no place for.
    """

    model: CLIP
    tokenizer: Tokenizer
    merges: bytes
    about: Mapping[str, str]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()


def save_checkpoint(
    model: CLIP,
    merges: bytes,
    folder: PathLike,
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

    Raises:
        CheckpointError: the model was reparameterized.
    """
    if model.reparameterized:
        raise CheckpointError("a reparameterized model cannot be saved: it could not be trained on; save the original")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    config = json.dumps(dataclasses.asdict(model.config))
    with atomic_write(folder / WEIGHTS) as part:
        save_file(state, part, metadata={"format": "pt", "pocketclip": config, **about})
    write_bytes(folder / MERGES, merges)


def save_openclip(checkpoint: Checkpoint, folder: PathLike) -> None:
    """Write a folder that `open_clip.create_model("local-dir:FOLDER")` loads, with float32 weights.

    A model with merges of its own needs its own tokenizer: `Tokenizer.load` of the `merges.txt.gz` beside it.

    Raises:
        ConfigError: OpenCLIP has no place for all that the model has.
    """
    weights = openclip.from_ours(checkpoint.model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / OPENCLIP_WEIGHTS[0]) as part:
        save_file(weights, part, metadata={"format": "pt", **checkpoint.about})
    write_bytes(folder / MERGES, checkpoint.merges)
    write_bytes(folder / OPENCLIP_CONFIG, json.dumps(openclip.describe(checkpoint.model.config), indent=1).encode())


def load_checkpoint(path: PathLike, model: PathLike | ModelConfig | None = None, *, strict: bool = True) -> Checkpoint:
    """Read weights of this project, of OpenCLIP or OpenAI, or of Apple's MobileCLIP; which, their keys tell.

    Args:
        path: a file (`.safetensors`, or `.pt` and the like with tensors alone), or a folder: ours, or one with
            `open_clip_config.json`.
        model: the configuration, where the file does not carry it and its shapes fit several.
        strict: refuse weights that lack something or have something left over; otherwise both are listed in the
            result, and what is missing keeps its fresh values.

    Raises:
        CheckpointError: a file is missing, damaged, or the weights do not fit the configuration.
        ConfigError: there is no such model.
    """
    path = Path(path).expanduser()
    file, described = _find(path)
    state, metadata = _read(file)
    if "pocketclip" in metadata:
        config = ModelConfig.from_dict(json.loads(metadata["pocketclip"]))
    elif model is not None:
        config = model if isinstance(model, ModelConfig) else ModelConfig.load(model)
    elif described is not None:
        config = openclip.read_config(described, path.resolve().name)
    else:
        config = recognize(state, file)
    made, missing, unexpected = _fill(config, state, file)
    if strict and (missing or unexpected):
        lists = f"missing: {_some(missing)}; left over: {_some(unexpected)}"
        raise CheckpointError(f"{file}: not the weights of {config.name} ({lists})")
    merges = _merges(config, file)
    about = {key: metadata.get(key, "") for key in ("name", "licence", "provenance")}
    tokenizer = Tokenizer.load(merges, config.text.context_length, max_merges=config.text.vocab_size - 514)
    return Checkpoint(made.eval(), tokenizer, merges, about, missing, unexpected)


def _fill(config: ModelConfig, state: dict[str, Tensor], file: Path) -> tuple[CLIP, tuple[str, ...], tuple[str, ...]]:
    """Build a model with these weights; returns it with the names of what is missing and what is left over."""
    # Drawing hundreds of millions of random numbers, only to overwrite them, would take most of the time.
    with torch.device("meta"):
        model = CLIP(config)
    layout = next((layout for layout in (openclip, apple) if layout.matches(state)), None)
    ours = layout.to_ours(state, model) if layout else state
    ours = {name: value.float() if value.is_floating_point() else value for name, value in ours.items()}
    counters = [name for name in model.state_dict() if name.endswith("num_batches_tracked")]
    # Counters of BatchNorm are no weights, and some files lack them.
    ours = {name: torch.zeros((), dtype=torch.long) for name in counters} | ours
    missing = tuple(name for name in model.state_dict() if name not in ours)
    unexpected = tuple(name for name in ours if name not in model.state_dict())
    if missing:
        model = CLIP(config)
    try:
        model.load_state_dict(ours, strict=False, assign=not missing)
    except RuntimeError as error:
        raise CheckpointError(f"{file}: {' '.join(str(error).split())[:300]}") from error
    return model, missing, unexpected


def recognize(state: Mapping[str, Tensor], file: PathLike) -> ModelConfig:
    """Find the shipped configuration that weights without a configuration belong to, by counting them.

    Raises:
        CheckpointError: none fits, or several that would give different vectors.
    """
    counts = {"image": 0, "text": 0}
    for name, value in state.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked", "places")) and value.ndim:
            counts["image" if name.startswith(("visual.", "image")) else "text"] += value.numel()
    fitting = []
    for name in model_names():
        config = ModelConfig.load(name)
        # Apple's projections have no bias, timm's classifiers one of zeros.
        biases = (0, config.embed_dim) if config.image.bias else (0,)
        if config.parameters["text"] == counts["text"] and counts["image"] in {
            config.parameters["image"] - bias for bias in biases
        }:
            fitting.append(config)
    if openclip.from_openai(state):
        fitting = [config for config in fitting if config.text.activation == "quick_gelu"]
    nameless = [dataclasses.replace(config, name="") for config in fitting]
    if fitting and all(config == nameless[0] for config in nameless):
        return fitting[0]
    if fitting:
        names = ", ".join(config.name for config in fitting)
        raise CheckpointError(f"{file}: these weights fit several models: say which of {names}")
    raise CheckpointError(f"{file}: weights of no known model; give its configuration, a .toml")


def _find(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the file of weights and, where one lies beside it, OpenCLIP's description."""
    if not path.is_dir():
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file or folder")
        return path, None
    config = path / OPENCLIP_CONFIG
    names = OPENCLIP_WEIGHTS if config.is_file() else (WEIGHTS,)
    file = next((path / name for name in names if (path / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{path}: no checkpoint here ({names[0]} is missing)")
    if not config.is_file():
        return file, None
    try:
        described = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config}: cannot be read ({error})") from error
    return file, described


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors by name, and the metadata of a safetensors file."""
    if file.suffix != ".safetensors":
        state = read_torch(file)
        while isinstance(inner := state.get("state_dict", state.get("model")), dict):
            state = inner
        tensors = {name.removeprefix("module."): v for name, v in state.items() if isinstance(v, Tensor)}
        return tensors, {}
    try:
        with safe_open(file, framework="pt") as stored:
            names = stored.keys()
            return {name: stored.get_tensor(name) for name in names}, stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged or not a safetensors file ({error})") from error


def _merges(config: ModelConfig, file: Path) -> bytes:
    if config.tokenizer == "openai":
        import open_clip

        return (Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    beside = file.with_name(MERGES)
    if not beside.is_file():
        raise CheckpointError(f"{beside}: missing; it belongs beside {file.name}")
    return beside.read_bytes()


def _some(names: Sequence[str]) -> str:
    """List names, the first few of many."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "nothing"

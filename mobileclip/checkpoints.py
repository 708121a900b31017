"""Weights on disk: our own format, and those of OpenCLIP, OpenAI and Apple.

Ours is a safetensors file that contains the model's configuration, with the tokenizer's merges next to it. The others
are read through the tables in `layouts/`.
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

from mobileclip.checkpoint_files import MERGES, OPENCLIP_CONFIG, OPENCLIP_WEIGHTS, WEIGHTS, find_weights
from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike, atomic_write, write_bytes
from mobileclip.layouts import apple, openclip, run
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, ModelConfig, model_names


class CheckpointError(PocketclipError):
    """Weights that are missing, damaged or from another model."""


def read_torch(path: PathLike) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values that torch saved. Nothing in the file is executed.

    Raises:
        CheckpointError: the file can't be read, is damaged, or holds anything else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(f"{path}: a TorchScript archive is a program; save its state_dict()") from error
        first = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{path}: damaged, or not a weights file ({first})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a weights file (it holds a {type(state).__name__})")
    return state


@dataclass(frozen=True)
class Checkpoint:
    """A model with its tokenizer, as read from disk.

    Attributes:
        model: float32 weights, eval mode.
        tokenizer: the model's tokenizer.
        merges: the bytes of its merges file.
        about: `name`, `licence` and `provenance` of the weights.
        missing: weights that the file lacked, if it wasn't read strictly.
        unexpected: weights in the file that the model doesn't have.
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
        folder: created if missing.
        about: `name`, `licence` and `provenance` of the weights, stored in the file.
        dtype: of the weights in the file. Counters keep theirs, and the logit scale and BatchNorm's statistics are
            float32: float16 has no variance above 65,504, and rounds the logarithm of 100 up.

    Raises:
        CheckpointError: the model was reparameterized.
    """
    if model.reparameterized:
        raise CheckpointError("a reparameterized model can't be saved, because it can't be trained; save the original")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (value.to(dtype) if _is_rounded(name, value) else value).contiguous()
        for name, value in model.state_dict().items()
    }
    config = json.dumps(dataclasses.asdict(model.config))
    with atomic_write(folder / WEIGHTS) as part:
        save_file(state, part, metadata={"format": "pt", "pocketclip": config, **about})
    write_bytes(folder / MERGES, merges)


def _is_rounded(name: str, value: Tensor) -> bool:
    """Return whether `save_checkpoint` stores a value in its `dtype`."""
    return value.is_floating_point() and value.ndim > 0 and not name.endswith(("running_mean", "running_var"))


def save_openclip(
    checkpoint: Checkpoint, folder: PathLike, tokenizer_settings: Mapping[str, Any] | None = None
) -> None:
    """Write a folder that `open_clip.create_model("local-dir:FOLDER")` loads, with float32 weights.

    OpenCLIP builds the model first and must return the same vectors; otherwise nothing is written.

    A model with its own merges also needs its own tokenizer: load the `merges.txt.gz` in the folder with
    `Tokenizer.load`. `pocketclip publish` also writes tokenizer files that OpenCLIP reads.

    Args:
        checkpoint: the model.
        folder: created if missing.
        tokenizer_settings: further settings of `text_cfg`, which tell OpenCLIP what tokenizer to use.

    Raises:
        ConfigError: the model has parts that OpenCLIP doesn't support.
    """
    config, weights = openclip.from_ours(checkpoint.model)
    config["model_cfg"]["text_cfg"] |= tokenizer_settings or {}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / OPENCLIP_WEIGHTS[0]) as part:
        save_file(weights, part, metadata={"format": "pt", **checkpoint.about})
    write_bytes(folder / MERGES, checkpoint.merges)
    write_bytes(folder / OPENCLIP_CONFIG, json.dumps(config, indent=1).encode())


def load_checkpoint(path: PathLike, model: PathLike | ModelConfig | None = None, *, strict: bool = True) -> Checkpoint:
    """Read weights of this project, OpenCLIP, OpenAI or Apple's MobileCLIP, recognized by their keys.

    Args:
        path: a file (`.safetensors`, or `.pt` and similar with nothing but tensors), or a folder: ours, one with
            `open_clip_config.json`, or a training run's. Any checkpoint of a run (`checkpoints/step-….pt`) holds a
            student; the run's folder stands for its student, or for its newest checkpoint if that is newer.
        model: the configuration. Needed only if the file doesn't contain it and its shapes fit several models.
        strict: refuse weights with missing or unexpected entries. Otherwise both are listed in the result, and missing
            weights stay freshly initialized.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights don't fit the configuration.
        ConfigError: there is no such model.
    """
    path = Path(path).expanduser()
    file, openclip_config = _find(path)
    state, metadata, merges = _read(file)
    if "pocketclip" in metadata:
        config = ModelConfig.from_dict(json.loads(metadata["pocketclip"]))
    elif model is not None:
        config = model if isinstance(model, ModelConfig) else ModelConfig.load(model)
    elif openclip_config is not None:
        config = openclip.read_config(openclip_config, path.resolve().name)
    else:
        config = recognize(state, file)
    built, missing, unexpected = _build(config, state, file)
    if strict and (missing or unexpected):
        lists = f"missing: {_some(missing)}; unexpected: {_some(unexpected)}"
        raise CheckpointError(f"{file}: not the weights of {config.name} ({lists})")
    merges = merges or _merges(config, file)
    about = {key: metadata.get(key, "") for key in ("name", "licence", "provenance")}
    tokenizer = Tokenizer.load(merges, config.text.context_length, max_merges=config.text.vocab_size - 514)
    return Checkpoint(built.eval(), tokenizer, merges, about, missing, unexpected)


def _build(config: ModelConfig, state: dict[str, Tensor], file: Path) -> tuple[CLIP, tuple[str, ...], tuple[str, ...]]:
    """Build a model with these weights; return it with the names of missing and of unexpected weights."""
    # Without initialization: random numbers that are overwritten at once would take most of the time.
    with torch.device("meta"):
        model = CLIP(config)
    layout = next((layout for layout in (openclip, apple) if layout.matches(state)), None)
    ours = layout.to_ours(state, model) if layout else state
    ours = {name: value.float() if value.is_floating_point() else value for name, value in ours.items()}
    counters = [name for name in model.state_dict() if name.endswith("num_batches_tracked")]
    # BatchNorm's counters aren't weights, and some files lack them.
    ours = {name: torch.zeros((), dtype=torch.long) for name in counters} | ours
    missing = tuple(name for name in model.state_dict() if name not in ours)
    unexpected = tuple(name for name in ours if name not in model.state_dict())
    # Tables that timm computes rather than stores, such as LeViT's positions, are empty on the meta device.
    computed = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
    if missing or computed:
        model = CLIP(config)
    try:
        model.load_state_dict(ours, strict=False, assign=not (missing or computed))
    except RuntimeError as error:
        raise CheckpointError(f"{file}: {' '.join(str(error).split())[:300]}") from error
    return model, missing, unexpected


def recognize(state: Mapping[str, Tensor], file: PathLike) -> ModelConfig:
    """Find the shipped configuration that weights without a configuration belong to, by their number.

    Raises:
        CheckpointError: none fits, or several fit that would return different vectors.
    """
    counts = {"image": 0, "text": 0}
    for name, value in state.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked", "places")) and value.ndim:
            counts["image" if name.startswith(("visual.", "image")) else "text"] += value.numel()
    fitting = []
    for name in model_names():
        config = ModelConfig.load(name)
        # Apple's projections have no bias; those read as timm's classifiers have a bias of zeros.
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
        raise CheckpointError(f"{file}: these weights fit several models; choose one of {names}")
    raise CheckpointError(f"{file}: no known model has these weights; pass its configuration, a .toml")


def _find(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the weights file, and the content of the `open_clip_config.json` next to it if there is one."""
    if not path.is_dir():
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file or folder")
        return path, None
    config, file = path / OPENCLIP_CONFIG, find_weights(path)
    if file is None:
        missing = OPENCLIP_WEIGHTS[0] if config.is_file() else WEIGHTS
        raise CheckpointError(f"{path}: no checkpoint here ({missing} is missing)")
    if not config.is_file():
        return file, None
    try:
        return file, json.loads(config.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config}: cannot be read ({error})") from error


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str], bytes]:
    """Return the tensors by name; the metadata of a safetensors file or a run's checkpoint; and the latter's merges."""
    if file.suffix != ".safetensors":
        state = read_torch(file)
        if run.matches(state):
            return run.read_student(state)
        while isinstance(inner := state.get("state_dict", state.get("model")), dict):
            state = inner
        tensors = {name.removeprefix("module."): v for name, v in state.items() if isinstance(v, Tensor)}
        return tensors, {}, b""
    try:
        with safe_open(file, framework="pt") as stored:
            names = stored.keys()
            return {name: stored.get_tensor(name) for name in names}, stored.metadata() or {}, b""
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: damaged or not a safetensors file ({error})") from error


def openai_merges() -> bytes:
    """Return OpenAI's merges file, which comes with open_clip. CLIP uses the first 48,894 of its pairs."""
    import open_clip

    return (Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()


def _merges(config: ModelConfig, file: Path) -> bytes:
    if config.tokenizer == "openai":
        return openai_merges()
    merges = file.with_name(MERGES)
    if not merges.is_file():
        raise CheckpointError(f"{merges}: missing; it belongs next to {file.name}")
    return merges.read_bytes()


def _some(names: Sequence[str]) -> str:
    """Join the first few names."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "nothing"

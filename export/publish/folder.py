"""Write everything that belongs into a repository of the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from export.formats import ExportError
from export.publish.card import model_card
from export.publish.tokenizer import openclip_settings, tokenizer_files
from mobileclip.checkpoint_files import WEIGHTS
from mobileclip.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, save_openclip
from mobileclip.errors import ConfigError
from mobileclip.files import PathLike, atomic_write, new_folder, write_bytes
from mobileclip.layouts import transformers

CARD = "README.md"


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes:
        folder: the folder.
        openclip: why OpenCLIP can't load it; empty if it can.
        transformers: why transformers can't load it; empty if it can.
    """

    folder: Path
    openclip: str
    transformers: str


def publish_checkpoint(
    checkpoint: PathLike,
    folder: PathLike,
    *,
    model: str | None = None,
    name: str = "",
    repository: str = "",
    license_text: str = "",
    provenance: str = "",
) -> Published:
    """Write a checkpoint as a repository for the Hugging Face hub.

    OpenCLIP and transformers' `CLIPModel` each get the files that they load with the same vectors, if they support the
    model. Otherwise the folder holds our own format, and the model card says so.

    Args:
        checkpoint: see `load_checkpoint`.
        folder: missing or empty.
        model: configuration of a checkpoint that doesn't carry one.
        name: of the model; by default the checkpoint's, or the folder's.
        repository: `USER/NAME` on the hub; by default the model's name.
        license_text: of the weights; by default the checkpoint's.
        provenance: where the weights come from; by default the checkpoint's.

    Raises:
        ExportError: the folder isn't empty, or nothing states the license.
        CheckpointError: the checkpoint can't be read.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} isn't empty: give a new folder")
    source = load_checkpoint(checkpoint, model)
    about = {
        "name": name or source.about["name"] or folder.resolve().name,
        "licence": license_text or source.about["licence"],
        "provenance": provenance or source.about["provenance"],
    }
    if not about["licence"]:
        raise ExportError("the checkpoint doesn't state a license: give --license")
    source = dataclasses.replace(source, about=about)
    repository = repository or about["name"]
    details = Path(checkpoint).expanduser() / "MODEL_CARD.md"
    with new_folder(folder) as part:
        refused = _write_openclip(source, part, repository)
        without_transformers = refused or _write_transformers(source, part)
        card = model_card(
            source, repository, refused, without_transformers, details.read_text("utf-8") if details.is_file() else ""
        )
        write_bytes(part / CARD, card.encode())
    return Published(folder, refused, without_transformers)


def _write_openclip(source: Checkpoint, folder: Path, repository: str) -> str:
    """Write OpenCLIP's files, or ours if OpenCLIP doesn't support the model; return why it doesn't."""
    config = source.model.config
    own = config.tokenizer == "own"
    causal = config.text.causal
    try:
        save_openclip(source, folder, openclip_settings(repository, causal=causal) if own else None)
    except ConfigError as error:
        save_checkpoint(source.model, source.merges, folder, source.about, torch.float32)
        return str(error)
    for name, data in tokenizer_files(source.tokenizer, causal=causal).items():
        write_bytes(folder / name, data)
    return ""


def _write_transformers(source: Checkpoint, folder: Path) -> str:
    """Write the files of a `CLIPModel`, or return why that isn't possible."""
    try:
        config, weights = transformers.from_ours(source.model)
    except ConfigError as error:
        return str(error)
    with atomic_write(folder / WEIGHTS) as part:
        save_file(weights, part, metadata={"format": "pt"})
    for name, fields in (("config.json", config), ("preprocessor_config.json", _preprocessor(source))):
        write_bytes(folder / name, json.dumps(fields, indent=1).encode())
    return ""


def _preprocessor(source: Checkpoint) -> dict[str, Any]:
    pixels = source.model.config.pixels
    squash = pixels.resize == "squash"
    side = {"height": pixels.size, "width": pixels.size}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": side if squash else {"shortest_edge": pixels.size},
        "resample": {"bilinear": 2, "bicubic": 3}[pixels.interpolation],
        "do_center_crop": not squash,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(pixels.mean),
        "image_std": list(pixels.std),
        "do_convert_rgb": True,
    }

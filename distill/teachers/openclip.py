"""An open_clip model as a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distill.config import OpenClipConfig
from distill.data.tars import PhotoRef
from distill.files import locate_weights
from distill.teachers.base import BATCH, encode_files, stamp
from distill.teachers.class_names import class_prompts
from distill.teachers.registry import TeacherContext, constructor
from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike
from mobileclip.vectors import Floats

FOLDER = "local-dir:"
"""How open_clip marks a folder with weights and their `open_clip_config.json`."""


class OpenClipTeacher:
    """A frozen open_clip model with its own pixels, tokens and logit scale.

    Args:
        config: the model's name and the file with its weights, or a `local-dir:` folder.
        base: the folder that relative paths of weights start from; see `distill.files.locate_weights`.
        data: the data folder, for the names of classes.
        device: where the model runs.

    Raises:
        PocketclipError: open_clip doesn't know the model or can't load the weights, or a tag is needed.
    """

    def __init__(
        self, config: OpenClipConfig, base: PathLike = ".", data: PathLike = ".", device: torch.device | None = None
    ) -> None:
        import open_clip

        name, weights = _on_disk(config, base)
        try:
            self.model, _, self.transform = open_clip.create_model_and_transforms(
                name,
                pretrained=str(weights) if weights.is_file() else None,
                weights_only=True,
                **published_settings(config),
            )
            self.tokenizer = open_clip.get_tokenizer(name)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise PocketclipError(f"open_clip cannot load {config.model} {config.pretrained}: {error}") from error
        self.device = device or torch.device("cpu")
        self.model.eval().requires_grad_(False).to(self.device)
        self.config, self.data = config, data
        self.identity = f"open_clip|{config.model}|{config.pretrained}|{_stamp(weights)}|{self.transform}"
        self.logit_scale = config.logit_scale or float(self.model.logit_scale.exp())
        size = self.model.visual.image_size
        self.px = min(size) if isinstance(size, tuple) else int(size)

    def encode_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return unit vectors (n, d) float32."""
        return encode_files(photos, self.encode_pictures, 0)

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Floats:
        """Return unit vectors (n, d) float32, by the model's own transform."""
        pixels = torch.stack([self.transform(picture) for picture in pictures]).to(self.device)
        vectors: Floats = self.model.encode_image(pixels, normalize=True).float().cpu().numpy()
        return vectors

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors (n, d) float32."""
        rows = []
        for start in range(0, len(texts), BATCH):
            tokens = self.tokenizer(list(texts[start : start + BATCH])).to(self.device)
            rows.append(self.model.encode_text(tokens, normalize=True).float().cpu().numpy())
        return np.concatenate(rows)

    def class_embeddings(self) -> Floats | None:
        """Return an embedding of each class's name (classes, d); None without `class_names`."""
        names = self.config.class_names
        return self.encode_texts(class_prompts(names, self.data)) if names else None


def published_settings(config: OpenClipConfig) -> dict[str, Any]:
    """Return the pixels and the activation that open_clip lists for a model's weights.

    open_clip itself applies them only to weights that it downloads. With a file, MobileCLIP and SigLIP would get CLIP's
    pixels, and OpenAI's models another activation than they were trained with.

    Returns:
        Arguments of `open_clip.create_model_and_transforms`; empty for a folder, which has a configuration, and for a
        model of which open_clip lists no weights.

    Raises:
        PocketclipError: there is no such tag, or there is no tag and the model's weights differ.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    name = config.model.replace("/", "-")
    tags = list_pretrained_tags_by_model(name)
    if config.tag and config.tag not in tags:
        listed = ", ".join(tags) or "none"
        raise PocketclipError(
            f"open_clip teacher {config.model}: no weights with the tag {config.tag!r}, only {listed}"
        )
    variants: dict[str, list[str]] = {}
    settings: dict[str, Any] = {}
    for tag in [config.tag] if config.tag else tags:
        entry = get_pretrained_cfg(name, tag)
        settings = {
            "image_mean": entry.get("mean"),
            "image_std": entry.get("std"),
            "image_interpolation": entry.get("interpolation"),
            "image_resize_mode": entry.get("resize_mode"),
            "force_quick_gelu": bool(entry.get("quick_gelu")),
        }
        variants.setdefault(str(settings), []).append(tag)
    if len(variants) > 1:
        examples = ", ".join(f"`{same[0]}`" for same in variants.values())
        raise PocketclipError(
            f"open_clip teacher {config.model}: its weights differ in pixels or activation; set `tag` to that of "
            f"{config.pretrained}, such as {examples}"
        )
    return settings


@constructor(OpenClipConfig)
def _open_clip_teacher(config: OpenClipConfig, context: TeacherContext) -> OpenClipTeacher:
    return OpenClipTeacher(config, context.base, context.data, context.device)


def _on_disk(config: OpenClipConfig, base: PathLike) -> tuple[str, Path]:
    """Return the model's name for open_clip, and the file or folder of its weights.

    Raises:
        PocketclipError: it doesn't exist. A tag or the name of a hub would make open_clip download.
    """
    if config.model.startswith(FOLDER):
        folder = locate_weights(config.model.removeprefix(FOLDER), base)
        return f"{FOLDER}{folder}", folder
    try:
        weights = locate_weights(config.pretrained, base)
    except PocketclipError:
        weights = Path(base)
    if not weights.is_file():
        raise PocketclipError(
            f"open_clip teacher {config.model}: `pretrained` must be a file of weights, not {config.pretrained!r}; "
            "training downloads nothing, so save open_clip's weights to a file first"
        )
    return config.model, weights


def _stamp(weights: Path) -> str:
    """Return the stamp of a file, or of all files of a folder."""
    if weights.is_file():
        return stamp(weights)
    return " ".join(stamp(file) for file in sorted(weights.iterdir()) if file.is_file())

"""A checkpoint, such as a student, as a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from distill.config import CheckpointConfig
from distill.data.tars import PhotoRef
from distill.files import locate
from distill.teachers.base import BATCH, encode_files, stamp
from distill.teachers.registry import TeacherContext, constructor
from mobileclip.checkpoint_files import WEIGHTS, find_in_run
from mobileclip.checkpoints import load_checkpoint
from mobileclip.files import PathLike
from mobileclip.vectors import Floats


class CheckpointTeacher:
    """A frozen checkpoint with its own pixels, tokens and logit scale.

    Args:
        config: names the checkpoint.
        base: the folder that a relative path starts from.

    Raises:
        CheckpointError: the weights are missing or damaged, or belong to another model.
    """

    def __init__(self, config: CheckpointConfig, base: PathLike) -> None:
        path = locate(config.path, base)
        checkpoint = load_checkpoint(path)
        self.model, self.tokenizer = checkpoint.model.eval().requires_grad_(False), checkpoint.tokenizer
        self.recipe = self.model.config.pixels
        self.px = self.recipe.size
        self.logit_scale = config.logit_scale or float(self.model.logit_scale.exp())
        path = path if path.is_file() or (path / WEIGHTS).is_file() else find_in_run(path) or path
        files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
        self.identity = f"checkpoint|{self.model.config}|{[(file.name, stamp(file)) for file in files]}"

    def encode_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return unit vectors (n, d) float32."""
        return encode_files(photos, self.encode_pictures, 2 * self.px)

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Floats:
        """Return unit vectors (n, d) float32, by the checkpoint's own pixel recipe."""
        pixels = torch.from_numpy(np.stack([self.recipe(picture) for picture in pictures]))
        vectors: Floats = self.model.encode_image(pixels).numpy()
        return vectors

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors (n, d) float32."""
        tokens = torch.from_numpy(self.tokenizer(list(texts)))
        if self.model.config.text.causal:  # it doesn't see the padding at the end
            tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        return np.concatenate([self.model.encode_text(part).numpy() for part in tokens.split(BATCH)])


@constructor(CheckpointConfig)
def _checkpoint_teacher(config: CheckpointConfig, context: TeacherContext) -> CheckpointTeacher:
    return CheckpointTeacher(config, context.base)

"""A checkpoint, such as a student, as a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from distill.config import CheckpointConfig
from distill.data.tars import PhotoRef
from distill.files import locate_weights
from distill.teachers.base import BATCH, encode_files, stamp
from distill.teachers.class_names import class_prompts
from distill.teachers.registry import TeacherContext, constructor
from mobileclip.checkpoint_files import MERGES, OPENCLIP_CONFIG, find_weights
from mobileclip.checkpoints import load_checkpoint
from mobileclip.files import PathLike
from mobileclip.vectors import Floats


class CheckpointTeacher:
    """A frozen checkpoint with its own pixels, tokens and logit scale.

    Args:
        config: names the checkpoint.
        base: the folder that a relative path starts from; see `distill.files.locate_weights`.
        data: the data folder, for the names of classes.
        device: where the model runs.

    Raises:
        CheckpointError: the weights are missing or damaged, or belong to another model.
    """

    def __init__(
        self, config: CheckpointConfig, base: PathLike, data: PathLike = ".", device: torch.device | None = None
    ) -> None:
        path = locate_weights(config.path, base)
        checkpoint = load_checkpoint(path)
        self.device = device or torch.device("cpu")
        self.model, self.tokenizer = checkpoint.model.eval().requires_grad_(False), checkpoint.tokenizer
        self.model.to(self.device)
        self.config, self.data = config, data
        self.recipe = self.model.config.pixels
        self.px = self.recipe.size
        self.logit_scale = config.logit_scale or float(self.model.logit_scale.exp())
        weights = path if path.is_file() else find_weights(path) or path
        files = [weights, *(weights.with_name(name) for name in (MERGES, OPENCLIP_CONFIG))]
        stamps = [(file.name, stamp(file)) for file in files if file.is_file()]
        self.identity = f"checkpoint|{self.model.config}|{stamps}"

    def encode_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return unit vectors (n, d) float32."""
        return encode_files(photos, self.encode_pictures, 2 * self.px)

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Floats:
        """Return unit vectors (n, d) float32, by the checkpoint's own pixel recipe."""
        pixels = torch.from_numpy(np.stack([self.recipe(picture) for picture in pictures]))
        vectors: Floats = self.model.encode_image(pixels.to(self.device)).cpu().numpy()
        return vectors

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors (n, d) float32."""
        tokens = torch.from_numpy(self.tokenizer(list(texts)))
        if self.model.config.text.causal:  # it doesn't see the padding at the end
            tokens = tokens[:, : int((tokens != 0).sum(dim=1).max())]
        parts = tokens.to(self.device).split(BATCH)
        return np.concatenate([self.model.encode_text(part).cpu().numpy() for part in parts])

    def class_embeddings(self) -> Floats | None:
        """Return an embedding of each class's name (classes, d); None without `class_names`."""
        names = self.config.class_names
        return self.encode_texts(class_prompts(names, self.data)) if names else None


@constructor(CheckpointConfig)
def _checkpoint_teacher(config: CheckpointConfig, context: TeacherContext) -> CheckpointTeacher:
    return CheckpointTeacher(config, context.base, context.data, context.device)

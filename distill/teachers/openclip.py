"""Any open_clip model as a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from distill.config import OpenClipConfig
from distill.teachers.base import Vectors
from mobileclip.errors import PocketclipError
from mobileclip.photos import open_photo


class OpenClipTeacher:
    """A frozen open_clip model with its own pixels, tokens and logit scale.

    Args:
        config: model name and a path to weights; or a `local-dir:` folder alone.
        batch: items a forward pass.

    Raises:
        PocketclipError: open_clip does not know the model or cannot load the weights.
    """

    def __init__(self, config: OpenClipConfig, batch: int = 32) -> None:
        import open_clip

        # A tag, or a hub's name, would make open_clip download; here only `pocketclip models pull` does that.
        if not config.model.startswith("local-dir:") and not Path(config.pretrained).is_file():
            raise PocketclipError(
                f"open_clip teacher {config.model}: `pretrained` must be a file of weights, not {config.pretrained!r}; "
                "`pocketclip models pull` fetches some"
            )
        try:
            self.model, _, self.transform = open_clip.create_model_and_transforms(
                config.model, pretrained=config.pretrained or None, weights_only=True
            )
            self.tokenizer = open_clip.get_tokenizer(config.model)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise PocketclipError(f"open_clip cannot load {config.model} {config.pretrained}: {error}") from error
        self.model.eval().requires_grad_(False)
        self.identity = f"open_clip|{config.model}|{config.pretrained}|{_stamp(config.pretrained)}|{self.transform}"
        self.logit_scale = float(self.model.logit_scale.exp())
        self.batch = batch

    @torch.inference_mode()
    def encode_images(self, photos: Sequence[Path]) -> Vectors:
        """Return unit vectors (n, d) float32."""
        rows = []
        for start in range(0, len(photos), self.batch):
            pixels = torch.stack([self.transform(open_photo(p)) for p in photos[start : start + self.batch]])
            rows.append(self.model.encode_image(pixels, normalize=True).float().numpy())
        return np.concatenate(rows)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (n, d) float32."""
        rows = [
            self.model.encode_text(self.tokenizer(list(texts[i : i + self.batch])), normalize=True).float().numpy()
            for i in range(0, len(texts), self.batch)
        ]
        return np.concatenate(rows)


def _stamp(pretrained: str) -> str:
    """Size and time of a weights file, so that other weights at the same path are another teacher."""
    path = Path(pretrained)
    if not pretrained or not path.is_file():
        return ""
    status = path.stat()
    return f"{status.st_size}/{status.st_mtime_ns}"

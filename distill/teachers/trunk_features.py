"""A student's own features of a whole corpus, for stages with a frozen trunk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from distill.data.tars import PhotoRef
from distill.teachers.base import encode_files
from mobileclip.files import PathLike
from mobileclip.towers import CLIP
from mobileclip.vectors import Floats


class TrunkEncoder:
    """Encodes whole photos with a student's trunk.

    Args:
        model: the student, whose trunk must stay frozen while this is used.
        device: where the trunk runs.
        dtype: half-precision type of its arithmetic; None for float32.
    """

    def __init__(self, model: CLIP, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.trunk, self.pixels, self.device = model.image.trunk, model.config.pixels, device
        self.dtype = dtype
        digest = hashlib.sha256(repr(self.pixels).encode())
        for name, value in self.trunk.state_dict().items():
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
        self.identity = f"trunk|{model.config.image.trunk}|{dtype}|{digest.hexdigest()[:32]}"

    def encode_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return pooled features (n, width), NaN for unreadable photos."""
        self.trunk.eval().to(self.device, memory_format=torch.channels_last)
        return encode_files(photos, self._encode, self.pixels.size)

    @torch.inference_mode()
    def _encode(self, pictures: Sequence[Image.Image]) -> Floats:
        pixels = torch.from_numpy(np.stack([self.pixels(picture) for picture in pictures])).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            features: Floats = self.trunk(pixels.contiguous(memory_format=torch.channels_last)).float().cpu().numpy()
        return features

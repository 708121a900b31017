"""The pixel recipe of training, export and every runtime: resize, crop, normalize.

Geometry and arithmetic are those of torchvision's `Resize(size)`, `CenterCrop(size)`, `ToTensor` and `Normalize` on PIL
images: the crop is identical, and the normalized values agree within 1e-6. The exception is a picture with one side
more than sixteen times as long as the other. There only the cropped part is resized, so that one pixel by a million
doesn't fill the memory, and values may differ by a few of 255 levels.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # searching by text doesn't need Pillow, so importing this module must not load it
    from PIL import Image

__all__ = ["PixelRecipe"]

# Part of every identity: increase it when the same recipe starts to return different pixels.
_GEOMETRY_VERSION = 1

_LONGEST_RESIZE = 16  # in sizes


@dataclass(frozen=True)
class PixelRecipe:
    """How an upright RGB picture becomes the input of an image tower.

    Attributes:
        size: side of the square input, in pixels.
        resize: "shortest" scales the shorter side to `size` and crops the center; "squash" ignores proportions.
        interpolation: "bicubic" or "bilinear", both antialiased.
        mean: per channel (R, G, B), in units of 0 … 1.
        std: per channel, in units of 0 … 1, above 0.
    """

    size: int
    resize: Literal["shortest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 4096:
            raise ValueError(f"pixel recipe: size must be a whole number from 1 to 4096, not {self.size!r}")
        if self.resize not in ("shortest", "squash"):
            raise ValueError(f'pixel recipe: resize must be "shortest" or "squash", not {self.resize!r}')
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f'pixel recipe: interpolation must be "bicubic" or "bilinear", not {self.interpolation!r}')
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise ValueError(f"pixel recipe: std must be above 0, not {self.std}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PixelRecipe":
        """Read a manifest's `pixels` table.

        Raises:
            ValueError: a field is missing, unknown, or out of range.
        """
        if not isinstance(values, Mapping):
            raise ValueError("pixel recipe: not a table")
        known = {field.name for field in fields(cls)}
        if known != set(values):
            missing = ", ".join(sorted(known - set(values))) or "nothing"
            unknown = ", ".join(sorted(map(str, set(values) - known))) or "nothing"
            raise ValueError(f"pixel recipe: missing {missing}, unknown {unknown}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON or TOML, which `from_dict` reads back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @property
    def identity(self) -> str:
        """16 hex digits that change whenever the resulting pixels would."""
        text = json.dumps([_GEOMETRY_VERSION, self.to_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def crop(self, image: "Image.Image") -> "Image.Image":
        """Crop to a square of `size` × `size` pixels.

        Args:
            image: RGB and upright, as `mobileclip.photos.open_photo` returns it.

        Raises:
            ValueError: the mode isn't RGB, or there are no pixels.
        """
        from PIL import Image

        width, height = image.size
        if image.mode != "RGB" or not width or not height:
            raise ValueError(f"an RGB picture is needed, not {image.mode} of {width}×{height} pixels")
        resample = getattr(Image.Resampling, self.interpolation.upper())
        if self.resize == "squash":
            return image.resize((self.size, self.size), resample)
        shorter = min(width, height)
        # In pixels of the resized picture, rounded as torchvision rounds.
        new_width, new_height = int(self.size * width / shorter), int(self.size * height / shorter)
        left, top = round((new_width - self.size) / 2), round((new_height - self.size) / 2)
        if max(new_width, new_height) <= _LONGEST_RESIZE * self.size:
            resized = image.resize((new_width, new_height), resample)
            return resized.crop((left, top, left + self.size, top + self.size))
        x, y = width / new_width, height / new_height
        right, bottom = min((left + self.size) * x, width), min((top + self.size) * y, height)
        return image.resize((self.size, self.size), resample, box=(left * x, top * y, right, bottom))

    def __call__(self, image: "Image.Image") -> npt.NDArray[np.float32]:
        """Prepare one upright RGB picture for an image tower, float32 (3, size, size)."""
        pixels: npt.NDArray[np.float32] = self.normalize_uint8(np.asarray(self.crop(image))[None])[0]
        return pixels

    def normalize_uint8(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Normalize cropped pictures for an image tower: (x / 255 − mean) / std.

        Args:
            pixels: uint8 (n, size, size, 3).

        Returns:
            float32 (n, 3, size, size), contiguous.

        Raises:
            ValueError: another shape or dtype.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"pixels must be uint8 (n, {self.size}, {self.size}, 3), not {pixels.dtype} {pixels.shape}"
            )
        scaled = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
        scaled /= np.float32(255)
        scaled -= np.asarray(self.mean, np.float32)[:, None, None]
        scaled /= np.asarray(self.std, np.float32)[:, None, None]
        return scaled

    def denormalize(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Invert `normalize_uint8`: float32 (n, 3, size, size) → uint8 (n, 3, size, size)."""
        mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        levels: npt.NDArray[np.uint8] = np.clip(np.rint((pixels * std + mean) * 255), 0, 255).astype(np.uint8)
        return levels


def _three_numbers(name: str, values: Any) -> tuple[float, float, float]:
    """Convert to three finite floats, or raise a ValueError that names the field."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"pixel recipe: {name} must be three numbers, not {values!r}")
    return numbers

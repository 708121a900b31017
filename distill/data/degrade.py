"""Photos as bad cameras, old albums and wrong orientations make them: gray, dark, blurred, sepia, tiny or turned.

Training and thresholds see them, so that a tag doesn't depend on the light.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageFilter, ImageOps

_BLUR = 4 / 256
"""Radius of the blur, as a share of the shorter side."""
_TINY = 64
"""Shorter side of a tiny photo, in pixels."""
_DARK = 0.25
_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])


def _gray(photo: Image.Image) -> Image.Image:
    return ImageOps.grayscale(photo).convert("RGB")


def _dark(photo: Image.Image) -> Image.Image:
    return photo.point(lambda level: level * _DARK)


def _blurred(photo: Image.Image) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(_BLUR * min(photo.size)))


def _sepia(photo: Image.Image) -> Image.Image:
    return photo.convert("RGB", tuple(np.hstack([_SEPIA, np.zeros((3, 1))]).ravel()))


def _tiny(photo: Image.Image) -> Image.Image:
    scale = _TINY / min(photo.size)
    if scale >= 1:
        return photo
    width, height = (max(1, round(side * scale)) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.BICUBIC)


def _turned(photo: Image.Image) -> Image.Image:
    return photo.transpose(Image.Transpose.ROTATE_90)


DEGRADATIONS: Final[dict[str, Callable[[Image.Image], Image.Image]]] = {
    "gray": _gray,
    "dark": _dark,
    "blurred": _blurred,
    "sepia": _sepia,
    "tiny": _tiny,
    "turned": _turned,
}
"""What can befall an RGB photo: the same in grays; a quarter as bright; out of focus, by a radius of 4 pixels if the
shorter side has 256; brown; with a shorter side of 64 pixels; turned by 90 degrees."""


def drawn_degradation(key: str) -> str:
    """Return one of `DEGRADATIONS`, determined by a photo's name."""
    return list(DEGRADATIONS)[zlib.crc32(key.encode("utf-8", "surrogatepass")) % len(DEGRADATIONS)]

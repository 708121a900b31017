"""Augmentations as a few stored numbers, from which the view that a teacher saw can be made at any resolution.

They are a random resized crop and RandAugment (Cubuk et al. 2019), as in MobileCLIP's reinforced data (Vasu et al.
2024, section 3.2). Boxes and translations are stored as shares of the side. Pixels, as in DataCompDR, would move a
picture too far or too little at another resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from distill.config import Reinforcement
from distill.data.tables import DataError

# In the order of torchvision's RandAugment, because DataCompDR stores positions in it. Values: largest magnitude
# (for translations, a share of the side), and whether the sign is random.
_RANGES: dict[str, tuple[float, bool]] = {
    "Identity": (0.0, False),
    "ShearX": (0.3, True),
    "ShearY": (0.3, True),
    "TranslateX": (150 / 331, True),
    "TranslateY": (150 / 331, True),
    "Rotate": (30.0, True),
    "Brightness": (0.9, True),
    "Color": (0.9, True),
    "Contrast": (0.9, True),
    "Sharpness": (0.9, True),
    "Posterize": (8.0, False),
    "Solarize": (255.0, False),
    "AutoContrast": (0.0, False),
    "Equalize": (0.0, False),
}
OPERATIONS = tuple(_RANGES)
_STRONGEST = 30  # torchvision has 31 magnitudes, 0 to 30
_APPLE_PX = 224

_CROP_RATIO = (0.8, 1.25)
_JITTERED, _JITTER = ("Brightness", "Contrast", "Color"), 0.2

DECODE_MARGIN = 4
"""Photos are decoded to at least this multiple of a view's side, so that small crops aren't scaled up."""


@dataclass(frozen=True)
class Augmentation:
    """How to make a view of a photo: cut out a box, mirror it or not, then apply the operations in order.

    Attributes:
        box: top, left, height and width, as shares of the upright photo's sides.
        operations: positions in `OPERATIONS` and magnitudes; translations are shares of the side.
        mirror: mirror the view before the operations.

    Raises:
        DataError: the box exceeds the photo, an operation is unknown, or its magnitude is too large.
    """

    box: tuple[float, float, float, float]
    operations: tuple[tuple[int, float], ...] = ()
    mirror: bool = False

    def __post_init__(self) -> None:
        top, left, height, width = self.box
        inside = min(top, left) >= 0 and min(height, width) > 0 and max(top + height, left + width) <= 1 + 1e-4
        if not inside:  # also true if a value is NaN
            raise DataError(f"augmentation: the box {self.box} exceeds the photo")
        for operation, magnitude in self.operations:
            if operation not in range(len(OPERATIONS)):
                raise DataError(f"augmentation: no operation {operation!r}, only 0 to {len(OPERATIONS) - 1}")
            largest, _ = _RANGES[OPERATIONS[operation]]
            if not abs(magnitude) <= largest + 1e-4:
                raise DataError(f"augmentation: {OPERATIONS[operation]} takes at most {largest:g}, not {magnitude:g}")

    def encode(self) -> NDArray[np.float32]:
        """Return box, mirror, and each operation with its magnitude as float32 (5 + 2 · operations,)."""
        return np.array([*self.box, self.mirror, *(x for pair in self.operations for x in pair)], np.float32)

    @classmethod
    def decode(cls, numbers: Sequence[float] | NDArray[np.float32]) -> Augmentation:
        """Return the augmentation that `encode` returned as numbers.

        Raises:
            DataError: the numbers aren't an augmentation.
        """
        values = [float(x) for x in numbers]
        if len(values) < 5 or len(values) % 2 == 0 or not all(map(math.isfinite, values)):
            raise DataError(f"augmentation: {len(values)} numbers are not a finite box, mirror and pairs")
        top, left, height, width, mirror = values[:5]
        pairs = zip(values[5::2], values[6::2], strict=True)
        return cls((top, left, height, width), tuple((_position(x), y) for x, y in pairs), mirror=bool(mirror))


def _position(number: float) -> int:
    """Return a stored position as an integer, or −1 if it isn't one."""
    return int(number) if float(number).is_integer() else -1


def draw(random: np.random.Generator, policy: Reinforcement, aspect: float) -> Augmentation:
    """Draw an augmentation as torchvision's RandomResizedCrop and RandAugment do.

    Args:
        random: source of every random choice.
        policy: ranges and number of operations.
        aspect: the photo's width divided by its height.
    """
    box = _draw_box(random, policy.scale, policy.ratio, aspect)
    mirror = bool(random.random() < policy.mirror)
    operations = []
    for operation in random.integers(len(OPERATIONS), size=policy.operations):
        name = OPERATIONS[operation]
        largest, signed = _RANGES[name]
        share = policy.magnitude / _STRONGEST
        magnitude = share * largest
        if name == "Posterize":  # number of bits to keep, 8 to 4
            magnitude = 8.0 - round(4 * share)
        elif name == "Solarize":  # pixels brighter than this are inverted
            magnitude = largest - magnitude
        if signed and random.integers(2):
            magnitude = -magnitude
        operations.append((int(operation), magnitude))
    return Augmentation.decode(Augmentation(box, tuple(operations), mirror).encode())  # rounded as when stored


def draw_crop(random: np.random.Generator, crop: float, aspect: float) -> Augmentation:
    """Draw a light augmentation: a crop, mirrored half of the time, and half of the time slightly other colors.

    Args:
        random: source of every random choice.
        crop: smallest share of the photo's area that the crop keeps.
        aspect: the photo's width divided by its height.
    """
    box = _draw_box(random, (crop, 1.0), _CROP_RATIO, aspect)
    mirror = bool(random.integers(2))
    operations: list[tuple[int, float]] = []
    if random.integers(2):
        operations = [(OPERATIONS.index(name), random.uniform(-_JITTER, _JITTER)) for name in _JITTERED]
        random.shuffle(operations)
    return Augmentation(box, tuple(operations), mirror)


def _draw_box(
    random: np.random.Generator, scale: tuple[float, float], ratios: tuple[float, float], aspect: float
) -> tuple[float, float, float, float]:
    """Draw top, left, height and width of a crop, as shares of the photo's sides."""
    low, high = np.log(ratios)
    for _ in range(10):
        area, ratio = random.uniform(*scale), math.exp(random.uniform(low, high))
        width, height = math.sqrt(area * ratio / aspect), math.sqrt(area / ratio * aspect)
        if width <= 1 and height <= 1:
            return random.uniform(0, 1 - height), random.uniform(0, 1 - width), height, width
    # For very long photos, the largest box with an allowed ratio, in the middle.
    ratio = min(max(aspect, ratios[0]), ratios[1])
    width, height = min(1.0, ratio / aspect), min(1.0, aspect / ratio)
    return (1 - height) / 2, (1 - width) / 2, height, width


def from_datacompdr(stored: Any, size: tuple[int, int]) -> Augmentation:
    """Convert an entry of DataCompDR's `paug.json`.

    Args:
        stored: `[[top, left, height, width], [[operation, magnitude], …]]`: a box in pixels of the photo, and
            magnitudes for views of 224 px; null instead of the operations if there was no RandAugment.
        size: width and height of the photo in pixels.

    Raises:
        DataError: the layout is different, or the box exceeds the photo.
    """
    try:
        box, operations = stored
        top, left, height, width = (float(x) for x in box)
        pairs = [(_position(operation), float(magnitude)) for operation, magnitude in operations or ()]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            "paug.json: an augmentation is not [[top, left, height, width], [[operation, …], …]]"
        ) from error
    scaled = [(x, y / _APPLE_PX if OPERATIONS[x].startswith("Translate") else y) for x, y in pairs if _known(x)]
    if len(scaled) < len(pairs):
        raise DataError(f"paug.json: an operation outside 0 to {len(OPERATIONS) - 1}")
    across, down = size
    return Augmentation((top / down, left / across, height / down, width / across), tuple(scaled))


def _known(operation: int) -> bool:
    return 0 <= operation < len(OPERATIONS)


def apply(picture: Image.Image, augmentation: Augmentation, px: int) -> Image.Image:
    """Make a view of `px` × `px` pixels: the box, resized once and mirrored, then the operations.

    Views of one augmentation at different `px` differ only by resampling, and by Sharpness, which compares adjacent
    pixels.
    """
    across, down = picture.size
    top, left, height, width = augmentation.box
    box = (left * across, top * down, min((left + width) * across, across), min((top + height) * down, down))
    view = picture.resize((px, px), Image.Resampling.BICUBIC, box)
    if augmentation.mirror:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for operation, magnitude in augmentation.operations:
        view = _OPERATE[operation](view, magnitude)
    return view


def _affine(
    view: Image.Image, *, shear: tuple[float, float] = (0, 0), move: tuple[float, float] = (0, 0)
) -> Image.Image:
    angles = [math.degrees(math.atan(x)) for x in shear]
    # As in AutoAugment, a shear keeps the upper left corner in place.
    center = [0, 0] if any(shear) else None
    offsets = [x * view.width for x in move]
    moved: Image.Image = F.affine(view, 0, offsets, 1, angles, InterpolationMode.BILINEAR, center=center)
    return moved


_OPERATE = (
    lambda view, _: view,
    lambda view, x: _affine(view, shear=(x, 0)),
    lambda view, x: _affine(view, shear=(0, x)),
    lambda view, x: _affine(view, move=(x, 0)),
    lambda view, x: _affine(view, move=(0, x)),
    lambda view, x: F.rotate(view, x, InterpolationMode.BILINEAR),
    lambda view, x: F.adjust_brightness(view, 1 + x),
    lambda view, x: F.adjust_saturation(view, 1 + x),
    lambda view, x: F.adjust_contrast(view, 1 + x),
    lambda view, x: F.adjust_sharpness(view, 1 + x),
    lambda view, x: F.posterize(view, int(x)),
    lambda view, x: F.solarize(view, x),
    lambda view, _: F.autocontrast(view),
    lambda view, _: F.equalize(view),
)

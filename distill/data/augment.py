"""Augmentations as a few stored numbers, so that the view a teacher saw can be made again at any resolution.

A random resized crop and RandAugment (Cubuk et al. 2019), as in MobileCLIP's reinforced data (Vasu et al. 2024,
section 3.2). Boxes and translations are shares of the side: stored in pixels of one resolution, as DataCompDR has
them, they would move a picture too far or too little at another.
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
from distill.data.sources import DataError

# Names and order are those of torchvision's RandAugment; DataCompDR stores positions in it. Each with its largest
# magnitude, and whether its sign is drawn. Translations are shares of the side.
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

# A view of a small crop should still be made of at least as many pixels as it has itself.
DECODE_MARGIN = 4
"""Photos are decoded to at least so many times the side of a view."""


@dataclass(frozen=True)
class Augmentation:
    """One view of a photo: a box, perhaps mirrored, then operations one after the other.

    Attributes:
        box: top, left, height and width as shares of the upright photo's sides.
        operations: positions in `OPERATIONS` with their magnitudes, translations as shares of the side.
        mirror: whether the view is mirrored before the operations.

    Raises:
        DataError: the box leaves the photo, an operation is unknown or its magnitude beyond what it can take.
    """

    box: tuple[float, float, float, float]
    operations: tuple[tuple[int, float], ...] = ()
    mirror: bool = False

    def __post_init__(self) -> None:
        top, left, height, width = self.box
        inside = min(top, left) >= 0 and min(height, width) > 0 and max(top + height, left + width) <= 1 + 1e-4
        if not inside:  # as it is for values that are no number
            raise DataError(f"augmentation: the box {self.box} does not lie in the photo")
        for operation, magnitude in self.operations:
            if operation not in range(len(OPERATIONS)):
                raise DataError(f"augmentation: no operation {operation!r}, only 0 to {len(OPERATIONS) - 1}")
            largest, _ = _RANGES[OPERATIONS[operation]]
            if not abs(magnitude) <= largest + 1e-4:
                raise DataError(f"augmentation: {OPERATIONS[operation]} takes at most {largest:g}, not {magnitude:g}")

    def encode(self) -> NDArray[np.float32]:
        """As numbers: box, mirror, then each operation and its magnitude; float32 (5 + 2 · operations,)."""
        return np.array([*self.box, self.mirror, *(x for pair in self.operations for x in pair)], np.float32)

    @classmethod
    def decode(cls, numbers: Sequence[float] | NDArray[np.float32]) -> Augmentation:
        """Read what `encode` wrote.

        Raises:
            DataError: these numbers are no augmentation.
        """
        values = [float(x) for x in numbers]
        if len(values) < 5 or len(values) % 2 == 0 or not all(map(math.isfinite, values)):
            raise DataError(f"augmentation: {len(values)} numbers are not a box, a mirror and pairs, or some are none")
        top, left, height, width, mirror = values[:5]
        pairs = zip(values[5::2], values[6::2], strict=True)
        return cls((top, left, height, width), tuple((_whole(x), y) for x, y in pairs), mirror=bool(mirror))


def _whole(number: float) -> int:
    """Return a stored position as an integer, −1 where it is none."""
    return int(number) if float(number).is_integer() else -1


def draw(random: np.random.Generator, policy: Reinforcement, aspect: float) -> Augmentation:
    """Draw an augmentation as torchvision's RandomResizedCrop and RandAugment do.

    Args:
        random: decides everything.
        policy: the ranges.
        aspect: width of the photo divided by its height.
    """
    box = _draw_box(random, policy, aspect)
    mirror = bool(random.random() < policy.mirror)
    operations = []
    for operation in random.integers(len(OPERATIONS), size=policy.operations):
        name = OPERATIONS[operation]
        largest, signed = _RANGES[name]
        share = policy.magnitude / _STRONGEST
        magnitude = share * largest
        if name == "Posterize":  # bits to keep, 8 to 4
            magnitude = 8.0 - round(4 * share)
        elif name == "Solarize":  # brighter than this is inverted
            magnitude = largest - magnitude
        if signed and random.integers(2):
            magnitude = -magnitude
        operations.append((int(operation), magnitude))
    return Augmentation.decode(Augmentation(box, tuple(operations), mirror).encode())  # exactly as it will be stored


def _draw_box(random: np.random.Generator, policy: Reinforcement, aspect: float) -> tuple[float, float, float, float]:
    low, high = np.log(policy.ratio)
    for _ in range(10):
        area, ratio = random.uniform(policy.scale[0], policy.scale[1]), math.exp(random.uniform(low, high))
        width, height = math.sqrt(area * ratio / aspect), math.sqrt(area / ratio * aspect)
        if width <= 1 and height <= 1:
            return random.uniform(0, 1 - height), random.uniform(0, 1 - width), height, width
    # Very long photos: the largest box in the middle whose ratio is allowed.
    ratio = min(max(aspect, policy.ratio[0]), policy.ratio[1])
    width, height = min(1.0, ratio / aspect), min(1.0, aspect / ratio)
    return (1 - height) / 2, (1 - width) / 2, height, width


def from_datacompdr(stored: Any, size: tuple[int, int]) -> Augmentation:
    """Convert an entry of DataCompDR's `paug.json`.

    Args:
        stored: `[[top, left, height, width], [[operation, magnitude], …]]`: a box in pixels of the photo, and
            magnitudes absolute for views of 224 px; null where RandAugment was left out.
        size: width and height of the photo in pixels.

    Raises:
        DataError: it is laid out in another way or lies outside the photo.
    """
    try:
        box, operations = stored
        top, left, height, width = (float(x) for x in box)
        pairs = [(_whole(operation), float(magnitude)) for operation, magnitude in operations or ()]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            "paug.json: an augmentation is not [[top, left, height, width], [[operation, …], …]]"
        ) from error
    moved = [(x, y / _APPLE_PX if OPERATIONS[x].startswith("Translate") else y) for x, y in pairs if _known(x)]
    if len(moved) < len(pairs):
        raise DataError(f"paug.json: an operation outside 0 to {len(OPERATIONS) - 1}")
    across, down = size
    return Augmentation((top / down, left / across, height / down, width / across), tuple(moved))


def _known(operation: int) -> bool:
    return 0 <= operation < len(OPERATIONS)


def apply(picture: Image.Image, augmentation: Augmentation, px: int) -> Image.Image:
    """Make the view of `px` × `px` pixels: the box, resized once, mirrored, then the operations.

    Views of one augmentation at different `px` differ by resampling alone; Sharpness alone looks at neighbouring
    pixels, which lie closer together in a larger view.
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
    # As in AutoAugment, a shear leaves the upper left corner where it is.
    centre = [0, 0] if any(shear) else None
    offsets = [x * view.width for x in move]
    moved: Image.Image = F.affine(view, 0, offsets, 1, angles, InterpolationMode.BILINEAR, center=centre)
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

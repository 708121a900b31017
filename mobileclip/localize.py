"""Find where in a photo a text matches, from the image tower's last feature map.

If a tower ends in average pooling and a linear projection, the projection can be applied to each location of its
feature map instead. The mean of these local vectors is the photo's vector, up to its length, so the contribution of
each location to the cosine with a text is known exactly, without training or gradients. This is the class activation
map of Zhou et al. 2016 ("Learning Deep Features for Discriminative Localization", section 2), with a text's vector in
place of a class's weights. For a tower with more than a projection after the pooling, the bundle contains the
projection that approximates it best, and the contributions only add up to roughly the cosine.

The map is as coarse as the tower's last layer (9 × 9 for a square of 260 pixels), and each location has seen far more
than its own pixels. The map shows the region that matches a text, not the outline of an object.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mobileclip.bundle import Head
from mobileclip.encoder import DECODE_MARGIN
from mobileclip.errors import EngineError, PocketclipError
from mobileclip.model import KNOWN_ANSWER_COSINE, Model
from mobileclip.vectors import Floats

if TYPE_CHECKING:
    import os

    from PIL import Image

__all__ = ["Box", "LocalizeError", "boxes", "can_localize", "contributions", "heat", "heat_maps", "local_vectors"]

# Cells of a heat map per cell of the feature map, along each axis: enough for smooth edges and for boxes between cells.
_UPSAMPLING = 4
# Photos with longer proportions than this are squashed, so that a banner doesn't need a hundred runs of the tower.
_MAX_SQUARES = 16
# Shares of the map's highest heat: the minimum for a cell of a box, and for the hottest cell of a box.
_EDGE = 0.5
_MIN_PEAK = 0.6
# A map whose highest heat is below this has no boxes.
_MIN_HEAT = 0.75


class LocalizeError(PocketclipError):
    """The model's image tower can't locate a text in a photo."""


@dataclass(frozen=True)
class Box:
    """A region of the upright photo.

    Attributes:
        left: in fractions of the photo's width, from its left edge; so is `right`.
        top: in fractions of the photo's height, from its top edge; so is `bottom`.
        score: the region's highest heat, 0 … 1.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float


def can_localize(model: Model) -> bool:
    """Whether the model's bundle has what localization needs; no tower is loaded."""
    return model.head is not None


def local_vectors(model: Model, pixels: Floats) -> Floats:
    """Compute one vector per location, in the embedding space but without unit length.

    Args:
        model: a model that `can_localize`.
        pixels: float32 (n, 3, size, size), prepared by the model's pixel recipe.

    Returns:
        float32 (n, h, w, dim). The mean over h and w, scaled to unit length, is the photo's vector or close to it.

    Raises:
        LocalizeError: the model's bundle has no feature map.
    """
    head, _, features = _features(model, pixels)
    local: Floats = np.einsum("nchw,dc->nhwd", features, head.weight, optimize=True) + head.bias
    return local


def contributions(model: Model, pixels: Floats, vectors: Floats) -> Floats:
    """Compute the contribution of each location to the cosine of a picture with a text.

    Args:
        model: a model that `can_localize`.
        pixels: float32 (n, 3, size, size), n ≥ 1.
        vectors: float32 (q, dim), unit rows, usually of texts.

    Returns:
        float32 (n, q, h, w). The mean over h and w is the cosine of picture and text or close to it. Contributions may
        be negative.

    Raises:
        LocalizeError: see `local_vectors`.
    """
    head, lengths, features = _features(model, pixels)
    # Projects the texts into the feature space, not the map into the embedding space, which would need h · w · d · c
    # operations instead of q · d · c.
    weights = vectors @ head.weight
    maps = np.einsum("nchw,qc->nqhw", features, weights, optimize=True) + (vectors @ head.bias)[:, None, None]
    return np.asarray(maps / lengths[:, None, None, None], np.float32)


def heat_maps(model: Model, photo: "str | os.PathLike[str] | Image.Image", texts: Sequence[str] | Floats) -> Floats:
    """Compute maps over a whole photo, including the ends that the model's own crop would cut off.

    The photo is covered by squares that overlap by half or more, and the tower sees each square separately. Where
    squares overlap, each is weighted by the closeness of its center.

    Args:
        model: a model that `can_localize`.
        photo: a path or a picture.
        texts: q texts, or their vectors, float32 (q, dim).

    Returns:
        float32 (q, h, w), row 0 at the top of the upright photo, in the unit of `contributions`.

    Raises:
        LocalizeError: see `local_vectors`.
        PhotoError: the photo can't be read.
    """
    from mobileclip.photos import open_photo

    if not can_localize(model):
        raise _no_feature_map(model)
    recipe = model.recipe
    vectors = texts if isinstance(texts, np.ndarray) else model.encode_texts(list(texts))
    image = open_photo(photo, min_side=DECODE_MARGIN * recipe.size)
    squares = _squares(*image.size) if recipe.resize == "shortest" else [(0.0, 0.0, 1.0, 1.0)]
    pixels = np.stack([_cut(image, square, recipe.size, recipe.interpolation) for square in squares])
    maps = contributions(model, recipe.normalize_uint8(pixels), vectors)
    return _stitch(maps, squares)


def heat(values: Floats, threshold: float) -> Floats:
    """Scale one map to 0 … 1 for display; 0 for no or a negative contribution.

    Full heat takes a contribution of at least twice `threshold`, so that in a photo without the text even the highest
    value stays low.

    Args:
        values: float32 (h, w), one of `heat_maps`.
        threshold: the cosine from which the text counts as present: its label's, or a typical one.

    Returns:
        float32 (h, w).
    """
    top = max(float(values.max()), 2 * threshold, 1e-6)
    return np.clip(values / np.float32(top), 0, 1)


def boxes(values: Floats) -> tuple[Box, ...]:
    """Find the regions of a map, the hottest first; none if the map is cold everywhere.

    A region is a group of connected cells with at least half of the map's highest heat. Regions whose own peak is well
    below the map's are left out.

    Args:
        values: float32 (h, w), as `heat` returns it.
    """
    peak = float(values.max(initial=0.0))
    if peak < _MIN_HEAT:
        return ()
    height, width = values.shape
    found = []
    for rows, columns in _regions(values >= _EDGE * peak):
        score = float(values[rows, columns].max())
        if score >= _MIN_PEAK * peak:
            left, right = columns.min() / width, (columns.max() + 1) / width
            top, bottom = rows.min() / height, (rows.max() + 1) / height
            found.append(Box(float(left), float(top), float(right), float(bottom), score))
    return tuple(sorted(found, key=lambda box: -box.score))


def _no_feature_map(model: Model) -> LocalizeError:
    return LocalizeError(f"the model {model.name} cannot show where in a photo something is: it has no feature map")


def _features(model: Model, pixels: Floats) -> tuple[Head, Floats, Floats]:
    """Return the head, the length of each picture's unscaled vector (n,), and the feature maps (n, c, h, w)."""
    head = model.head
    if head is None:
        raise _no_feature_map(model)
    vectors, features = model.encode_features(pixels)
    if features.shape[1] != head.weight.shape[1]:
        raise EngineError(
            f"{model.name}: the feature map has {features.shape[1]} channels, not the head's {head.weight.shape[1]}"
        )
    pooled = features.mean(axis=(2, 3)) @ head.weight.T + head.bias
    lengths = np.linalg.norm(pooled, axis=1)
    # Checked because an accelerator may compute the map less exactly than the vector, and show wrong locations.
    if not np.all((pooled * vectors).sum(axis=1) >= min(KNOWN_ANSWER_COSINE, head.cosine) * lengths):
        raise EngineError(f"{model.name}: the feature map does not add up to the photo's vector on this machine")
    return head, np.asarray(lengths, np.float32), features


Square = tuple[float, float, float, float]
"""Left, top, right, bottom, in fractions of a photo."""


def _squares(width: int, height: int) -> list[Square]:
    long, short = max(width, height), min(width, height)
    side = max(short, long / _MAX_SQUARES)
    count = 1 + math.ceil(2 * (long / side - 1))
    starts = np.linspace(0, long - side, count)
    spans = [(float(start / long), float((start + side) / long)) for start in starts]
    if width >= height:
        return [(low, 0.0, high, 1.0) for low, high in spans]
    return [(0.0, low, 1.0, high) for low, high in spans]


def _cut(image: "Image.Image", square: Square, size: int, interpolation: str) -> npt.NDArray[np.uint8]:
    from PIL import Image

    width, height = image.size
    box = (square[0] * width, square[1] * height, square[2] * width, square[3] * height)
    return np.asarray(image.resize((size, size), Image.Resampling[interpolation.upper()], box=box))


def _stitch(maps: Floats, squares: Sequence[Square]) -> Floats:
    """Join the maps of squares, (n, q, h, w), into one map of the photo, (q, H, W)."""
    rows, columns = maps.shape[2:]
    wide = max(square[2] - square[0] for square in squares)
    tall = max(square[3] - square[1] for square in squares)
    across = (np.arange(round(_UPSAMPLING * columns / wide)) + 0.5) / round(_UPSAMPLING * columns / wide)
    down = (np.arange(round(_UPSAMPLING * rows / tall)) + 0.5) / round(_UPSAMPLING * rows / tall)
    total = np.zeros((maps.shape[1], len(down), len(across)), np.float32)
    weights = np.zeros((len(down), len(across)), np.float32)
    for values, (left, top, right, bottom) in zip(maps, squares, strict=True):
        vertical, tent_down = _sampling((down - top) / (bottom - top), rows)
        horizontal, tent_across = _sampling((across - left) / (right - left), columns)
        weight = tent_down[:, None] * tent_across[None, :]
        total += weight * (vertical @ values @ horizontal.T)
        weights += weight
    return total / weights


def _sampling(positions: npt.NDArray[np.float64], cells: int) -> tuple[Floats, Floats]:
    """Compute how to interpolate `cells` values at positions of 0 … 1, and the weight of each position.

    Returns:
        float32 (positions, cells), linear interpolation between the centers of cells, and float32 (positions,), weights
        that are highest in the middle and 0 outside.
    """
    within = (positions >= 0) & (positions <= 1)
    place = np.clip(positions * cells - 0.5, 0, cells - 1)
    low = np.minimum(place.astype(int), max(0, cells - 2))
    matrix = np.zeros((len(positions), cells), np.float32)
    index = np.arange(len(positions))
    matrix[index, low] = 1 - (place - low)
    if cells > 1:
        matrix[index, low + 1] = place - low
    tent = np.where(within, np.minimum(positions, 1 - positions) + 1e-3, 0)
    return matrix, tent.astype(np.float32)


def _regions(mask: npt.NDArray[np.bool_]) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Rows and columns of each group of cells that touch along a side."""
    remaining = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    found = []
    while remaining:
        stack, members = [remaining.pop()], []
        while stack:
            row, column = stack.pop()
            members.append((row, column))
            for neighbor in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if neighbor in remaining:
                    remaining.remove(neighbor)
                    stack.append(neighbor)
        cells = np.array(sorted(members))
        found.append((cells[:, 0], cells[:, 1]))
    return sorted(found, key=lambda cells: (cells[0][0], cells[1][0]))

"""Where in a photo a text is, out of the image tower's last feature map.

A tower that ends in an average pooling and a linear projection says more than its vector: projected location by
location with the same head, its feature map gives one vector a place, and their mean is the photo's vector up to
length. What each place adds to the cosine with a text is therefore known exactly, without training or gradients: the
class activation map of Zhou et al. 2016 ("Learning Deep Features for Discriminative Localization", section 2), with
the text's vector in the place of the class's weights. Where more than a projection stands on the pooling, the bundle
carries the projection that comes nearest to it, and what places add up to is near the cosine, no longer the cosine.

The map is as coarse as the tower's last layer (9 × 9 for a square of 260 pixels), and each place has seen far more than
itself; it shows the region that speaks for a text, not the outline of a thing.
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

if TYPE_CHECKING:
    import os

    from PIL import Image

__all__ = ["Box", "LocalizeError", "boxes", "can_localize", "contributions", "heat", "heat_maps", "local_vectors"]

Floats = npt.NDArray[np.float32]

# Cells of a heat map for each one of the tower's: enough for a smooth edge, and for boxes between two cells.
_FINE = 4
# A photo longer than so many times its width is seen squashed, so that a banner does not cost a hundred runs.
_MOST_SQUARES = 16
# A region belongs to a box from this share of the highest heat on; its own peak must reach that share of it; and a map
# that nowhere reaches so much heat has no boxes at all.
_EDGE = 0.5
_WORTH = 0.6
_SHOWN = 0.75


class LocalizeError(PocketclipError):
    """A model whose image tower cannot say where in a photo something is."""


@dataclass(frozen=True)
class Box:
    """A region, in fractions of the upright photo from its left and top edge; `score` 0 … 1 is its highest heat."""

    left: float
    top: float
    right: float
    bottom: float
    score: float


def can_localize(model: Model) -> bool:
    """Whether this model's bundle carries what is needed; no tower is loaded."""
    return model.head is not None


def local_vectors(model: Model, pixels: Floats) -> Floats:
    """One vector a place, in the space of the model's vectors, not of unit length.

    Args:
        model: a model that `can_localize`.
        pixels: float32 (n, 3, size, size), as its recipe prepares them.

    Returns:
        float32 (n, h, w, dim); the mean over h and w, scaled to unit length, is the photo's vector, or near to it.

    Raises:
        LocalizeError: the model's bundle carries no feature map, as towers that pool otherwise cannot.
    """
    head, _, features = _features(model, pixels)
    local: Floats = np.einsum("nchw,dc->nhwd", features, head.weight, optimize=True) + head.bias
    return local


def contributions(model: Model, pixels: Floats, vectors: Floats) -> Floats:
    """What each place adds to the cosine of a picture with a text.

    Args:
        model: a model that `can_localize`.
        pixels: float32 (n, 3, size, size), n ≥ 1.
        vectors: float32 (q, dim), unit rows, usually of texts.

    Returns:
        float32 (n, q, h, w); the mean over h and w is the cosine of picture and text, or near to it. Negative where a
        place speaks against the text.

    Raises:
        LocalizeError: see `local_vectors`.
    """
    head, lengths, features = _features(model, pixels)
    # The texts go to the feature map and not the map to the texts: q · d · c operations instead of h · w · d · c.
    weights = vectors @ head.weight
    maps = np.einsum("nchw,qc->nqhw", features, weights, optimize=True) + (vectors @ head.bias)[:, None, None]
    return np.asarray(maps / lengths[:, None, None, None], np.float32)


def heat_maps(model: Model, photo: "str | os.PathLike[str] | Image.Image", texts: Sequence[str] | Floats) -> Floats:
    """Maps over a whole photo, also where the model's own crop would cut its ends off.

    The photo is covered by squares that overlap by half or more, each seen by the tower on its own; where two overlap,
    each counts the more the nearer its centre is.

    Args:
        model: a model that `can_localize`.
        photo: a path or a picture.
        texts: q texts, or their vectors, float32 (q, dim).

    Returns:
        float32 (q, h, w), row 0 at the top of the upright photo; see `contributions` for the unit.

    Raises:
        LocalizeError: see `local_vectors`.
        PhotoError: the photo cannot be read.
    """
    from mobileclip.photos import open_photo

    if not can_localize(model):
        raise _cannot(model)
    recipe = model.recipe
    vectors = texts if isinstance(texts, np.ndarray) else model.encode_texts(list(texts))
    image = open_photo(photo, min_side=DECODE_MARGIN * recipe.size)
    squares = _squares(*image.size) if recipe.resize == "shortest" else [(0.0, 0.0, 1.0, 1.0)]
    pixels = np.stack([_cut(image, square, recipe.size, recipe.interpolation) for square in squares])
    maps = contributions(model, recipe.normalize_uint8(pixels), vectors)
    return _stitch(maps, squares)


def heat(values: Floats, threshold: float) -> Floats:
    """One map as 0 … 1 for the eye: 0 is no or negative contribution, 1 the highest there is.

    A place must add twice `threshold`, the cosine from which the text counts as present, to be shown at full heat: in
    a photo without it, the highest place is still pale.

    Args:
        values: float32 (h, w), one of `heat_maps`.
        threshold: of the text's label, or a usual one.
    """
    top = max(float(values.max()), 2 * threshold, 1e-6)
    return np.clip(values / np.float32(top), 0, 1)


def boxes(values: Floats) -> tuple[Box, ...]:
    """Regions of a map in 0 … 1, the hottest first; none where it is pale all over.

    A region is what hangs together at half of the map's highest heat. Regions whose own peak is well below it are
    left out.

    Args:
        values: float32 (h, w), as `heat` gives it.
    """
    peak = float(values.max(initial=0.0))
    if peak < _SHOWN:
        return ()
    height, width = values.shape
    found = []
    for rows, columns in _regions(values >= _EDGE * peak):
        score = float(values[rows, columns].max())
        if score >= _WORTH * peak:
            left, right = columns.min() / width, (columns.max() + 1) / width
            top, bottom = rows.min() / height, (rows.max() + 1) / height
            found.append(Box(float(left), float(top), float(right), float(bottom), score))
    return tuple(sorted(found, key=lambda box: -box.score))


def _cannot(model: Model) -> LocalizeError:
    return LocalizeError(
        f"the model {model.name} cannot say where in a photo something is: its bundle carries no feature map"
    )


def _features(model: Model, pixels: Floats) -> tuple[Head, Floats, Floats]:
    """The head; the length of each picture's vector before it was made a unit, (n,); the feature maps (n, c, h, w)."""
    head = model.head
    if head is None:
        raise _cannot(model)
    vectors, features = model.encode_features(pixels)
    if features.shape[1] != head.weight.shape[1]:
        raise EngineError(
            f"{model.name}: a feature map of {features.shape[1]} channels, a head for {head.weight.shape[1]}"
        )
    whole = features.mean(axis=(2, 3)) @ head.weight.T + head.bias
    lengths = np.linalg.norm(whole, axis=1)
    # An accelerator may round the map as it likes; what no longer adds up to the vector would show a wrong place.
    if not np.all((whole * vectors).sum(axis=1) >= min(KNOWN_ANSWER_COSINE, head.cosine) * lengths):
        raise EngineError(f"{model.name}: the feature map does not add up to the photo's vector on this machine")
    return head, np.asarray(lengths, np.float32), features


Square = tuple[float, float, float, float]
"""Left, top, right, bottom in fractions of a photo."""


def _squares(width: int, height: int) -> list[Square]:
    long, short = max(width, height), min(width, height)
    side = max(short, long / _MOST_SQUARES)
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
    """Maps of squares, (n, q, h, w), as one map of the photo, (q, H, W)."""
    rows, columns = maps.shape[2:]
    wide = max(square[2] - square[0] for square in squares)
    tall = max(square[3] - square[1] for square in squares)
    across = (np.arange(round(_FINE * columns / wide)) + 0.5) / round(_FINE * columns / wide)
    down = (np.arange(round(_FINE * rows / tall)) + 0.5) / round(_FINE * rows / tall)
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
    """How to read `cells` values between their centres at positions of 0 … 1, and how much each reading counts.

    Returns:
        float32 (positions, cells), rows of linear interpolation, and (positions,), highest in the middle, 0 outside.
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
    """Rows and columns of each group of cells that touch by a side."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    found = []
    while left:
        stack, members = [left.pop()], []
        while stack:
            row, column = stack.pop()
            members.append((row, column))
            for beside in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if beside in left:
                    left.remove(beside)
                    stack.append(beside)
        cells = np.array(sorted(members))
        found.append((cells[:, 0], cells[:, 1]))
    return sorted(found, key=lambda cells: (cells[0][0], cells[1][0]))

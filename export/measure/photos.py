"""The photos and texts that exported towers are measured on, and those that they are calibrated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from distill.data.sources import read_splits
from distill.data.tables import DataError, parse_list, read_table
from distill.evaluate.evidence import MEASURE, KnownPhoto, LabelEvidence
from mobileclip.errors import PhotoError
from mobileclip.files import PHOTO_SUFFIXES, PathLike
from mobileclip.photos import open_photo
from mobileclip.preprocess import PixelRecipe

CALIBRATION: Final = 64
"""Photos that ranges of activations are found with."""
MOST: Final = 1000
"""Most photos to measure with, if no captions choose them."""
LEAST: Final = 20
"""Fewest photos of a folder. Half of them at most are for calibration."""

QUERIES: Final = tuple(
    f"{article} {thing}"
    for article in ("a photo of a", "a red", "two people with a")
    for thing in [
        "dog",
        "cat",
        "car",
        "bicycle",
        "flower",
        "house",
        "boat",
        "bird",
        "cup of coffee",
        "book",
        "mountain",
        "beach",
        "cake",
        "train",
    ]
)
"""Texts for photos that have none."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class MeasurementPhotos:
    """Photos and texts that exported towers are measured with, and photos that they are calibrated with.

    Attributes:
        source: "captions", "labels", "photos", or "drawn" if no photos were given.
        pixels: uint8 (n, s, s, 3), as the recipe crops them.
        texts: queries, for which the nearest photos are found.
        owner: for each text the row of the photo whose caption it is; empty if texts aren't captions.
        calibration: uint8 (k, s, s, 3), crops of other photos.
    """

    source: str
    pixels: NDArray[np.uint8]
    texts: tuple[str, ...]
    owner: tuple[int, ...]
    calibration: NDArray[np.uint8]

    def head(self, most: int) -> MeasurementPhotos:
        """The first `most` photos and their texts, for engines that are slow here."""
        if len(self.pixels) <= most:
            return self
        kept = [i for i, row in enumerate(self.owner) if row < most]
        texts = tuple(self.texts[i] for i in kept) if self.owner else self.texts[:most]
        owner = tuple(self.owner[i] for i in kept)
        return MeasurementPhotos(self.source, self.pixels[:most], texts, owner, self.calibration)


def from_captions(recipe: PixelRecipe, file: PathLike, splits: PathLike | None, split: str | None) -> MeasurementPhotos:
    """The photos of one split with their captions, calibrated with photos of the other splits.

    If there is no other split, some photos of this one calibrate and aren't measured.

    Raises:
        DataError: a column is missing, or nothing is left to measure.
    """
    file = Path(file)
    rows = list(read_table(file, needs=("file", "caption")))
    of = read_splits(Path(splits)) if splits else {row["file"]: row.get("split", "") for row in rows}
    names = list(dict.fromkeys(row["file"] for row in rows))
    asked = [name for name in names if not split or of.get(name) == split]
    if not asked:
        raise DataError(f"{file}: no row in the split `{split}`")
    chosen = set(asked)
    others = [name for name in names if name not in chosen] or _take_some(asked)
    calibration, _ = _crops(recipe, [file.parent / name for name in _spread(others, CALIBRATION)])
    pixels, kept = _crops(recipe, [file.parent / name for name in asked])
    row_of = {asked[number]: row for row, number in enumerate(kept)}
    pairs = [
        (row_of[row["file"]], caption)
        for row in rows
        if row["file"] in row_of
        for caption in parse_list(row["caption"])
    ]
    return MeasurementPhotos(
        "captions", pixels, tuple(text for _, text in pairs), tuple(row for row, _ in pairs), calibration
    )


def from_evidence(
    recipe: PixelRecipe, photos: Sequence[KnownPhoto], labels: Sequence[LabelEvidence]
) -> MeasurementPhotos:
    """Held-out photos with the labels' prompts, calibrated with other photos.

    Raises:
        DataError: no photo can be read.
    """
    measured = [photo.path for photo in photos if photo.role == MEASURE]
    others = [photo.path for photo in photos if photo.role != MEASURE]
    measured = measured or _take_some(others, len(others) // 2)
    calibration, _ = _crops(recipe, _spread(others or measured, CALIBRATION))
    pixels, _ = _crops(recipe, _spread(measured, MOST))
    return MeasurementPhotos("labels", pixels, tuple(label.prompts[0] for label in labels), (), calibration)


def from_folder(recipe: PixelRecipe, folder: PathLike) -> MeasurementPhotos:
    """Any photos below a folder, with a few everyday queries.

    Raises:
        DataError: there are too few, or no photo can be read.
    """
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    if len(paths) < LEAST:
        raise DataError(f"{folder}: {len(paths)} photos, but at least {LEAST} are needed; a few hundred are better")
    calibration_paths = _take_some(paths, min(CALIBRATION, len(paths) // 2))
    pixels, _ = _crops(recipe, _spread(paths, MOST))
    calibration, _ = _crops(recipe, calibration_paths)
    return MeasurementPhotos("photos", pixels, QUERIES, (), calibration)


def draw_photos(recipe: PixelRecipe, count: int = 96) -> MeasurementPhotos:
    """Pictures of random shapes and colors, if there are no photos. None of them is for calibration."""
    random = np.random.default_rng(0)
    size = recipe.size
    y, x = np.mgrid[0:size, 0:size] / size
    pictures = []
    for _ in range(count):
        picture = random.random(3) + (random.random(3) - 0.5) * x[..., None] + (random.random(3) - 0.5) * y[..., None]
        for _ in range(4):
            cx, cy, radius = random.random(), random.random(), 0.05 + 0.3 * random.random()
            inside = (
                np.hypot(x - cx, y - cy) if random.random() < 0.5 else np.maximum(abs(x - cx), abs(y - cy))
            ) < radius
            picture[inside] = random.random(3)
        pictures.append(np.clip(picture, 0, 1) * 255)
    empty = np.empty((0, size, size, 3), np.uint8)
    return MeasurementPhotos("drawn", np.stack(pictures).astype(np.uint8), QUERIES, (), empty)


def _crops(recipe: PixelRecipe, paths: Sequence[Path]) -> tuple[NDArray[np.uint8], list[int]]:
    """Crops of the photos that can be read, and their positions."""
    crops, kept = [], []
    for number, path in enumerate(paths):
        try:
            crops.append(np.asarray(recipe.crop(open_photo(path, min_side=2 * recipe.size))))
        except PhotoError:
            continue
        kept.append(number)
    if not crops:
        raise DataError(f"none of the {len(paths)} photos can be read")
    return np.stack(crops), kept


def _spread(items: Sequence[_T], most: int) -> list[_T]:
    """At most `most` items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, most)]


def _take_some(items: list[_T], count: int = CALIBRATION) -> list[_T]:
    """Remove every other item from the front, `count` of them but no more than half, and return those removed."""
    taken = items[: 2 * min(count, len(items) // 2) : 2]
    del items[: 2 * len(taken) : 2]
    return taken

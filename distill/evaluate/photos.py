"""Vectors of many photos on disk, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from distill.evaluate.encoders import Encoder, Floats
from mobileclip.errors import PhotoError
from mobileclip.photos import open_photo

BATCH = 32


def encode_photos(
    encoder: Encoder, paths: Sequence[Path], report: Callable[[int, int], None] | None = None
) -> tuple[Floats, list[int], list[PhotoError]]:
    """Encode photos in batches.

    Args:
        encoder: the model.
        paths: the photos.
        report: called with (done, total).

    Returns:
        Unit vectors (k, d) of the readable photos, their positions in `paths`, and the errors of the others.
    """
    recipe = encoder.recipe

    def read(path: Path) -> Floats | PhotoError:
        try:
            return recipe(open_photo(path, min_side=2 * recipe.size))
        except PhotoError as error:
            return error

    vectors, kept, errors = [], [], []
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(paths), BATCH):
            chunk = list(enumerate(pool.map(read, paths[start : start + BATCH]), start))
            good = [(i, pixels) for i, pixels in chunk if not isinstance(pixels, PhotoError)]
            errors += [pixels for _, pixels in chunk if isinstance(pixels, PhotoError)]
            if good:
                vectors.append(encoder.encode_pixels(np.stack([pixels for _, pixels in good])))
                kept += [i for i, _ in good]
            if report:
                report(min(start + BATCH, len(paths)), len(paths))
    return np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32), kept, errors

"""Encode many photos from disk in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from distill.data.degrade import DEGRADATIONS
from distill.evaluate.encoders import DualEncoder
from mobileclip.errors import PhotoError
from mobileclip.files import PathLike
from mobileclip.photos import open_photo
from mobileclip.vectors import Floats

BATCH = 32

PhotoProgress = Callable[[int, int], None]
"""Called with the number of photos done and the total."""


def encode_photos(
    encoder: DualEncoder,
    paths: Sequence[PathLike],
    progress: PhotoProgress | None = None,
    degraded: Sequence[str] = (),
) -> tuple[Floats, list[int], list[PhotoError]]:
    """Encode photos in batches.

    Args:
        encoder: the model.
        paths: the photos.
        progress: called after each batch.
        degraded: for each photo, what befalls it before it is encoded, see `distill.data.degrade`; "" for nothing.
            Empty if nothing befalls any photo.

    Returns:
        Unit vectors (k, d) of the readable photos, their positions in `paths`, and the errors for the others.
    """
    recipe = encoder.recipe

    def read(path: PathLike, how: str) -> Floats | PhotoError:
        try:
            photo = open_photo(path, min_side=2 * recipe.size)
            return recipe(DEGRADATIONS[how](photo) if how else photo)
        except PhotoError as error:
            return error

    befalls = degraded or [""] * len(paths)
    vectors, kept, errors = [], [], []
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(paths), BATCH):
            part = slice(start, start + BATCH)
            chunk = list(enumerate(pool.map(read, paths[part], befalls[part]), start))
            good = [(i, pixels) for i, pixels in chunk if not isinstance(pixels, PhotoError)]
            errors += [pixels for _, pixels in chunk if isinstance(pixels, PhotoError)]
            if good:
                vectors.append(encoder.encode_pixels(np.stack([pixels for _, pixels in good])))
                kept += [i for i, _ in good]
            if progress:
                progress(min(start + BATCH, len(paths)), len(paths))
    return np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32), kept, errors

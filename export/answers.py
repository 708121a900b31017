"""Known answers: inputs, and the vectors that a correct engine returns for them on any machine."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.measure.variants import RunningTowers, Variant, running
from mobileclip.model import KNOWN_ANSWER_COSINE
from mobileclip.torch_model import TorchModel

TEXTS: Final = ("a photo of a dog", "two people on a beach at sunset", "a receipt")
SAFE: Final = (1 + KNOWN_ANSWER_COSINE) / 2
"""Towers this close to the exact answers are checked against those; others against their own answers at export."""


def known_answers(encoder: TorchModel | RunningTowers) -> bytes:
    """Two drawn pictures and three texts with the vectors that `encoder` returns for them, as .npz."""
    pixels = _pictures(encoder.recipe.size)
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        pixels=pixels,
        tokens=encoder.tokenizer(TEXTS),
        image_vectors=encoder.encode_pixels(pixels),
        text_vectors=encoder.encode_texts(TEXTS),
    )
    return stream.getvalue()


def own_answers(variant: Variant, exact: TorchModel, threads: int | None) -> bytes | None:
    """A variant's own answers, if quantization moves it too far from the exact answers to be checked against them.

    Raises:
        EngineError: a tower fails.
    """
    with running(variant, exact, threads) as towers:
        pixels = _pictures(exact.recipe.size)
        photos = (towers.encode_pixels(pixels) * exact.encode_pixels(pixels)).sum(axis=1)
        texts = (towers.encode_texts(TEXTS) * exact.encode_texts(TEXTS)).sum(axis=1)
        if min(photos.min(), texts.min()) >= SAFE:
            return None
        return known_answers(towers)


def npy(array: NDArray[Any]) -> bytes:
    """The content of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _pictures(size: int) -> NDArray[np.uint8]:
    """Smooth colors, and shapes with hard edges: uint8 (2, size, size, 3)."""
    y, x = np.mgrid[0:size, 0:size] / size
    smooth = np.stack([x, y, (x + y) / 2], axis=-1)
    hard = np.stack([np.hypot(x - 0.5, y - 0.5) < 0.3, y > 0.6, (16 * x).astype(int) % 2 == 0], axis=-1)
    return (np.stack([smooth, hard.astype(np.float64)]) * 255).astype(np.uint8)

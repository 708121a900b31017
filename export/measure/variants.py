"""The towers of one engine and precision: made, run in processes of their own, measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.formats import SIDES, Format, Side
from export.measure.child import Child
from export.measure.parity import Closeness, Cost, Figures, closeness, overlap, recall
from export.measure.photos import Gallery
from mobileclip.errors import EngineError
from mobileclip.preprocess import PixelRecipe
from mobileclip.tokenizer import Tokenizer
from mobileclip.torch_model import TorchModel
from mobileclip.zeroshot import LabelSet

Floats = NDArray[np.float32]

PHOTO_BATCH: Final = 32
TEXT_BATCH: Final = 64
ROUNDS: Final = 15
FEW: Final = 64
"""Photos that an interpreter is measured on."""


@dataclass(frozen=True)
class Variant:
    """Both towers of one engine and precision.

    Attributes:
        format: what made them.
        precision: one of its precisions.
        data: side → what `Format.quantize` gave.
        folder: where `data` lies as files, for the processes that run it.
    """

    format: Format
    precision: str
    data: dict[Side, bytes]
    folder: Path

    def __str__(self) -> str:
        return f"{self.format.engine} {self.precision}"

    def files(self) -> dict[str, bytes]:
        """All files as they lie in a bundle."""
        named = {}
        for side in SIDES:
            named.update(self.format.files(self.data[side], side, self.precision))
        return named

    def name(self, side: Side) -> str:
        """The tower's file, or the folder of its files, as it lies in a bundle."""
        return next(iter(self.format.files(self.data[side], side, self.precision))).split("/")[0]

    def start(self, side: Side, threads: int | None, recipe: PixelRecipe) -> Child:
        """Run one tower."""
        return Child(self.format.engine, self.folder / side, threads, recipe)


def make_variant(
    made_by: Format, converted: dict[Side, bytes], precision: str, calibration: dict[Side, list[NDArray[Any]]], at: Path
) -> Variant:
    """Quantize both towers of an engine and write them below `at`.

    Raises:
        ExportError: it cannot be done.
    """
    folder = at / f"{made_by.engine}-{precision}"
    folder.mkdir()
    data = {side: made_by.quantize(converted[side], side, precision, calibration[side]) for side in SIDES}
    for side, content in data.items():
        (folder / side).write_bytes(content)
    return Variant(made_by, precision, data, folder)


class Encoder:
    """Both towers of a variant as `distill.evaluate` wants them: unit vectors, and no labels."""

    def __init__(self, image: Child, text: Child, tokenizer: Tokenizer, recipe: PixelRecipe, causal: bool) -> None:
        self.recipe, self.labels = recipe, LabelSet(())
        self.label_vectors = np.zeros((0, 0), np.float32)
        self.image, self.text, self.tokenizer, self._causal = image, text, tokenizer, causal

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Map normalised pixels (n, 3, s, s) to unit vectors (n, d)."""
        parts = [self.image(pixels[start : start + PHOTO_BATCH]) for start in range(0, len(pixels), PHOTO_BATCH)]
        return _units(np.concatenate(parts))

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to unit vectors (n, d)."""
        tokens = self.tokenizer(list(texts))
        if self._causal:  # as `mobileclip.Model` does
            tokens = tokens[:, : int((tokens != 0).sum(axis=1).max())]
        parts = [self.text(tokens[start : start + TEXT_BATCH]) for start in range(0, len(tokens), TEXT_BATCH)]
        return _units(np.concatenate(parts))


def _units(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 1e-6).all():
        raise EngineError("a vector is zero or not a number")
    units: Floats = vectors / lengths
    return units


@contextmanager
def running(variant: Variant, exact: TorchModel, threads: int | None) -> Iterator[Encoder]:
    """Both towers of a variant, in two processes, for as long as the context lasts.

    Raises:
        EngineError: a tower does not load, or crashes.
    """
    with ExitStack() as stack:
        image, text = (stack.enter_context(variant.start(side, threads, exact.recipe)) for side in SIDES)
        yield Encoder(image, text, exact.tokenizer, exact.recipe, exact.model.config.text.causal)


@dataclass(frozen=True)
class Exact:
    """What float32 torch says of a gallery: unit rows."""

    gallery: Gallery
    photos: Floats
    texts: Floats

    def head(self, most: int) -> Exact:
        """Of the gallery's first photos, see `Gallery.head`."""
        fewer = self.gallery.head(most)
        if fewer is self.gallery:
            return self
        kept = [i for i, row in enumerate(self.gallery.owner) if row < most]
        texts = self.texts[kept] if self.gallery.owner else self.texts[:most]
        return Exact(fewer, self.photos[:most], texts)


def exact_vectors(encoder: TorchModel, gallery: Gallery) -> Exact:
    """Run float32 torch over a gallery."""
    return Exact(gallery, _encode_bytes(encoder, gallery.pixels), encoder.encode_texts(gallery.texts))


def _encode_bytes(encoder: TorchModel | Encoder, pixels: NDArray[np.uint8]) -> Floats:
    recipe = encoder.recipe
    starts = range(0, len(pixels), PHOTO_BATCH)
    parts = [encoder.encode_pixels(recipe.normalize_uint8(pixels[start : start + PHOTO_BATCH])) for start in starts]
    return np.concatenate(parts)


def measure(variant: Variant, encoder: TorchModel, exact: Exact, threads: int | None) -> Figures:
    """Measure a variant's vectors and costs.

    Raises:
        EngineError: a tower does not load, fails, or crashes.
    """
    slow = variant.format.interpreted
    exact = exact.head(FEW) if slow else exact
    gallery = exact.gallery
    tokens = encoder.tokenizer(["a photo of two dogs on a beach"])
    if encoder.model.config.text.causal:
        tokens = tokens[:, : int((tokens != 0).sum())]
    one: dict[Side, NDArray[Any]] = {"image": encoder.recipe.normalize_uint8(gallery.pixels[:1]), "text": tokens}
    costs = {side: _cost(variant, side, one[side], threads, encoder.recipe) for side in SIDES}
    with running(variant, encoder, threads) as towers:
        photos, texts = _encode_bytes(towers, gallery.pixels), towers.encode_texts(gallery.texts)
    near: dict[str, Closeness] = {"image": closeness(photos, exact.photos), "text": closeness(texts, exact.texts)}
    return Figures(
        engine=variant.format.engine,
        precision=variant.precision,
        image=near["image"],
        text=near["text"],
        image_cost=costs["image"],
        text_cost=costs["text"],
        photos=len(photos),
        texts=len(texts),
        overlap=overlap(photos, texts, exact.photos, exact.texts),
        recall=recall(photos, texts, gallery.owner),
        recall_exact=recall(exact.photos, exact.texts, gallery.owner),
    )


def _cost(variant: Variant, side: Side, one: NDArray[Any], threads: int | None, recipe: PixelRecipe) -> Cost:
    times: list[float | None] = []
    rounds = 0 if variant.format.interpreted else ROUNDS
    for count in (threads, 1):  # the last one's load time and memory are told
        with variant.start(side, count, recipe) as child:
            child(one)
            times.append(child.latency(one, rounds) if rounds else None)
            load, memory = child.load_ms, child.memory_mb
    return Cost(len(variant.data[side]), load, memory, times[1], times[0])

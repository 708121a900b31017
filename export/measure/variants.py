"""The towers of one engine and precision: made, run in separate processes, and measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from export.formats import SIDES, Format, Side
from export.measure.child import Child
from export.measure.parity import Cost, Figures, closeness, overlap, recall
from export.measure.photos import MeasurementPhotos
from mobileclip.errors import EngineError
from mobileclip.preprocess import PixelRecipe
from mobileclip.tokenizer import Tokenizer, pad_after_end, without_padding
from mobileclip.torch_model import TorchModel
from mobileclip.vectors import Floats, unit_rows
from mobileclip.zeroshot import LabelSet

PHOTO_BATCH: Final = 32
TEXT_BATCH: Final = 64
ROUNDS: Final = 15
INTERPRETED_PHOTOS: Final = 64
"""Most photos that a tower is measured on if an interpreter runs it."""
CALIBRATION_TEXTS: Final = 64


@dataclass(frozen=True)
class Variant:
    """Both towers of one engine and precision.

    Attributes:
        format: the converter that made them.
        precision: one of its precisions.
        data: side → what `Format.quantize` returned.
        folder: where `data` is on disk, for the processes that run it.
    """

    format: Format
    precision: str
    data: Mapping[Side, bytes]
    folder: Path

    def __str__(self) -> str:
        return f"{self.format.engine} {self.precision}"

    def files(self) -> dict[str, bytes]:
        """All files as they are named in a bundle."""
        named = {}
        for side in SIDES:
            named.update(self.format.files(self.data[side], side, self.precision))
        return named

    def name(self, side: Side) -> str:
        """The name of the tower's file, or of the folder of its files, in a bundle."""
        return next(iter(self.format.files(self.data[side], side, self.precision))).split("/")[0]

    def start(self, side: Side, threads: int | None, recipe: PixelRecipe) -> Child:
        """Run one tower."""
        return Child(self.format.engine, self.folder / side, threads, recipe)


def make_variant(
    made_by: Format,
    converted: Mapping[Side, bytes],
    precision: str,
    calibration: Mapping[Side, Sequence[NDArray[Any]]],
    folder: Path,
) -> Variant:
    """Quantize both towers of an engine and write them below `folder`.

    Raises:
        ExportError: the converter can't do this.
    """
    own = folder / f"{made_by.engine}-{precision}"
    own.mkdir()
    data = {side: made_by.quantize(converted[side], side, precision, calibration[side]) for side in SIDES}
    for side, content in data.items():
        (own / side).write_bytes(content)
    return Variant(made_by, precision, data, own)


class RunningTowers:
    """Both towers of a variant as a `distill.evaluate.encoders.DualEncoder` without labels."""

    def __init__(self, image: Child, text: Child, tokenizer: Tokenizer, recipe: PixelRecipe, causal: bool) -> None:
        self.recipe, self.labels = recipe, LabelSet(())
        self.label_vectors = np.zeros((0, 0), np.float32)
        self.image, self.text, self.tokenizer, self._causal = image, text, tokenizer, causal

    def encode_pixels(self, pixels: NDArray[Any]) -> Floats:
        """Map pixels, float32 (n, 3, s, s) normalized or uint8 (n, s, s, 3), to unit vectors (n, d)."""
        if pixels.dtype == np.uint8:
            pixels = self.recipe.normalize_uint8(pixels)
        return _run(self.image, pixels, PHOTO_BATCH)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to unit vectors (n, d)."""
        tokens = pad_after_end(self.tokenizer(list(texts)), self.tokenizer.eot)
        return _run(self.text, without_padding(tokens) if self._causal else tokens, TEXT_BATCH)


def _run(tower: Child, inputs: NDArray[Any], batch: int) -> Floats:
    parts = [tower(inputs[start : start + batch]) for start in range(0, len(inputs), batch)]
    try:
        return unit_rows(np.concatenate(parts))
    except ValueError as error:
        raise EngineError(str(error)) from None


@contextmanager
def running(variant: Variant, exact: TorchModel, threads: int | None) -> Iterator[RunningTowers]:
    """Both towers of a variant, in two processes, for as long as the context lasts.

    Raises:
        EngineError: a tower doesn't load, or crashes.
    """
    with ExitStack() as stack:
        image, text = (stack.enter_context(variant.start(side, threads, exact.recipe)) for side in SIDES)
        yield RunningTowers(image, text, exact.tokenizer, exact.recipe, exact.model.config.text.causal)


@dataclass(frozen=True)
class Reference:
    """What float32 PyTorch makes of photos and texts; every variant is compared with it.

    Attributes:
        encoder: the checkpoint.
        photos: photos and texts.
        photo_vectors: float32 (photos, d), unit rows.
        text_vectors: float32 (texts, d), unit rows.
    """

    encoder: TorchModel
    photos: MeasurementPhotos
    photo_vectors: Floats
    text_vectors: Floats

    @classmethod
    def of(cls, encoder: TorchModel, photos: MeasurementPhotos) -> Reference:
        """Embed photos and texts with float32 PyTorch."""
        return cls(encoder, photos, _encode_crops(encoder, photos.pixels), encoder.encode_texts(photos.texts))

    def head(self, most: int) -> Reference:
        """The same for the first photos, see `MeasurementPhotos.head`."""
        fewer = self.photos.head(most)
        if fewer is self.photos:
            return self
        kept = [i for i, row in enumerate(self.photos.owner) if row < most]
        texts = self.text_vectors[kept] if self.photos.owner else self.text_vectors[:most]
        return Reference(self.encoder, fewer, self.photo_vectors[:most], texts)

    def calibration_inputs(self) -> dict[Side, list[NDArray[Any]]]:
        """Inputs to find ranges of activations with, one per array: float32 pixels (1, 3, s, s), int32 tokens (1, L).

        There are no pixels if the photos to measure with were drawn.
        """
        recipe, texts = self.encoder.recipe, self.photos.texts
        step = max(1, len(texts) // CALIBRATION_TEXTS)
        tokens = self.encoder.tokenizer(list(texts[::step][:CALIBRATION_TEXTS]))
        return {
            "image": [recipe.normalize_uint8(crop[None]) for crop in self.photos.calibration],
            "text": [row[None] for row in tokens],
        }


def _encode_crops(encoder: TorchModel | RunningTowers, crops: NDArray[np.uint8]) -> Floats:
    starts = range(0, len(crops), PHOTO_BATCH)
    return np.concatenate([encoder.encode_pixels(crops[start : start + PHOTO_BATCH]) for start in starts])


def measure(variant: Variant, reference: Reference, threads: int | None) -> Figures:
    """Measure a variant's vectors and costs.

    Raises:
        EngineError: a tower doesn't load, fails, or crashes.
    """
    if variant.format.interpreted:
        reference = reference.head(INTERPRETED_PHOTOS)
    encoder, asked = reference.encoder, reference.photos
    costs = _costs(variant, reference, threads)
    with running(variant, encoder, threads) as towers:
        photos, texts = _encode_crops(towers, asked.pixels), towers.encode_texts(asked.texts)
    return Figures(
        engine=variant.format.engine,
        precision=variant.precision,
        image=closeness(photos, reference.photo_vectors),
        text=closeness(texts, reference.text_vectors),
        image_cost=costs["image"],
        text_cost=costs["text"],
        photos=len(photos),
        texts=len(texts),
        overlap=overlap(photos, texts, reference.photo_vectors, reference.text_vectors),
        recall=recall(photos, texts, asked.owner),
        recall_exact=recall(reference.photo_vectors, reference.text_vectors, asked.owner),
    )


def _costs(variant: Variant, reference: Reference, threads: int | None) -> dict[Side, Cost]:
    encoder = reference.encoder
    tokens = encoder.tokenizer(["a photo of two dogs on a beach"])
    if encoder.model.config.text.causal:
        tokens = without_padding(tokens)
    inputs: dict[Side, NDArray[Any]] = {
        "image": encoder.recipe.normalize_uint8(reference.photos.pixels[:1]),
        "text": tokens,
    }
    return {side: _cost(variant, side, inputs[side], threads, encoder.recipe) for side in SIDES}


def _cost(variant: Variant, side: Side, inputs: NDArray[Any], threads: int | None, recipe: PixelRecipe) -> Cost:
    times: list[float | None] = []
    rounds = 0 if variant.format.interpreted else ROUNDS
    for count in (threads, 1):  # load time and memory are those of the last run
        with variant.start(side, count, recipe) as child:
            child(inputs)
            times.append(child.latency(inputs, rounds) if rounds else None)
            load, memory = child.load_ms, child.memory_mb
    return Cost(len(variant.data[side]), load, memory, times[1], times[0])

"""The labels of a bundle: one vector for each, and thresholds fitted separately for each engine and precision."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from distill.evaluate.calibration import Fit, fit_thresholds
from distill.evaluate.evidence import (
    MEASURE,
    SEEN,
    Evidence,
    KnownPhoto,
    LabelEvidence,
    read_evidence,
    read_known_photos,
    truth,
)
from distill.evaluate.label_vectors import LabelVectors, fit_label_vectors, fold_of
from distill.evaluate.photos import encode_photos
from distill.evaluate.tagging import ENOUGH, Ranking, tagging
from export.measure.variants import RunningTowers, Variant, running
from mobileclip.files import PathLike
from mobileclip.torch_model import TorchModel
from mobileclip.vectors import Floats
from mobileclip.zeroshot import Label, LabelSet, average_prompts

Progress = Callable[[str, int, int], None]
"""Called with a phase, how many of its photos are done, and how many there are."""

INTERPRETED_PHOTOS: Final = 1500
"""Most photos that thresholds are fitted and measured on if an interpreter makes the vectors."""


@dataclass(frozen=True)
class LabelData:
    """Labels, and photos of which is known what they show.

    Attributes:
        evidence: the labels with their prompts, and what a camera roll consists of; may be empty.
        photos: those that thresholds are fitted on, and those held out.
        prompts: float32 (labels, d), unit rows: the vectors of the labels' prompts, by float32 PyTorch.
    """

    evidence: Evidence
    photos: Sequence[KnownPhoto]
    prompts: Floats

    @property
    def labels(self) -> tuple[LabelEvidence, ...]:
        """The labels with their prompts; may be empty."""
        return self.evidence.labels


def read_labels(file: PathLike | None, data: PathLike | None, encoder: TorchModel) -> LabelData:
    """Read a labels file and the data sets that its evidence names; without either, there are no labels.

    Raises:
        DataError: a file or data set is missing or damaged.
    """
    if file is None or data is None:
        return LabelData(Evidence((), ()), (), np.zeros((0, encoder.dim), np.float32))
    evidence = read_evidence(file)
    photos = read_known_photos(data, evidence)
    vectors = [average_prompts(encoder.encode_texts(label.prompts)) for label in evidence.labels]
    return LabelData(evidence, photos, np.array(vectors, np.float32).reshape(-1, encoder.dim))


@dataclass(frozen=True)
class LabelFit:
    """The labels of one variant.

    Attributes:
        fit: thresholds and slopes.
        map: mean average precision on held-out photos.
        map_exact: the same for float32 PyTorch, on the same photos.
        calibration: on how many photos and labels this is based.
        cosines: (photos, labels) of the held-out photos.
        known: (photos, labels), see `truth`.
    """

    fit: Fit
    map: float
    map_exact: float
    calibration: dict[str, Any]
    cosines: Floats
    known: NDArray[np.int8]

    def tagging(self, labels: LabelSet) -> dict[str, Any]:
        """Figures of the tags by these labels on the held-out photos, with their intervals; this takes a while."""
        given, scores = labels.give(self.cosines)
        figures = tagging(self.cosines, self.known, scores, ENOUGH, given)
        short = json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 4))
        return {"photos": len(self.cosines), **short}


def fitted_labels(evidence: Evidence, fit: Fit) -> LabelSet:
    """The labels of a bundle."""
    entries = [
        Label(
            name=label.name,
            group=label.group,
            prompts=label.prompts,
            threshold=round(float(fit.threshold[i]), 5),
            slope=round(float(fit.slope[i]), 3),
            positives=int(fit.positives[i]),
            least=round(float(fit.least[i]), 4),
            search_only=bool(fit.search_only[i]),
            prevalence=float(f"{fit.prevalence[i]:.2g}"),
            implies=label.implies,
        )
        for i, label in enumerate(evidence.labels)
    ]
    return LabelSet(entries, evidence.exclusive)


@dataclass(frozen=True)
class FittedLabels:
    """The labels of all variants.

    Attributes:
        vectors: float32 (labels, d), unit rows, the same for every variant.
        variants: `str(variant)` → its thresholds; empty without labels.
    """

    vectors: Floats
    variants: Mapping[str, LabelFit]


def fit_variants(
    variants: Sequence[Variant], exact: TorchModel, data: LabelData, threads: int | None, progress: Progress
) -> FittedLabels:
    """Fit the label vectors to the first variant, and thresholds to each variant's own vectors of the same photos.

    Each photo is decoded once for all variants.

    Args:
        variants: the towers.
        exact: float32 PyTorch; the variants' ranking of held-out photos is compared with its own.
        data: labels and photos.
        threads: of the engines.
        progress: called after each batch of photos.

    Raises:
        EngineError: a tower crashes, or returns a vector that is zero, NaN or infinite.
    """
    fits: dict[str, LabelFit] = {}
    vectors: LabelVectors | None = None
    for interpreted in (False, True):
        chosen = [variant for variant in variants if variant.format.interpreted == interpreted]
        if not chosen:
            continue
        photos = list(data.photos)
        if interpreted and len(photos) > INTERPRETED_PHOTOS:
            photos = [photos[int(i)] for i in np.linspace(0, len(photos) - 1, INTERPRETED_PHOTOS)]
        some = LabelData(data.evidence, photos, data.prompts)
        with ExitStack() as stack:
            towers = [stack.enter_context(running(variant, exact, threads)) for variant in chosen]
            found, vectors = _fit(towers, exact, some, vectors, progress)
        fits |= {str(variant): fit for variant, fit in zip(chosen, found, strict=True)}
    return FittedLabels(vectors.vectors if vectors else data.prompts, fits)


def _fit(
    towers: Sequence[RunningTowers],
    exact: TorchModel,
    data: LabelData,
    vectors: LabelVectors | None,
    progress: Progress,
) -> tuple[list[LabelFit], LabelVectors]:
    """Fit each variant, and the label vectors, if they aren't fitted yet, to the first one."""
    held_out = [photo for photo in data.photos if photo.role == MEASURE]
    others = data.evidence.views([photo for photo in data.photos if photo.role != MEASURE])
    dim = data.prompts.shape[1]
    measured = _encode([exact, *towers], dim, held_out, "held-out photos", progress)
    fitting = _encode(towers, dim, others, "photos", progress)
    known, fitting_known = truth(measured.photos, data.evidence), truth(fitting.photos, data.evidence)
    seen = np.array([photo.role == SEEN for photo in fitting.photos], bool)
    weights = data.evidence.weights(fitting.photos)
    folds = np.array([fold_of(photo.path) for photo in fitting.photos], np.int64)
    if vectors is None:
        vectors = fit_label_vectors(fitting.vectors[0], fitting_known, data.prompts, weights, folds)
    map_exact = _map(measured.vectors[0] @ vectors.vectors.T, known)
    fits = []
    for embedded, held_embedded in zip(fitting.vectors, measured.vectors[1:], strict=True):
        held = held_embedded @ vectors.vectors.T
        fit = fit_thresholds(vectors.cosines(embedded, folds), fitting_known, seen, weights)
        calibration = {
            "photos": len(measured.photos) + len(fitting.photos),
            "unreadable": measured.unreadable + fitting.unreadable,
            "optimism": round(fit.optimism, 3),
            "labels_fitted": int((fit.positives > 0).sum()),
            "labels_pooled": int((fit.positives == 0).sum()),
            "labels_search_only": int(fit.search_only.sum()),
        }
        fits.append(LabelFit(fit, _map(held, known), map_exact, calibration, held, known))
    return fits, vectors


@dataclass(frozen=True)
class _Encoded:
    """Of the photos that could be read.

    Attributes:
        vectors: (photos, d) by each encoder.
        photos: those that could be read.
        unreadable: number of the others.
    """

    vectors: list[Floats]
    photos: list[KnownPhoto]
    unreadable: int


def _encode(
    encoders: Sequence[RunningTowers | TorchModel],
    dim: int,
    photos: Sequence[KnownPhoto],
    phase: str,
    progress: Progress,
) -> _Encoded:
    vectors, kept, errors = encode_photos(
        _SideBySide(encoders),
        [photo.path for photo in photos],
        lambda done, total: progress(phase, done, total),
        [photo.degraded for photo in photos],
    )
    if not kept:
        return _Encoded([np.zeros((0, dim), np.float32)] * len(encoders), [], len(errors))
    return _Encoded(np.split(vectors, len(encoders), axis=1), [photos[i] for i in kept], len(errors))


class _SideBySide:
    """Several models as one, with their vectors side by side, so that each photo is read once."""

    def __init__(self, encoders: Sequence[RunningTowers | TorchModel]) -> None:
        self._encoders = encoders
        self.recipe, self.labels = encoders[0].recipe, LabelSet(())
        self.label_vectors = np.zeros((0, 0), np.float32)

    def encode_pixels(self, pixels: NDArray[Any]) -> Floats:
        """Map pixels to (n, models × d), see `RunningTowers.encode_pixels`."""
        return np.concatenate([encoder.encode_pixels(pixels) for encoder in self._encoders], axis=1)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to (n, models × d)."""
        return np.concatenate([encoder.encode_texts(texts) for encoder in self._encoders], axis=1)


def _map(cosines: Floats, known: NDArray[np.int8]) -> float:
    """Mean average precision as in `tagging`; 0 if no label can be measured."""
    measured = ((known == 1).sum(axis=0) >= ENOUGH) & (known == 0).any(axis=0)
    if not measured.any():
        return 0.0
    ranking = Ranking(cosines[:, measured], known[:, measured])
    return ranking.mean_average_precision(np.ones(len(cosines), np.int64))

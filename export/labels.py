"""Label thresholds, fitted for the vectors of each engine and precision on its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from distill.evaluate.calibration import Fit, fit_thresholds
from distill.evaluate.evidence import MEASURE, SEEN, KnownPhoto, LabelEvidence, truth
from distill.evaluate.photos import encode_photos
from distill.evaluate.tagging import ENOUGH, Ranking, tagging
from export.measure.variants import Encoder, Variant, running
from mobileclip.torch_model import TorchModel
from mobileclip.zeroshot import Label, LabelSet, average_prompts

Floats = NDArray[np.float32]
Report = Callable[[str, int, int], None]

FEW: Final = 1500
"""Photos that thresholds are fitted and measured on where an interpreter makes the vectors."""


@dataclass(frozen=True)
class Fitted:
    """The labels of one variant.

    Attributes:
        fit: thresholds and slopes.
        map: mean average precision on held-out photos.
        map_exact: the same of float32 torch, on the same photos.
        calibration: how many photos and labels that rests on.
        cosines: (photos, labels) of the held-out photos.
        known: (photos, labels), see `truth`.
    """

    fit: Fit
    map: float
    map_exact: float
    calibration: dict[str, Any]
    cosines: Floats
    known: NDArray[np.int8]

    def tagging(self) -> dict[str, Any]:
        """Figures of tags on the held-out photos, with their intervals; it takes a while."""
        figures = tagging(self.cosines, self.known, self.fit.scores(self.cosines), ENOUGH)
        short = json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 4))
        return {"photos": len(self.cosines), **short}


def label_vectors(encoder: TorchModel, labels: Sequence[LabelEvidence]) -> Floats:
    """One unit row a label, float32 (labels, d), by float32 torch: every engine uses the same."""
    if not labels:
        return np.zeros((0, encoder.model.config.embed_dim), np.float32)
    return np.stack([average_prompts(encoder.encode_texts(label.prompts)) for label in labels]).astype(np.float32)


def labels_toml(labels: Sequence[LabelEvidence], fit: Fit) -> bytes:
    """A bundle's labels file."""
    entries = [
        Label(
            name=label.name,
            group=label.group,
            prompts=label.prompts,
            threshold=round(float(fit.threshold[i]), 5),
            slope=round(float(fit.slope[i]), 3),
            positives=int(fit.positives[i]),
        )
        for i, label in enumerate(labels)
    ]
    return LabelSet(tuple(entries)).dumps().encode("utf-8")


def fit_variants(
    variants: Sequence[Variant],
    exact: TorchModel,
    labels: Sequence[LabelEvidence],
    photos: Sequence[KnownPhoto],
    rows: Floats,
    threads: int | None,
    report: Report,
) -> dict[str, Fitted]:
    """Fit each variant's thresholds on its own vectors of the same photos; each photo is decoded once for all.

    Args:
        variants: the towers.
        exact: float32 torch, to compare the ranking of held-out photos with.
        labels: (l,).
        photos: with what is known of them.
        rows: `label_vectors`, (l, d).
        threads: of the engines.
        report: told of the progress.

    Returns:
        `str(variant)` → its labels.

    Raises:
        EngineError: a tower crashes or gives what is no vector.
    """
    found: dict[str, Fitted] = {}
    for slow in (False, True):
        chosen = [variant for variant in variants if variant.format.interpreted == slow]
        if not chosen:
            continue
        some = list(photos)
        if slow and len(some) > FEW:
            some = [some[int(i)] for i in np.linspace(0, len(some) - 1, FEW)]
        with ExitStack() as stack:
            towers = [stack.enter_context(running(variant, exact, threads)) for variant in chosen]
            fitted = _fit(towers, exact, labels, some, rows, report)
        found |= {str(variant): one for variant, one in zip(chosen, fitted, strict=True)}
    return found


def _fit(
    towers: Sequence[Encoder],
    exact: TorchModel,
    labels: Sequence[LabelEvidence],
    photos: Sequence[KnownPhoto],
    rows: Floats,
    report: Report,
) -> list[Fitted]:
    held_out = [photo for photo in photos if photo.role == MEASURE]
    others = [photo for photo in photos if photo.role != MEASURE]
    measured, measured_photos, failed = _cosines([exact, *towers], held_out, rows, "held-out photos", report)
    fitting, fitting_photos, more_failed = _cosines(towers, others, rows, "photos", report)
    known, seen_known = truth(measured_photos, labels), truth(fitting_photos, labels)
    seen = np.array([photo.role == SEEN for photo in fitting_photos], bool)
    result = []
    for cosines, held in zip(fitting, measured[1:], strict=True):
        fit = fit_thresholds(cosines, seen_known, seen)
        calibration = {
            "photos": len(measured_photos) + len(fitting_photos),
            "unreadable": failed + more_failed,
            "optimism": round(fit.optimism, 3),
            "labels_fitted": int((fit.positives > 0).sum()),
            "labels_pooled": int((fit.positives == 0).sum()),
        }
        result.append(Fitted(fit, _map(held, known), _map(measured[0], known), calibration, held, known))
    return result


def _cosines(
    encoders: Sequence[Encoder | TorchModel],
    photos: Sequence[KnownPhoto],
    rows: Floats,
    what: str,
    report: Report,
) -> tuple[list[Floats], list[KnownPhoto], int]:
    """Cosines (photos, labels) by each encoder, the photos that could be read, and the number of the others."""
    several = _Several(encoders)
    paths = [photo.path for photo in photos]
    vectors, kept, errors = encode_photos(several, paths, lambda done, total: report(what, done, total))
    if not kept:
        return [np.zeros((0, len(rows)), np.float32)] * len(encoders), [], len(errors)
    parts = np.split(vectors, len(encoders), axis=1)
    return [part @ rows.T for part in parts], [photos[i] for i in kept], len(errors)


class _Several:
    """Several models whose vectors stand beside each other, so that each photo is read once."""

    def __init__(self, encoders: Sequence[Encoder | TorchModel]) -> None:
        self._encoders = encoders
        self.recipe, self.labels = encoders[0].recipe, LabelSet(())
        self.label_vectors = np.zeros((0, 0), np.float32)

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Map normalised pixels (n, 3, s, s) to (n, models × d)."""
        return np.concatenate([encoder.encode_pixels(pixels) for encoder in self._encoders], axis=1)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Map texts to (n, models × d)."""
        return np.concatenate([encoder.encode_texts(texts) for encoder in self._encoders], axis=1)


def _map(cosines: Floats, known: NDArray[np.int8]) -> float:
    """Mean average precision as `tagging` has it; 0 where no label can be measured."""
    measured = ((known == 1).sum(axis=0) >= ENOUGH) & (known == 0).any(axis=0)
    if not measured.any():
        return 0.0
    ranking = Ranking(cosines[:, measured], known[:, measured])
    return ranking.mean_average_precision(np.ones(len(cosines), np.int64))

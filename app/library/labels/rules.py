"""By which rule each label is given: the bundle's rules, moved by a person's corrections, and the custom labels.

A rule is a vector, a threshold and a slope, see `mobileclip.zeroshot.Label`. The bundle's thresholds were fitted on
other people's photos. Each correction is one more labeled photo, from the very library that the rule is for.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.library.errors import LibraryError
from app.library.search.rank import robust_deviation, strong_from
from app.library.store.connection import Store
from app.library.store.corrections import corrected_vectors, remove_corrections_of_label
from app.library.store.custom_labels import (
    CustomLabel,
    Fit,
    fit_of,
    list_custom_labels,
    put_custom_label,
    put_fit,
    remove_custom_label,
)
from app.library.store.matrix import Matrix, load_matrix
from app.library.store.tags import forget_label
from app.library.store.vectors import id_of_model
from mobileclip.vectors import Floats
from mobileclip.zeroshot import Label, LabelSet, average_prompts

if TYPE_CHECKING:
    from mobileclip.model import Model

CUSTOM_GROUP = "yours"

# Corrections are weighed against the fitted threshold as if that came from a normal distribution of this width: one
# rejection on a photo that got the label with 60 % is just enough to take it from similar photos.
PRIOR_LOGITS = 1.0
# No matter how many corrections there are, a photo at even odds becomes 2 % or 98 %, not more.
MOST_LOGITS = 4.0

# The ends of the sensitivity, in deviations of the library's cosines: strict is so far above what a search calls
# strong, generous so far above the library's median, which a sixth of the photos usually exceed.
STRICT_DEVIATIONS = 2.0
GENEROUS_DEVIATIONS = 1.0
# A library of a few photos has hardly any deviation, and the slider should still have an effect.
LEAST_DEVIATION = 0.01
# For a model without labels, which has no slopes to take over.
USUAL_SLOPE = 10.0


@dataclass(frozen=True)
class Rules:
    """All labels that one model gives over one library.

    Attributes:
        labels: with the thresholds that hold now.
        vectors: float32 (labels, d), unit rows.
        special: name → a text that changes with the rule, for each label that follows another rule than the bundle's.
    """

    labels: LabelSet
    vectors: Floats
    special: Mapping[str, str]

    def decide(self, vectors: Floats) -> list[list[tuple[str, float]]]:
        """Decide all labels for unit rows (n, d): n lists of (label, score), best first."""
        given, scores = self.labels.give(vectors @ self.vectors.T)
        found: list[list[tuple[str, float]]] = [[] for _ in vectors]
        names = [label.name for label in self.labels]
        rows, columns = np.nonzero(given)
        for row, column, score in zip(rows.tolist(), columns.tolist(), scores[rows, columns].tolist(), strict=True):
            found[row].append((names[column], score))
        for tags in found:
            tags.sort(key=lambda tag: -tag[1])
        return found

    def decide_one(self, name: str, vectors: Floats) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Decide one label for unit rows (n, d): bool (n,) whether it is given, and its probability, float64 (n,)."""
        related = self.labels.related(name)
        rows = [self.row_of[label.name] for label in related]
        given, scores = related.give(vectors @ self.vectors[rows].T)
        column = [label.name for label in related].index(name)
        return given[:, column], scores[:, column]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Label name → its row in `vectors`."""
        return {label.name: row for row, label in enumerate(self.labels)}


def rules_of(store: Store, model: "Model", matrix: Matrix | None = None) -> Rules:
    """The rules for one model: the bundle's labels and the custom labels, each moved by the corrections on it.

    Custom labels that were not fitted to this model yet are fitted first, by its text tower; they are left out if the
    index holds no vectors of the model, because there is nothing to fit to.
    """
    model_id = id_of_model(store, model.fingerprint)
    labels, rows = list(model.labels), [model.label_vectors]
    custom = set()
    for label, vector in [] if model_id is None else _custom_rules(store, model, model_id, matrix):
        labels.append(label)
        rows.append(vector[None])
        custom.add(label.name)
    vectors = np.concatenate(rows).astype(np.float32) if labels else np.empty((0, model.dim), np.float32)
    corrected = {} if model_id is None else corrected_vectors(store, model_id, model.dim)
    special = {}
    for number, label in enumerate(labels):
        if label.name in corrected:
            decided, verdicts = corrected[label.name]
            labels[number] = refit(label, decided @ vectors[number], verdicts)
        if label.name in custom or label.name in corrected:
            special[label.name] = _mark(model.fingerprint, labels[number], vectors[number])
    return Rules(LabelSet(labels, model.labels.exclusive), vectors, special)


def refit(label: Label, cosines: Floats, verdicts: NDArray[np.bool_]) -> Label:
    """Move a label's threshold by what a person decided.

    The maximum a posteriori of the threshold t: each correction is a labeled photo under the label's logistic curve
    (Platt 1999), and the fitted threshold is the prior, normal with a deviation of PRIOR_LOGITS / slope. With
    u = slope · (t − fitted) and x the logit each photo had before, u minimizes

        Σ log(1 + exp(−y (x − u))) + u² / (2 PRIOR_LOGITS²),    y = +1 for accepted, −1 for rejected,

    which is convex, so that there is one answer, and it does not depend on the order of corrections. u is kept within
    ± MOST_LOGITS. The slope stays: people correct labels that were in doubt, and those photos say little about it.

    Args:
        label: with the threshold as it was fitted.
        cosines: of the corrected photos with the label, (n,).
        verdicts: bool (n,), True for accepted.
    """
    logits = label.slope * (np.asarray(cosines, np.float64) - label.threshold)
    signs = np.where(verdicts, 1.0, -1.0)

    def downhill(moved: float) -> float:
        pulls = signs * (0.5 - 0.5 * np.tanh(0.5 * signs * (logits - moved)))
        return float(pulls.sum()) + moved / PRIOR_LOGITS**2

    low, high = -MOST_LOGITS, MOST_LOGITS
    for _ in range(60):
        middle = (low + high) / 2
        if downhill(middle) > 0:
            high = middle
        else:
            low = middle
    return replace(label, threshold=label.threshold + (low + high) / 2 / label.slope)


def save_custom_label(store: Store, model: "Model", label: CustomLabel) -> None:
    """Add or change a custom label; `app.library.labels.tagging.refresh` then gives it to photos.

    Raises:
        LibraryError: no name, no phrase, phrases that cancel each other out, or a name that a label of the model has.
    """
    if not label.name.strip() or not any(phrase.strip() for phrase in label.phrases):
        raise LibraryError("a label needs a name and at least one phrase that describes it")
    if label.name in model.labels:
        raise LibraryError(f"the model already has a label {label.name!r}; choose another name")
    _vector_of(model, label)
    with store.transaction():
        put_custom_label(store, label)


def delete_custom_label(store: Store, name: str) -> None:
    """Delete a custom label with its tags and all decisions on it."""
    with store.transaction():
        if remove_custom_label(store, name):
            remove_corrections_of_label(store, name)
            forget_label(store, name)


def fit(model: "Model", matrix: Matrix, label: CustomLabel) -> Fit:
    """Fit a custom label to a library.

    At a sensitivity of 0.5 the label is given to what a search for the phrases would call strong; from there the
    threshold moves in a straight line to either end. It then stays as it is, even when the library grows, so that no
    photo loses a label because another photo was added.
    """
    vector = _vector_of(model, label)
    scores = matrix.rows @ vector
    strong = strong_from(scores, [known.threshold for known in model.labels])
    deviation = max(robust_deviation(scores), LEAST_DEVIATION)
    strict = strong + STRICT_DEVIATIONS * deviation
    generous = min(float(np.median(scores)) + GENEROUS_DEVIATIONS * deviation, strong - deviation)
    threshold = float(np.interp(label.sensitivity, [0, 0.5, 1], [strict, strong, generous]))
    slopes = [known.slope for known in model.labels]
    slope = float(np.median(slopes)) if slopes else USUAL_SLOPE
    return Fit(vector, threshold, slope)


def _vector_of(model: "Model", label: CustomLabel) -> Floats:
    try:
        return average_prompts(model.encode_texts(list(label.phrases)))
    except ValueError:
        raise LibraryError(f"the phrases of {label.name!r} cancel each other out; drop one") from None


def _custom_rules(store: Store, model: "Model", model_id: int, matrix: Matrix | None) -> list[tuple[Label, Floats]]:
    found = []
    for custom in list_custom_labels(store):
        if custom.name in model.labels:  # a new bundle may have learned it; then its fitted rule is the better one
            continue
        fitted = fit_of(store, model_id, custom.name)
        if fitted is None:
            matrix = load_matrix(store, model.fingerprint) if matrix is None else matrix
            if len(matrix.ids) == 0:
                continue
            fitted = fit(model, matrix, custom)
            with store.transaction():
                put_fit(store, model_id, custom.name, fitted)
        label = Label(custom.name, CUSTOM_GROUP, custom.phrases, fitted.threshold, fitted.slope)
        found.append((label, fitted.vector))
    return found


def _mark(fingerprint: str, label: Label, vector: Floats) -> str:
    numbers: Sequence[float] = (label.threshold, label.slope)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(fingerprint.encode() + np.array(numbers, "<f8").tobytes() + vector.astype("<f4").tobytes())
    return digest.hexdigest()

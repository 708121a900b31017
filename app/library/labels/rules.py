"""By which rule each label is given: the bundle's, moved by a person's corrections; and the person's own labels.

A rule is a vector, a threshold and a slope, see `mobileclip.zeroshot.Label`. The bundle's thresholds were fitted on
other people's photos. Each ✓ or ✗ is one more labelled photo, from the very library that the rule is for.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.library.errors import LibraryError
from app.library.search.rank import robust_deviation, strong_from
from app.library.store.matrix import Matrix, load_matrix
from app.library.store.store import STORED, Rows, Store, on_sphere
from mobileclip.zeroshot import TAG_PROBABILITY, Label, LabelSet, average_prompts

if TYPE_CHECKING:
    from mobileclip.model import Model

OWN_GROUP = "yours"

# What the corrections say is weighed against the fitted threshold as if that came from a normal distribution of this
# width: one ✗ on a photo that was given the label with 60 % is just enough to take it from photos like it.
PRIOR_LOGITS = 1.0
# However many corrections: a photo that was as likely as not becomes 2 % or 98 %, not more.
MOST_LOGITS = 4.0

# The ends of the sensitivity, in deviations of the library's cosines: strict lies so far above what a search calls
# strong, generous so far above the library's median, where a sixth of the photos usually lie.
STRICT_DEVIATIONS = 2.0
GENEROUS_DEVIATIONS = 1.0
# A library of a few photos has hardly any deviation, and the slider should still do something.
LEAST_DEVIATION = 0.01
# Of a model without labels, whose slopes could be taken over.
USUAL_SLOPE = 10.0


@dataclass(frozen=True)
class OwnLabel:
    """A person's own label: what it is called, the phrases that describe it, and 0 (strict) … 1 (generous)."""

    name: str
    phrases: tuple[str, ...]
    sensitivity: float


@dataclass(frozen=True)
class Rules:
    """All labels that one model gives over one library.

    Attributes:
        labels: with the thresholds that hold now.
        vectors: float32 (labels, d), unit rows.
        special: name → a text that changes with the rule, for each label that follows another rule than the bundle's.
    """

    labels: LabelSet
    vectors: Rows
    special: Mapping[str, str]

    def decide(self, vectors: Rows) -> list[list[tuple[str, float]]]:
        """Decide each label on its own for unit rows (n, d): n lists of (label, score), best first."""
        scores = self.labels.scores(vectors @ self.vectors.T)
        found: list[list[tuple[str, float]]] = [[] for _ in vectors]
        names = [label.name for label in self.labels]
        rows, columns = np.nonzero(scores >= TAG_PROBABILITY)
        for row, column, score in zip(rows.tolist(), columns.tolist(), scores[rows, columns].tolist(), strict=True):
            found[row].append((names[column], score))
        for tags in found:
            tags.sort(key=lambda tag: -tag[1])
        return found

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Label name → its row in `vectors`."""
        return {label.name: row for row, label in enumerate(self.labels)}

    def scores_of(self, name: str, vectors: Rows) -> NDArray[np.float64]:
        """Probability of one label for unit rows (n, d), float64 (n,)."""
        label = self.labels[name]
        return LabelSet([label]).scores((vectors @ self.vectors[self.row_of[name]])[:, None])[:, 0]


def rules_of(store: Store, model: "Model", matrix: Matrix | None = None) -> Rules:
    """The rules for one model: the bundle's labels and the person's own, each moved by the corrections on it.

    Own labels that this model does not know yet are fitted to it first, by its text tower; while the index holds no
    vectors of the model there is nothing to fit to, and they are left out.
    """
    model_id = store.model_id(model.fingerprint)
    labels, rows = list(model.labels), [model.label_vectors]
    own = set()
    for label, vector in [] if model_id is None else _own_rules(store, model, model_id, matrix):
        labels.append(label)
        rows.append(vector[None])
        own.add(label.name)
    vectors = np.concatenate(rows).astype(np.float32) if labels else np.empty((0, model.dim), np.float32)
    corrected = {} if model_id is None else _corrected(store, model_id, model.dim)
    special = {}
    for number, label in enumerate(labels):
        if label.name in corrected:
            decided, verdicts = corrected[label.name]
            labels[number] = refit(label, decided @ vectors[number], verdicts)
        if label.name in own or label.name in corrected:
            special[label.name] = _mark(model.fingerprint, labels[number], vectors[number])
    return Rules(LabelSet(labels), vectors, special)


def refit(label: Label, cosines: Rows, verdicts: NDArray[np.bool_]) -> Label:
    """Move a label's threshold by what a person decided.

    The maximum a posteriori of the threshold t: each correction is a labelled photo under the label's logistic curve
    (Platt 1999), and the fitted threshold is the prior, normal with a deviation of PRIOR_LOGITS / slope. With
    u = slope · (t − fitted) and x the logit each photo had before, u minimises

        Σ log(1 + exp(−y (x − u))) + u² / (2 PRIOR_LOGITS²),    y = +1 for ✓, −1 for ✗,

    which is convex, so that there is one answer, and it does not depend on the order of corrections. u is kept within
    ± MOST_LOGITS. The slope stays: a person's corrections lie where the label was in doubt and tell little about it.

    Args:
        label: with the threshold as it was fitted.
        cosines: of the corrected photos with the label, (n,).
        verdicts: bool (n,), True for ✓.
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


def own_labels(store: Store) -> list[OwnLabel]:
    """The person's own labels, by name."""
    rows = store.sql.execute("SELECT name, phrases, sensitivity FROM own_labels ORDER BY name")
    return [OwnLabel(name, tuple(json.loads(phrases)), sensitivity) for name, phrases, sensitivity in rows]


def save_own_label(store: Store, model: "Model", label: OwnLabel) -> None:
    """Make or change an own label; the tags follow with `app.library.labels.tags.refresh`.

    Raises:
        LibraryError: no name, no phrase, phrases that cancel one another out, or a name that the model's labels have.
    """
    if not label.name.strip() or not any(phrase.strip() for phrase in label.phrases):
        raise LibraryError("a label needs a name and at least one phrase that describes it")
    if label.name in model.labels:
        raise LibraryError(f"the model has a label {label.name!r} already; choose another name")
    _own_vector(model, label)
    with store.transaction():
        store.sql.execute("DELETE FROM own_fits WHERE name = ?", (label.name,))
        store.sql.execute(
            "INSERT INTO own_labels VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " phrases = excluded.phrases, sensitivity = excluded.sensitivity",
            (label.name, json.dumps(list(label.phrases)), min(max(label.sensitivity, 0.0), 1.0), time.time()),
        )


def delete_own_label(store: Store, name: str) -> None:
    """Forget an own label with its tags and all decisions on it."""
    with store.transaction():
        if store.sql.execute("DELETE FROM own_labels WHERE name = ?", (name,)).rowcount:
            store.sql.execute("DELETE FROM corrections WHERE label = ?", (name,))
            store.sql.execute("DELETE FROM tags WHERE label = ?", (name,))
            store.sql.execute("DELETE FROM decided WHERE label = ?", (name,))


def own_rule(model: "Model", matrix: Matrix, label: OwnLabel) -> tuple[Label, Rows]:
    """Fit an own label to a library: the rule and its vector, float32 (d,).

    At a sensitivity of 0.5 the label is given to what a search for the phrases would call strong; from there the
    threshold moves in a straight line to either end. It then stays as it is, also when the library grows, so that no
    photo loses a label because another one came.
    """
    vector = _own_vector(model, label)
    scores = matrix.rows @ vector
    strong = strong_from(scores, [known.threshold for known in model.labels])
    deviation = max(robust_deviation(scores), LEAST_DEVIATION)
    strict = strong + STRICT_DEVIATIONS * deviation
    generous = min(float(np.median(scores)) + GENEROUS_DEVIATIONS * deviation, strong - deviation)
    threshold = float(np.interp(label.sensitivity, [0, 0.5, 1], [strict, strong, generous]))
    slopes = [known.slope for known in model.labels]
    slope = float(np.median(slopes)) if slopes else USUAL_SLOPE
    return Label(label.name, OWN_GROUP, label.phrases, threshold, slope), vector


def _own_vector(model: "Model", label: OwnLabel) -> Rows:
    try:
        return average_prompts(model.encode_texts(list(label.phrases)))
    except ValueError:
        raise LibraryError(f"the phrases of {label.name!r} cancel one another out; leave one away") from None


def _own_rules(store: Store, model: "Model", model_id: int, matrix: Matrix | None) -> list[tuple[Label, Rows]]:
    query = "SELECT vector, threshold, slope FROM own_fits WHERE model_id = ? AND name = ?"
    found = []
    for own in own_labels(store):
        if own.name in model.labels:  # a new bundle may have learnt it; then its fitted rule is the better one
            continue
        row = store.sql.execute(query, (model_id, own.name)).fetchone()
        if row is not None:
            label = Label(own.name, OWN_GROUP, own.phrases, row[1], row[2])
            found.append((label, np.frombuffer(row[0], "<f4").astype(np.float32)))
            continue
        matrix = load_matrix(store, model.fingerprint) if matrix is None else matrix
        if len(matrix.ids) == 0:
            continue
        label, vector = own_rule(model, matrix, own)
        with store.transaction():
            store.sql.execute(
                "INSERT OR REPLACE INTO own_fits VALUES (?, ?, ?, ?, ?)",
                (model_id, own.name, vector.astype("<f4").tobytes(), label.threshold, label.slope),
            )
        found.append((label, vector))
    return found


def _corrected(store: Store, model_id: int, dim: int) -> dict[str, tuple[Rows, NDArray[np.bool_]]]:
    """Label → vectors (n, d) and verdicts (n,) of the photos that a person decided on and that this model has seen."""
    rows = store.sql.execute(
        "SELECT k.label, k.verdict, v.vector FROM corrections k JOIN contents c ON c.hash = k.hash"
        " JOIN vectors v ON v.content_id = c.id AND v.model_id = ? ORDER BY k.label, k.hash",
        (model_id,),
    )
    found: dict[str, tuple[list[bytes], list[int]]] = {}
    for label, verdict, vector in rows:
        vectors, verdicts = found.setdefault(label, ([], []))
        vectors.append(vector)
        verdicts.append(verdict)
    return {
        label: (
            on_sphere(np.frombuffer(b"".join(vectors), STORED).reshape(-1, dim).astype(np.float32)),
            np.array(verdicts, dtype=np.bool_),
        )
        for label, (vectors, verdicts) in found.items()
    }


def _mark(fingerprint: str, label: Label, vector: Rows) -> str:
    numbers: Sequence[float] = (label.threshold, label.slope)
    digest = hashlib.blake2b(digest_size=16)
    digest.update(fingerprint.encode() + np.array(numbers, "<f8").tobytes() + vector.astype("<f4").tobytes())
    return digest.hexdigest()

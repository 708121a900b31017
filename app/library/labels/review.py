"""The review queue: labels that the model is unsure of, for a person to decide."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from app.library.labels.rules import Rules
from app.library.store.connection import Store
from app.library.store.corrections import corrected_contents
from app.library.store.matrix import Matrix
from app.library.store.photos import Photo, list_photos, photos_with
from mobileclip.vectors import Floats

# A label is in doubt up to this many logits from even odds: 27 % to 73 %.
_DOUBT_LOGITS = 1.0
_DOUBTS_PER_LABEL = 5
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Doubt:
    """A label that the model is not sure of on a photo; `given` says whether the photo has it now."""

    photo: Photo
    label: str
    score: float
    given: bool


def doubts(store: Store, rules: Rules, matrix: Matrix, limit: int) -> list[Doubt]:
    """The decisions that would help most: labels closest to where they begin to be given, whether given or not.

    At most five for each label, so that one bad label does not fill the screen, and none that a person has decided.

    Args:
        store: the open index.
        rules: all labels as they are given now.
        matrix: all vectors of the model.
        limit: how many at most.
    """
    corrected = corrected_contents(store)
    names = [label.name for label in rules.labels]
    if not names or len(matrix.ids) == 0:
        return []
    thresholds = np.array([label.threshold for label in rules.labels], np.float32)
    slopes = np.array([label.slope for label in rules.labels], np.float32)
    edges = np.array([label.edge for label in rules.labels], np.float32)[:, None]
    # Enough for each label, even if all that were decided are among them.
    most = _DOUBTS_PER_LABEL + max(Counter(label for _, label in corrected).values(), default=0)
    nearest: list[list[tuple[float, int, float]]] = [[] for _ in names]  # (distance, content id, logit) for each label
    for start in range(0, len(matrix.ids), _BLOCK_ROWS):
        rows = np.asarray(matrix.rows[start : start + _BLOCK_ROWS])
        logits: Floats = ((rows @ rules.vectors.T - thresholds) * slopes).T
        distances = np.abs(logits - edges)
        for label in np.flatnonzero(distances.min(axis=1) < _DOUBT_LOGITS).tolist():
            # Closer than what this label has already, and no more than could be needed.
            bound = nearest[label][-1][0] if len(nearest[label]) == _DOUBTS_PER_LABEL else _DOUBT_LOGITS
            places = np.flatnonzero(distances[label] < bound)
            if len(places) > most:
                places = places[np.argpartition(distances[label, places], most - 1)[:most]]
            found = [
                (float(distances[label, place]), int(matrix.ids[start + place]), float(logits[label, place]))
                for place in places.tolist()
                if (int(matrix.ids[start + place]), names[label]) not in corrected
            ]
            nearest[label] = sorted([*nearest[label], *found])[:_DOUBTS_PER_LABEL]
    ranked = sorted((*entry, names[label]) for label, entries in enumerate(nearest) for entry in entries)[:limit]
    held = photos_with(store, [content for _, content, _, _ in ranked])
    photos = {photo.id: photo for photo in list_photos(store, [ids[0] for ids in held.values()])}
    return [
        Doubt(
            photos[held[content][0]],
            label,
            float(0.5 + 0.5 * np.tanh(0.5 * logit)),
            logit >= rules.labels[label].edge,
        )
        for _, content, logit, label in ranked
        if content in held and held[content][0] in photos
    ]

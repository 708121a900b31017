"""Where in one photo of the library a label or any other text is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.library.labels.rules import rules_of
from app.library.store.connection import Store
from app.library.store.matrix import Matrix
from app.library.store.photos import Photo
from mobileclip.localize import Box, boxes, heat, heat_maps
from mobileclip.vectors import Floats

if TYPE_CHECKING:
    from mobileclip.model import Model

# A text without a threshold counts as present from the cosine that this share of the labels' thresholds is below.
_PRESENT_QUANTILE = 0.25
_USUAL_PRESENCE = 0.2


@dataclass(frozen=True)
class Where:
    """Where in a photo a text is.

    Attributes:
        heat: float32 (h, w), 0 … 1 over the whole upright photo, row 0 at its top.
        boxes: the hot regions, the hottest first; none if the text is not present.
        score: cosine of the photo with the text.
        present: whether that is enough for the text to be in the photo.
    """

    heat: Floats
    boxes: tuple[Box, ...]
    score: float
    present: bool


def where(store: Store, model: "Model", matrix: Matrix, photo: Photo, text: str) -> Where:
    """Find a text in a photo; for the name of a label, with the label's own vector and threshold.

    Raises:
        LocalizeError: the model cannot localize.
        PhotoError: the file is gone or cannot be read.
    """
    known = rules_of(store, model, matrix)
    if text in known.labels:
        vector, threshold = known.vectors[known.row_of[text]][None], known.labels[text].threshold
    else:
        vector = model.encode_texts([text])
        thresholds = [label.threshold for label in model.labels]
        threshold = float(np.quantile(thresholds, _PRESENT_QUANTILE)) if thresholds else _USUAL_PRESENCE
    values = heat(heat_maps(model, photo.path, vector)[0], threshold)
    score = _cosine(model, matrix, photo, vector[0])
    present = score >= threshold
    return Where(values, boxes(values) if present else (), score, present)


def _cosine(model: "Model", matrix: Matrix, photo: Photo, vector: Floats) -> float:
    place = int(np.searchsorted(matrix.ids, photo.content_id))
    if place < len(matrix.ids) and matrix.ids[place] == photo.content_id:
        return float(matrix.rows[place] @ vector)
    return float(model.encode_images([photo.path])[0] @ vector)

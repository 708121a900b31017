"""A teacher's embeddings of a whole corpus."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TeacherBank:
    """One teacher's unit embeddings of every photo and text of the corpus.

    Attributes:
        photos: (samples, d) float32, NaN for unreadable photos.
        texts: (texts, d) float32.
        logit_scale: the logit scale at which the student matches its similarities.
        classes: (c, d) float32, its embeddings of the classes of its classifier, if it has one.
        posterior: (samples, c) float32, the classifier's log-probabilities, if a loss needs them.
    """

    photos: Tensor
    texts: Tensor
    logit_scale: float
    classes: Tensor | None = None
    posterior: Tensor | None = None

"""A teacher's vectors of a whole corpus."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TeacherBank:
    """One teacher's unit vectors of every photo and text of the corpus, computed once.

    Attributes:
        photos: (samples, d) float32, NaN for photos that could not be read.
        texts: (texts, d) float32.
        logit_scale: at which its similarities are mimicked.
        classes: (c, d) float32, its vectors of the texts that stand for its classifier's classes, if it has one.
        posterior: (samples, c) float32, the classifier's own log-probabilities.
    """

    photos: Tensor
    texts: Tensor
    logit_scale: float
    classes: Tensor | None = None
    posterior: Tensor | None = None

"""Where a batch's teacher embeddings come from: stored with the samples, or teachers that run at every step.

Stored ones are cached embeddings of whole photos, or reinforced data. Running teachers see the crop that the student
sees; each view is new. That suits data that is used only once; otherwise, reinforced data is much cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from distill.feeds.steps import StepRows
from distill.losses import TeacherEmbeddings
from distill.teachers.base import ClassifyingTeacher, NamingTeacher, Teacher, unit_tensor


class Targets(Protocol):
    """Makes the teachers' embeddings of a batch from what workers prepared."""

    widths: tuple[int, ...]
    """The dimension of each teacher's embeddings."""
    scales: tuple[float, ...]
    """Each teacher's logit scale."""
    identity: str
    """What the embeddings depend on, besides the samples."""
    classes: Tensor | None
    """(c, d) float32, the first teacher's embeddings of its classifier's classes; see `TeacherBank`."""

    def embeddings(self, rows: StepRows) -> tuple[TeacherEmbeddings, ...]:
        """Return each teacher's unit embeddings of the photos (n, d) and texts (m, d) of a step."""

    def posterior(self, rows: StepRows) -> Tensor | None:
        """Return the first teacher's log-probabilities of its classes (n, c), if a loss needs them."""


class StoredTargets:
    """The samples bring the embeddings; see `Targets`."""

    def __init__(self, widths: Sequence[int], scales: Sequence[float], classes: Tensor | None = None) -> None:
        self.widths, self.scales, self.classes, self.identity = tuple(widths), tuple(scales), classes, ""

    def embeddings(self, rows: StepRows) -> tuple[TeacherEmbeddings, ...]:
        """See `Targets`."""
        photos = rows.photo_targets or tuple(torch.zeros(0, width) for width in self.widths)
        return tuple(map(TeacherEmbeddings, photos, rows.text_targets, self.scales))

    def posterior(self, rows: StepRows) -> Tensor | None:
        """See `Targets`."""
        return rows.posterior


class OnlineTargets:
    """The samples bring views and texts, which teachers encode in this process between the steps; see `Targets`.

    Args:
        teachers: one or more.
        classify: whether a loss needs the first teacher's class probabilities.
    """

    def __init__(self, teachers: Sequence[Teacher], classify: bool = False) -> None:
        self.teachers, self.classify = tuple(teachers), classify
        self.widths = tuple(teacher.encode_texts(["a photo"]).shape[1] for teacher in teachers)
        self.scales = tuple(teacher.logit_scale for teacher in teachers)
        self.identity = "|".join(teacher.identity for teacher in teachers)
        first = teachers[0]
        vectors = first.class_embeddings() if isinstance(first, NamingTeacher) else None
        self.classes = None if vectors is None else unit_tensor(vectors)

    def embeddings(self, rows: StepRows) -> tuple[TeacherEmbeddings, ...]:
        """See `Targets`."""
        views = rows.photo_targets or tuple(torch.empty(0) for _ in self.teachers)
        return tuple(
            TeacherEmbeddings(
                unit_tensor(teacher.encode_pictures(_pictures(photos))) if len(photos) else torch.zeros(0, width),
                unit_tensor(teacher.encode_texts(rows.texts)),
                scale,
            )
            for teacher, photos, width, scale in zip(self.teachers, views, self.widths, self.scales, strict=True)
        )

    def posterior(self, rows: StepRows) -> Tensor | None:
        """See `Targets`."""
        first = self.teachers[0]
        if not (self.classify and rows.photo_targets and isinstance(first, ClassifyingTeacher)):
            return None
        return first.classify_pictures(_pictures(rows.photo_targets[0]))


def _pictures(views: Tensor) -> list[Image.Image]:
    """Return views (n, px, px, 3) uint8 as pictures."""
    return [Image.fromarray(view) for view in views.numpy()]

"""The input of one training step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.losses import TeacherEmbeddings


@dataclass(frozen=True)
class Batch:
    """The input of one training step: this process's photos and texts with their teacher embeddings.

    The first n texts belong to the n photos, row by row; the others have no photo.

    Attributes:
        pixels: (n, 3, s, s) float32; (0, 3, 1, 1) in a stage without photos; in a stage with `features`, the
            trunk's features (n, width) instead.
        tokens: (m, length) int64, m ≥ n.
        groups: (n,) int64; photos with equal numbers show the same and are each other's positives.
        teachers: each teacher's embeddings, image (n, d) and text (m, d), and its constant logit scale.
        reference: each teacher's embeddings of other photos and texts, which the affinity loss compares with; empty
            if `loss.bank` is 0.
        classes: (c, d) float32, the first teacher's embeddings of its classifier's classes; see `TeacherBank`.
        posterior: (n, c) float32, log-probabilities of these classes.
        tried: number of photos that should be in the batch; `tried` − n of them couldn't be read.
    """

    pixels: Tensor
    tokens: Tensor
    groups: Tensor
    teachers: tuple[TeacherEmbeddings, ...]
    reference: tuple[TeacherEmbeddings, ...] = ()
    classes: Tensor | None = None
    posterior: Tensor | None = None
    tried: int = 0

    def __len__(self) -> int:
        """The number of photos, or of texts in a stage without photos."""
        return len(self.pixels) or len(self.tokens)

    @property
    def unread(self) -> int:
        """The number of photos that couldn't be read."""
        return max(0, self.tried - len(self.pixels))

    def to(self, device: torch.device) -> Batch:
        """Copy all tensors to a device."""

        def moved(teachers: tuple[TeacherEmbeddings, ...]) -> tuple[TeacherEmbeddings, ...]:
            return tuple(TeacherEmbeddings(t.image.to(device), t.text.to(device), t.scale) for t in teachers)

        return dataclasses.replace(
            self,
            pixels=self.pixels.to(device),
            tokens=self.tokens.to(device),
            groups=self.groups.to(device),
            teachers=moved(self.teachers),
            reference=moved(self.reference),
            classes=None if self.classes is None else self.classes.to(device),
            posterior=None if self.posterior is None else self.posterior.to(device),
        )

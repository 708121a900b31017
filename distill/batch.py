"""What one training step is given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.losses import Taught


@dataclass(frozen=True)
class Batch:
    """What one training step is given: this process's photos and texts, and what the teachers say of them.

    The first n texts belong to the n photos, row by row; further texts have no photo.

    Attributes:
        pixels: (n, 3, s, s) float32, or (0, 3, 1, 1) where only texts are learnt from; (n, width) where the trunk's
            features stand in for them.
        tokens: (m, length) int64, m ≥ n.
        groups: (n,) int64, what each photo shows: equal numbers are positives of each other.
        taught: one a teacher: unit vectors image (n, d), text (m, d) and the teacher's constant logit scale.
        gallery: one a teacher: vectors of other photos and texts of the corpus, that affinities are compared with;
            empty without a bank.
        classes: (c, d) float32, the first teacher's vectors of its classifier's classes, or None; see `TeacherBank`.
        posterior: (n, c) float32, log-probabilities of these classes, or None.
        read: photos tried; `read` − n of them could not be read.
    """

    pixels: Tensor
    tokens: Tensor
    groups: Tensor
    taught: tuple[Taught, ...]
    gallery: tuple[Taught, ...] = ()
    classes: Tensor | None = None
    posterior: Tensor | None = None
    read: int = 0

    def __len__(self) -> int:
        """How many photos; texts where there are none."""
        return len(self.pixels) or len(self.tokens)

    @property
    def unread(self) -> int:
        """Photos that could not be read."""
        return max(0, self.read - len(self.pixels))

    def to(self, device: torch.device) -> Batch:
        """Return this batch on a device."""

        def moved(taught: Taught) -> Taught:
            return Taught(taught.image.to(device), taught.text.to(device), taught.scale)

        return dataclasses.replace(
            self,
            pixels=self.pixels.to(device),
            tokens=self.tokens.to(device),
            groups=self.groups.to(device),
            taught=tuple(moved(one) for one in self.taught),
            gallery=tuple(moved(one) for one in self.gallery),
            classes=None if self.classes is None else self.classes.to(device),
            posterior=None if self.posterior is None else self.posterior.to(device),
        )

"""The losses that a recipe can give a weight, and what each of them needs.

A new loss is a function with the decorator `register`. The recipe key `loss.NAME`, the checks of a recipe against its
teachers, and the training loop follow from the registration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn


class TeacherEmbeddings(NamedTuple):
    """One teacher's unit embeddings of a batch's photos (n, e) and texts (m, e), and its constant logit scale."""

    image: Tensor
    text: Tensor
    scale: float


class Need(Enum):
    """An input that not every run has. A recipe that gives a loss a weight but lacks what it needs is refused."""

    TEACHER = "any teacher"
    SAME_DIMENSION = "a teacher whose embeddings have the student's dimension"
    REFERENCE = "teacher embeddings of other photos and texts; with `loss.bank` = 0, the loss compares within the batch"
    POSTERIOR = "class probabilities of the first teacher, whose embeddings have the student's dimension"
    MASKED = "the student's embeddings of photos with masked patches, at the cost of a second forward pass"
    BIAS = "the learned logit bias, which starts at `loss.bias`"


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """The settings of `[loss]` besides the weights. They hold for every loss that uses them."""

    bank: int = 4096
    """Number of other photos, and of other texts, whose teacher embeddings `affinity` compares with in each step.
    0 compares within the batch instead."""
    masked_share: float = 0.75
    """Share of the patches of a photo that `masked_feature` masks, between 0 and 1."""
    masked_patch: int = 32
    """Side of such a patch, in pixels."""
    bias: float = -10.0
    """Initial logit bias of `siglip` and `soft_sigmoid`. -10 suits large batches."""
    teacher_bias: float = -10.0
    """Logit bias of the teachers in `soft_sigmoid`; for a SigLIP teacher, its own `logit_bias`."""
    siglip_chunk: int = 0
    """Number of texts that `siglip` compares at a time, to save memory. 0 compares all at once."""


@dataclass(frozen=True)
class LossInputs:
    """Everything a loss can use in one step. With several processes, these are the rows of one process.

    Attributes:
        image: the student's unit embeddings of photos (n, d). n = 0 in a step without photos.
        text: the student's unit embeddings of texts (m, d), m ≥ n.
        paired_text: the first n of them, which belong to the photos (n, d).
        scale: the student's logit scale, a scalar (not its logarithm).
        groups: (n,) int64; photos with equal numbers show the same or have the same caption.
        text_groups: (m,) int64, the group of each text. A text without a photo has a group of its own, unless a photo
            has the same text.
        teachers: each teacher's embeddings of these photos and texts.
        settings: the settings of `[loss]`.
        matching: positions in `teachers` of those whose embeddings have the student's dimension d.
        reference: each teacher's embeddings of other photos and texts, or empty.
        classes: (c, d), the first teacher's embeddings of its classifier's classes.
        posterior: (n, c), log-probabilities of these classes.
        masked: the student's embeddings of the photos with masked patches (n, d).
        bias: the student's logit bias, a scalar.
        modules: the modules that losses brought along, by name.
    """

    image: Tensor
    text: Tensor
    paired_text: Tensor
    scale: Tensor
    groups: Tensor
    text_groups: Tensor
    teachers: Sequence[TeacherEmbeddings]
    settings: LossSettings
    matching: Sequence[int] = ()
    reference: Sequence[TeacherEmbeddings] = ()
    classes: Tensor | None = None
    posterior: Tensor | None = None
    masked: Tensor | None = None
    bias: Tensor | None = None
    modules: Mapping[str, nn.Module] = field(default_factory=dict)

    @cached_property
    def paired_teachers(self) -> list[TeacherEmbeddings]:
        """Each teacher's embeddings of the photos and the texts that belong to them."""
        return [teacher._replace(text=teacher.text[: len(self.image)]) for teacher in self.teachers]

    @cached_property
    def matching_teachers(self) -> list[TeacherEmbeddings]:
        """As `paired_teachers`, but only of teachers whose embeddings have the student's dimension."""
        return [self.paired_teachers[number] for number in self.matching]

    def needed(self, name: str) -> Tensor:
        """Return an optional tensor that the loss registered as a need.

        Raises:
            ValueError: this step has no such tensor.
        """
        value = getattr(self, name)
        if not isinstance(value, Tensor):
            raise ValueError(f"this step has no {name}; was it registered as a need of the loss?")
        return value


Term = Callable[[LossInputs], Tensor]
"""Computes a loss, a scalar, for one step."""

Modules = Callable[[int, Sequence[int]], Mapping[str, nn.Module]]
"""Creates modules of a loss by name, from the student's dimension and each teacher's. They learn with the student."""


@dataclass(frozen=True)
class Loss:
    """A loss that a recipe can give a weight.

    Attributes:
        name: its key in `[loss]`.
        needs: the inputs that it needs besides the student's embeddings.
        weight: the weight if the recipe doesn't set one.
        photos: computes it in a step with photos.
        texts: computes it in a step without photos; None if it has no meaning there.
        modules: creates what it learns, apart from the student; the student's checkpoint doesn't keep it.
    """

    name: str
    needs: frozenset[Need]
    weight: float
    photos: Term
    texts: Term | None = None
    modules: Modules | None = None

    @property
    def description(self) -> str:
        """What the loss is, in one sentence."""
        return (self.photos.__doc__ or "").partition("\n")[0]

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss compares the student with a teacher."""
        return bool(self.needs & {Need.TEACHER, Need.SAME_DIMENSION, Need.REFERENCE, Need.POSTERIOR})

    def needs_same_dimension(self, settings: LossSettings) -> bool:
        """Whether some teacher's embeddings must have the student's dimension."""
        return Need.SAME_DIMENSION in self.needs or (Need.REFERENCE in self.needs and settings.bank > 0)

    def term(self, inputs: LossInputs) -> Term | None:
        """Return the function that computes the loss in a step, or None if the loss has no meaning there."""
        if len(inputs.image):
            return self.photos
        return None if Need.REFERENCE in self.needs and not inputs.reference else self.texts


LOSSES: dict[str, Loss] = {}
"""Every registered loss by name, in the order in which they are summed."""


def register(
    name: str, *needs: Need, weight: float = 0.0, texts: Term | None = None, modules: Modules | None = None
) -> Callable[[Term], Term]:
    """Register a function as a loss; see `Loss`. Its docstring is the loss's description.

    Raises:
        ValueError: another loss, or a setting of `[loss]`, has this name.
    """

    def add(photos: Term) -> Term:
        if name in LOSSES or hasattr(LossSettings, name):
            raise ValueError(f"[loss] already has {name}")
        LOSSES[name] = Loss(name, frozenset(needs), weight, photos, texts, modules)
        return photos

    return add


def average(terms: Iterator[Tensor] | Sequence[Tensor]) -> Tensor:
    """Return the mean of scalars, such as one per teacher."""
    return torch.stack(list(terms)).mean()

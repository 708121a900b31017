"""What a student is asked to do: match photos and texts, and mimic its teacher's vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.config import LossConfig
from distill.losses import affinity, feature, info_nce
from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP


@dataclass(frozen=True)
class TeacherBank:
    """The teacher's unit vectors of every photo and text of the corpus, computed once.

    Attributes:
        photos: (samples, d) float32.
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


class DistillTask:
    """The losses of a batch.

    The affinity losses compare the student with the *teacher's* vectors of thousands of other texts and photos:
    that costs one matrix product and no forward pass, so small batches learn from a large gallery.
    """

    def __init__(self, model: CLIP, bank: TeacherBank, weights: LossConfig, precision: str = "fp32") -> None:
        self.model, self.bank, self.weights, self.precision = model, bank, weights, precision
        dims = bank.photos.shape[1], model.config.embed_dim
        if dims[0] != dims[1] and (weights.feature or weights.bank or weights.posterior):
            raise ConfigError(
                f"the teacher's vectors have {dims[0]} dimensions, the student's {dims[1]}: "
                "set loss.feature, loss.posterior and loss.bank to 0, or give both the same embed_dim"
            )
        if weights.posterior and (bank.classes is None or bank.posterior is None):
            raise ConfigError("loss.posterior: this teacher has no classifier")

    def __call__(
        self,
        pixels: Tensor,
        tokens: Tensor,
        *,
        rows: NDArray[np.int64],
        text_ids: NDArray[np.int64],
        groups: NDArray[np.int64],
        random: np.random.Generator,
    ) -> dict[str, Tensor]:
        """Return each loss and their weighted sum under `loss`.

        Args:
            pixels: (n, 3, s, s).
            tokens: (n + extra, length); the first n belong to the photos.
            rows: sample numbers (n,) of the photos in the bank.
            text_ids: numbers (n + extra,) of the texts in the bank.
            groups: (n,) what each photo shows.
            random: draws the part of the bank to compare with.
        """
        # Only the towers run in half precision: similarities times a scale of 40 would lose their differences.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            image = self.model.encode_image(pixels)
            text = self.model.encode_text(tokens)
        weights, bank = self.weights, self.bank
        scale = self.model.logit_scale.exp()
        own = torch.from_numpy(groups)
        # A text without a photo is nobody's positive: it gets a number that no photo has.
        others = -1 - torch.arange(len(text) - len(image))
        losses = {"contrastive": info_nce(image, text, scale, own, torch.cat([own, others]))}
        teacher_image, teacher_text = bank.photos[rows], bank.texts[text_ids]
        if weights.feature:
            losses["feature"] = feature(image, teacher_image) + feature(text, teacher_text)
        if weights.affinity:
            losses["affinity"] = self._affinity(image, text, teacher_image, teacher_text, random)
        if weights.posterior:
            # What the classifier saw in a photo survives, although no caption speaks of it.
            assert bank.classes is not None and bank.posterior is not None
            losses["posterior"] = affinity(bank.logit_scale * image @ bank.classes.T, bank.posterior[rows])
        total = sum(getattr(weights, name) * value for name, value in losses.items())
        return {"loss": torch.as_tensor(total), **losses, "logit_scale": scale}

    def texts(self, tokens: Tensor, *, text_ids: NDArray[np.int64], random: np.random.Generator) -> dict[str, Tensor]:
        """Return the losses of texts without photos: the teacher's vectors, and its similarities to the bank.

        Args:
            tokens: (n, length).
            text_ids: numbers (n,) of the texts in the bank.
            random: draws the part of the bank to compare with.
        """
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            text = self.model.encode_text(tokens)
        bank, weights = self.bank, self.weights
        teacher = bank.texts[text_ids]
        losses = {"feature": feature(text, teacher)}
        if weights.bank:
            sides = [all_of[_some(random, len(all_of), weights.bank)] for all_of in (bank.photos, bank.texts)]
            scale = bank.logit_scale
            near = [affinity(scale * text @ side.T, scale * teacher @ side.T) for side in sides]
            losses["affinity"] = torch.stack(near).mean()
        total = sum(getattr(weights, name) * value for name, value in losses.items())
        return {"loss": torch.as_tensor(total), **losses, "logit_scale": self.model.logit_scale.exp()}

    def _affinity(
        self,
        image: Tensor,
        text: Tensor,
        teacher_image: Tensor,
        teacher_text: Tensor,
        random: np.random.Generator,
    ) -> Tensor:
        """Mimic the teacher's similarities, within the batch or to a part of the bank, at the teacher's scale."""
        bank, size = self.bank, self.weights.bank
        student_texts, texts, student_photos, photos = text, teacher_text, image, teacher_image
        if size:
            student_texts = texts = bank.texts[_some(random, len(bank.texts), size)]
            student_photos = photos = bank.photos[_some(random, len(bank.photos), size)]
        scale = bank.logit_scale
        to_texts = affinity(scale * image @ student_texts.T, scale * teacher_image @ texts.T)
        to_photos = affinity(scale * text @ student_photos.T, scale * teacher_text @ photos.T)
        return (to_texts + to_photos) / 2


def _some(random: np.random.Generator, total: int, wanted: int) -> NDArray[np.int64]:
    return random.choice(total, min(total, wanted), replace=False)

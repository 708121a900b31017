"""What a student is asked to do: match photos and texts, and mimic its teachers, by the recipe's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.batch import Batch
from distill.config import LossConfig
from distill.distributed import everyone
from distill.losses import (
    TeacherEmbeddings,
    affinity,
    augmented,
    ensemble,
    feature,
    gradient,
    info_nce,
    interactive,
    siglip,
    soft_sigmoid,
)
from distill.training.qat import FakeQuantizer
from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP

Encoded = dict[str, Tensor]
"""The student's unit vectors: `image` (n, d), `text` (m, d) and, if asked for, `masked` (n, d)."""

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What the towers compute in, by `OptimConfig.precision`; None for single precision."""

TEXT_CHUNKS = 4


class DistillTask(nn.Module):
    """A student with its losses, and the parameters that only the losses have.

    Encoding and losses are apart, so that gradient caching can come between them. With several processes each compares
    its own rows with everyone's; see `distill.distributed`.

    Args:
        model: the student.
        weights: how much of each loss.
        widths: dimensions of each teacher's vectors.
        precision: of the towers.
        quantize: what of the towers is rounded to eight bits; see `OptimConfig`.

    Raises:
        ConfigError: a loss needs vectors as long as the student's, and no teacher has such.
    """

    def __init__(
        self,
        model: CLIP,
        weights: LossConfig,
        widths: Sequence[int] = (),
        precision: str = "fp32",
        quantize: str = "no",
    ) -> None:
        super().__init__()
        self.model, self.weights = model, weights
        self.rounding = FakeQuantizer(model, activations=quantize == "int8") if quantize != "no" else None
        self.dtype = HALF.get(precision)
        dim = model.config.embed_dim
        self.alike = tuple(number for number, width in enumerate(widths) if width == dim)
        _check(weights, dim, tuple(widths))
        if weights.siglip or weights.soft_sigmoid:
            self.bias = nn.Parameter(torch.tensor(weights.bias))
        if weights.augmented:
            self.fuse_image = nn.ModuleList(nn.Linear(dim + width, dim) for width in widths)
            self.fuse_text = nn.ModuleList(nn.Linear(dim + width, dim) for width in widths)

    def forward(self, batch: Batch, gradients: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return each loss and their weighted sum under `loss`; see `losses`.

        Args:
            batch: photos, texts and what the teachers say of them.
            gradients: of vectors that `encode` returns and of loss parameters, by name. Then no loss is computed:
                `loss` is a number that has these very gradients (gradient caching).
        """
        encoded = self.encode(batch.pixels, batch.tokens)
        if gradients is None:
            return self.losses(encoded, batch)
        learnt = {**encoded, **dict(self.loss_parameters())}
        pulls = [(learnt[name] * gradient).sum() for name, gradient in gradients.items()]
        return {"loss": torch.stack(pulls).sum()}

    def loss_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield names and values of what the losses themselves learn: all parameters outside the towers."""
        towers = ("model.image.", "model.text.")
        yield from ((name, value) for name, value in self.named_parameters() if not name.startswith(towers))

    def encode(self, pixels: Tensor, tokens: Tensor) -> Encoded:
        """Run the towers.

        Args:
            pixels: (n, 3, s, s), n ≥ 0, or features of the trunk (n, width).
            tokens: (m, length), m ≥ 0.
        """
        # Only the towers run in half precision: similarities times a scale of 40 would lose their differences.
        with torch.autocast(tokens.device.type, self.dtype, enabled=self.dtype is not None):
            nothing = torch.zeros(0, self.model.config.embed_dim, device=tokens.device)
            encoded = {"image": nothing, "text": self._encode_texts(tokens) if len(tokens) else nothing}
            if len(pixels):
                if pixels.ndim == 4:
                    pixels = pixels.contiguous(memory_format=torch.channels_last)
                encoded["image"] = self._image(pixels)
            if self.weights.masked_feature:
                blanked = _blank_patches(pixels, self.weights.masked_share, self.weights.masked_patch)
                encoded["masked"] = self._image(blanked) if len(pixels) else nothing
        return encoded

    def _image(self, pixels: Tensor) -> Tensor:
        if self.rounding is None:
            return self.model.encode_image(pixels)
        return F.normalize(self.rounding.run(self.model.image, pixels).float(), dim=-1)

    def _text(self, tokens: Tensor) -> Tensor:
        if self.rounding is None:
            return self.model.encode_text(tokens)
        return F.normalize(self.rounding.run(self.model.text, tokens).float(), dim=-1)

    def _encode_texts(self, tokens: Tensor) -> Tensor:
        """Run the text tower, a causal one in chunks of texts alike in length, without the padding behind each.

        A causal tower cannot see that padding, and most texts are short beside the longest.
        """
        if not self.model.config.text.causal:
            return self._text(tokens)
        lengths = (tokens != 0).sum(dim=1)
        order = lengths.argsort(stable=True)
        parts = []
        for chunk in order.chunk(TEXT_CHUNKS):
            longest = max(1, int(lengths[chunk[-1]]))
            parts.append(self._text(tokens[chunk, :longest]))
        return torch.cat(parts)[order.argsort()]

    def losses(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Return each loss, detached, their weighted sum under `loss`, with gradients, and `logit_scale`.

        Args:
            encoded: what `encode` returned for this batch.
            batch: what the teachers say of it.

        Raises:
            ConfigError: the teachers lack what a loss needs.
        """
        terms = self._of_photos(encoded, batch) if len(batch.pixels) else self._of_texts(encoded["text"], batch)
        zero = encoded["text"].new_zeros(())
        total = sum((self.weights.weights[name] * value for name, value in terms.items()), zero)
        values = {name: value.detach() for name, value in terms.items()}
        return {"loss": total, **values, "logit_scale": self.model.logit_scale.detach().exp()}

    def _of_photos(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        image, text = encoded["image"], encoded["text"]
        weights, scale = self.weights, self.model.logit_scale.exp()
        n, groups = len(image), batch.groups
        paired = text[:n]
        teachers = [TeacherEmbeddings(one.image, one.text[:n], one.scale) for one in batch.teachers]
        alike = [teachers[number] for number in self.alike]
        # A text without a photo is nobody's positive: it gets a number that no photo has.
        ids = torch.cat([groups, -1 - torch.arange(len(text) - n, device=groups.device)])
        terms = {}
        if weights.contrastive:
            terms["contrastive"] = info_nce(image, text, scale, groups, ids, everyone)
        if weights.siglip:
            terms["siglip"] = siglip(image, text, scale, self.bias, groups, ids, everyone, weights.siglip_chunk)
        if weights.feature:
            terms["feature"] = _mean(
                feature(image, batch.teachers[k].image) + feature(text, batch.teachers[k].text) for k in self.alike
            )
        if weights.affinity:
            terms["affinity"] = self._affinity(image, text, batch)
        if weights.ensemble:
            terms["ensemble"] = ensemble(image, paired, scale, teachers, everyone)
        if weights.masked_feature:
            terms["masked_feature"] = _mean(feature(encoded["masked"], one.image) for one in alike)
        if weights.interactive:
            terms["interactive"] = _mean(interactive(image, paired, one, scale, groups, everyone) for one in alike)
        if weights.gradient:
            terms["gradient"] = _mean(gradient(image, paired, one, scale, everyone) for one in alike)
        if weights.augmented:
            terms["augmented"] = _mean(
                augmented(image, paired, one, fuse, scale, groups, everyone)
                for one, *fuse in zip(teachers, self.fuse_image, self.fuse_text, strict=True)
            )
        if weights.soft_sigmoid:
            logits = scale * image @ everyone(text).T + self.bias
            terms["soft_sigmoid"] = _mean(
                soft_sigmoid(logits, one.scale * one.image @ everyone(one.text).T + weights.teacher_bias)
                for one in batch.teachers
            )
        if weights.posterior:
            if batch.classes is None or batch.posterior is None:
                raise ConfigError("loss.posterior: the first teacher has no classifier")
            # What the classifier saw in a photo survives, although no caption speaks of it.
            terms["posterior"] = affinity(teachers[0].scale * image @ batch.classes.T, batch.posterior)
        return terms

    def _of_texts(self, text: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of texts without photos: the teachers' vectors, and similarities to both sides of the reference."""
        terms = {}
        if self.weights.feature:
            terms["feature"] = _mean(feature(text, batch.teachers[k].text) for k in self.alike)
        if self.weights.affinity and batch.reference:
            terms["affinity"] = _mean(
                affinity(one.scale * text @ side.T, one.scale * one.text @ side.T)
                for one, reference in ((batch.teachers[k], batch.reference[k]) for k in self.alike)
                for side in (reference.image, reference.text)
            )
        return terms

    def _affinity(self, image: Tensor, text: Tensor, batch: Batch) -> Tensor:
        """Mimic similarities at the teacher's scale: to the teacher's reference embeddings, or within the batch.

        A reference costs one matrix product and no forward pass, so small batches learn from thousands.
        """
        losses = []
        for number, one in enumerate(batch.teachers):
            if batch.reference:
                if number not in self.alike:
                    continue
                photos, texts = batch.reference[number].image, batch.reference[number].text
                sides = ((photos, photos), (texts, texts))
            else:
                sides = ((everyone(image), everyone(one.image)), (everyone(text), everyone(one.text)))
            (photos, their_photos), (texts, their_texts) = sides
            losses.append(affinity(one.scale * image @ texts.T, one.scale * one.image @ their_texts.T))
            losses.append(affinity(one.scale * text @ photos.T, one.scale * one.text @ their_photos.T))
        return _mean(losses)


def _mean(losses: Iterator[Tensor] | Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()


def _blank_patches(pixels: Tensor, share: float, patch: int) -> Tensor:
    """Set a share of square patches, drawn for each photo, to the mean colour (CLIP-KD, MFD).

    Args:
        pixels: normalised, (n, 3, s, s).
        share: of the patches; at least one stays.
        patch: side of one.
    """
    n, side = len(pixels), -(-pixels.shape[-1] // patch)
    blanked = min(round(share * side * side), side * side - 1)
    order = torch.rand(n, side * side, device=pixels.device).argsort(dim=1)
    keep = (order >= blanked).to(pixels.dtype).unflatten(1, (1, side, side))
    mask = keep.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return pixels * mask[:, :, : pixels.shape[-2], : pixels.shape[-1]]


def _check(weights: LossConfig, dim: int, widths: tuple[int, ...]) -> None:
    """Refuse losses that no teacher can teach."""
    needs_teacher = {name for name, weight in weights.weights.items() if weight} - {"contrastive", "siglip"}
    if needs_teacher and not widths:
        raise ConfigError(f"loss.{min(needs_teacher)} needs a teacher")
    same = {"feature", "masked_feature", "interactive", "gradient"} | ({"affinity"} if weights.bank else set())
    if (wanting := needs_teacher & same) and dim not in widths:
        raise ConfigError(
            f"the teacher's vectors have {' and '.join(map(str, widths))} dimensions, the student's {dim}: "
            f"set loss.{' and loss.'.join(sorted(wanting))} to 0, "
            + ("or loss.bank to 0, " if wanting == {"affinity"} else "")
            + "or give both the same embed_dim"
        )
    if weights.posterior and widths[0] != dim:
        raise ConfigError(f"loss.posterior: the first teacher has {widths[0]} dimensions, the student {dim}")

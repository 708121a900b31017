"""The training task: a student, and the weighted sum of the losses of its recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.batch import Batch
from distill.config import LossConfig
from distill.distributed import everyone, rank
from distill.half import half_precision
from distill.losses import LossInputs, Need
from distill.losses.groups import group_texts
from distill.training.qat import FakeQuantizer
from mobileclip.errors import ConfigError
from mobileclip.towers import CLIP

Encoded = dict[str, Tensor]
"""The student's unit embeddings: `image` (n, d), `text` (m, d) and, if a loss needs it, `masked` (n, d)."""

TEXT_CHUNKS = 4
"""Number of chunks of similar length in which a causal text tower runs."""


class DistillTask(nn.Module):
    """A student with its losses, and the parameters that belong to losses.

    Encoding and losses are separate, so that gradient caching can split a batch between them. With several processes,
    each one compares its own rows with the rows of all; see `distill.distributed`.

    Args:
        model: the student.
        weights: the weights and settings of the losses.
        widths: the dimension of each teacher's embeddings.
        precision: see `OptimConfig`.
        quantize: see `OptimConfig`.

    Raises:
        ConfigError: no teacher has what a loss needs.
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
        self.precision = precision
        dim = model.config.embed_dim
        self.matching = tuple(number for number, width in enumerate(widths) if width == dim)
        _check(weights, dim, tuple(widths))
        self.bias = nn.Parameter(torch.tensor(weights.bias)) if weights.needing(Need.BIAS) else None
        for loss in weights.active:
            if loss.modules:
                for name, module in loss.modules(dim, widths).items():
                    self.add_module(name, module)

    def forward(self, batch: Batch, gradients: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return each loss and their weighted sum as `loss`; see `losses`.

        Args:
            batch: photos and texts with their teacher embeddings.
            gradients: for gradient caching, the gradients of the loss with respect to the embeddings that `encode`
                returns and to the parameters of losses, by name. Then no loss is computed, and `loss` is a scalar with
                these gradients.
        """
        encoded = self.encode(batch.pixels, batch.tokens)
        if gradients is None:
            return self.losses(encoded, batch)
        values = {**encoded, **dict(self.loss_parameters())}
        products = [(values[name] * gradient).sum() for name, gradient in gradients.items()]
        return {"loss": torch.stack(products).sum()}

    def loss_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and values of the losses' own parameters: all parameters outside the towers."""
        towers = ("model.image.", "model.text.")
        yield from ((name, value) for name, value in self.named_parameters() if not name.startswith(towers))

    def encode(self, pixels: Tensor, tokens: Tensor) -> Encoded:
        """Run the towers.

        Args:
            pixels: (n, 3, s, s), n ≥ 0, or the trunk's features (n, width).
            tokens: (m, length), m ≥ 0.
        """
        # Losses stay in float32: half precision can't resolve similarities times a logit scale of 40.
        with half_precision(tokens.device.type, self.precision):
            nothing = torch.zeros(0, self.model.config.embed_dim, device=tokens.device)
            encoded = {"image": nothing, "text": self._encode_texts(tokens) if len(tokens) else nothing}
            if len(pixels):
                if pixels.ndim == 4:
                    pixels = pixels.contiguous(memory_format=torch.channels_last)
                encoded["image"] = self._image(pixels)
            if self.weights.needing(Need.MASKED):
                masked = mask_patches(pixels, self.weights.masked_share, self.weights.masked_patch)
                encoded["masked"] = self._image(masked) if len(pixels) else nothing
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
        """Run the text tower; if it is causal, in chunks of texts with similar lengths and without their padding.

        A causal tower doesn't see the padding, and most texts are much shorter than the longest.
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
        """Return each loss, detached; their weighted sum as `loss`, with gradients; and `logit_scale`.

        Args:
            encoded: what `encode` returned for this batch.
            batch: the batch, with its teacher embeddings.

        Raises:
            ConfigError: the teachers lack what a loss needs.
        """
        inputs = self._loss_inputs(encoded, batch)
        terms = {}
        for loss in self.weights.active:
            if term := loss.term(inputs):
                if Need.POSTERIOR in loss.needs and (batch.classes is None or batch.posterior is None):
                    raise ConfigError(f"loss.{loss.name}: the first teacher has no classifier")
                terms[loss.name] = term(inputs)
        zero = encoded["text"].new_zeros(())
        total = sum((self.weights.weights[name] * value for name, value in terms.items()), zero)
        values = {name: value.detach() for name, value in terms.items()}
        return {"loss": total, **values, "logit_scale": self.model.logit_scale.detach().exp()}

    def _loss_inputs(self, encoded: Encoded, batch: Batch) -> LossInputs:
        image, text = encoded["image"], encoded["text"]
        groups, text_groups = group_texts(batch.groups, batch.tokens, everyone, rank())
        scale, paired_text = self.model.logit_scale.exp(), text[: len(image)]
        return LossInputs(
            image=image,
            text=text,
            paired_text=paired_text,
            scale=scale,
            groups=groups,
            text_groups=text_groups,
            teachers=batch.teachers,
            settings=self.weights,
            matching=self.matching,
            reference=batch.reference,
            classes=batch.classes,
            posterior=batch.posterior,
            masked=encoded.get("masked"),
            bias=self.bias,
            modules=dict(self.named_children()),
        )


def mask_patches(pixels: Tensor, share: float, patch: int) -> Tensor:
    """Set a random share of each photo's square patches to the mean color (CLIP-KD, MFD).

    Args:
        pixels: normalized photos (n, 3, s, s).
        share: the share of patches to mask; at least one patch stays.
        patch: side of a patch, in pixels.
    """
    n, side = len(pixels), -(-pixels.shape[-1] // patch)
    masked = min(round(share * side * side), side * side - 1)
    order = torch.rand(n, side * side, device=pixels.device).argsort(dim=1)
    keep = (order >= masked).to(pixels.dtype).unflatten(1, (1, side, side))
    mask = keep.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return pixels * mask[:, :, : pixels.shape[-2], : pixels.shape[-1]]


def _check(losses: LossConfig, dimension: int, teachers: tuple[int, ...]) -> None:
    """Refuse losses that these teachers, given by the dimensions of their embeddings, can't serve."""
    comparing = [loss.name for loss in losses.active if loss.needs_teacher]
    if comparing and not teachers:
        raise ConfigError(f"loss.{min(comparing)} needs a teacher")
    unmet = [loss for loss in losses.active if loss.needs_same_dimension(losses)] if dimension not in teachers else []
    if unmet:
        raise ConfigError(
            f"the teacher's embeddings have {' and '.join(map(str, teachers))} dimensions, the student's {dimension}: "
            f"set loss.{' and loss.'.join(sorted(loss.name for loss in unmet))} to 0, "
            + ("" if any(Need.SAME_DIMENSION in loss.needs for loss in unmet) else "or loss.bank to 0, ")
            + "or give both the same embed_dim"
        )
    if (needing := losses.needing(Need.POSTERIOR)) and teachers[0] != dimension:
        raise ConfigError(f"loss.{needing[0]}: the first teacher has {teachers[0]} dimensions, the student {dimension}")

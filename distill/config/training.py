"""How a student is trained: losses, optimizer, stages and validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from distill.losses import LOSSES, Loss, LossSettings, Need
from mobileclip.errors import ConfigError
from mobileclip.tables import inline_keys


def _default_weights() -> dict[str, float]:
    return {name: loss.weight for name, loss in LOSSES.items()}


def _weight_types() -> dict[str, type[float]]:
    return dict.fromkeys(LOSSES, float)


@dataclass(frozen=True)
class LossConfig(LossSettings):
    """The weight of each loss, and the settings that losses share."""

    weights: Mapping[str, float] = field(default_factory=_default_weights, metadata=inline_keys(_weight_types))
    """In a recipe, each registered loss is a key of `[loss]`: its weight in the sum. 0 turns the loss off. Without a
    key, `contrastive`, `affinity` and `feature` have weight 1 and all others 0."""

    def __post_init__(self) -> None:
        if unknown := sorted(self.weights.keys() - LOSSES.keys()):
            raise ConfigError(f"loss: unknown loss {unknown[0]}; known are {', '.join(LOSSES)}")
        object.__setattr__(self, "weights", {**_default_weights(), **self.weights})
        if min(self.weights.values()) < 0 or self.bank < 0:
            raise ConfigError("loss weights and loss.bank cannot be negative")
        if not any(self.weights.values()):
            raise ConfigError("loss: at least one weight must be above 0")
        if not 0 < self.masked_share < 1 or self.masked_patch < 1 or self.siglip_chunk < 0:
            raise ConfigError("loss: needs masked_share between 0 and 1, masked_patch ≥ 1 and siglip_chunk ≥ 0")

    @property
    def active(self) -> tuple[Loss, ...]:
        """The losses with a weight above 0, in the order of the registry."""
        return tuple(loss for name, loss in LOSSES.items() if self.weights.get(name))

    def needing(self, need: Need) -> list[str]:
        """Return the names of the active losses that need an input."""
        return [loss.name for loss in self.active if need in loss.needs]

    @property
    def compares_with_reference(self) -> bool:
        """Whether batches need teacher embeddings of other photos and texts."""
        return self.bank > 0 and bool(self.needing(Need.REFERENCE))


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay, and how a step is computed."""

    batch: int = 128
    """Photos a step, of all processes together."""
    micro_batch: int = 0
    """Photos that a process runs through the towers at a time, with exact contrastive losses over the whole batch
    (gradient caching); 0 runs them all at once. BatchNorm's statistics are those of a micro-batch."""
    extra_texts: int = 256
    """Texts without photos in each batch."""
    lr_trunk: float = 5e-4
    """The pretrained image trunk."""
    lr_text: float = 0.0
    """The text tower; 0 for `lr`."""
    lr: float = 1e-3
    """Everything that starts from scratch."""
    weight_decay: float = 0.05
    """Of matrices; biases, norms, embeddings and scales do not decay."""
    warmup: int = 200
    """Steps."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones kept; 0 keeps the last."""
    explode: float = 10.0
    """Training stops at a loss so many times the median of the last 100 steps; 0 never does."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the towers' arithmetic; losses, weights and their gradients are float32."""
    quantize: Literal["no", "weights", "int8"] = "no"
    """Compute with rounded weights, or with rounded weights and activations, so that the student learns to bear an
    export to int8 (quantization-aware training). For a short last run, from a student that is good already."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` is the first there is of CUDA, Apple's GPU and the CPU."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """Of several processes: each has the whole model, or a share of its weights (FSDP2)."""
    checkpoint_activations: bool = False
    """Compute activations twice instead of keeping them: about a third slower, much less memory."""
    compile: bool = False
    """Run the towers through torch.compile, which needs a C++ compiler on the CPU."""

    def __post_init__(self) -> None:
        for name in ("batch", "clip", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"optim.{name} must be above 0")
        for name in ("micro_batch", "extra_texts", "lr_trunk", "lr_text", "weight_decay", "warmup", "explode"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name} cannot be negative")
        if not 0 <= self.ema < 1:
            raise ConfigError("optim.ema must lie in [0, 1)")
        if 0 < self.explode <= 1:
            raise ConfigError("optim.explode must be above 1, or 0")
        if self.precision == "fp16" and self.strategy == "fsdp":
            raise ConfigError("optim.precision: fp16 and strategy fsdp do not go together; use bf16")
        if self.quantize != "no" and (self.compile or self.strategy == "fsdp"):
            raise ConfigError("optim.quantize goes neither with optim.compile nor with strategy fsdp")
        if self.quantize == "int8" and self.micro_batch:
            raise ConfigError("optim.quantize: int8 needs optim.micro_batch = 0, for its ranges follow every pass")


@dataclass(frozen=True)
class Stage:
    """So many epochs at one picture size. Small pictures first makes training cheap."""

    epochs: int
    px: int = 0
    """Side of the pictures; 0 where `texts_only`, or where `features` are of pictures of the student's own size."""
    texts_only: bool = False
    """The text tower alone learns, an epoch is every text once, and no photo is read."""
    features: bool = False
    """The trunk's features of whole photos, computed once, stand in for the photos: the trunk stays as it is, what
    stands on it learns together with the text tower, and a step costs no pass through the trunk."""
    crop: float = 0.5
    """Smallest share of the area that a random crop may keep."""
    frozen: tuple[str, ...] = ()
    """Parts that do not learn in this stage, by how their weights' names begin: `image.trunk`, `text.blocks.0`."""
    rate: float = 1.0
    """Multiplies all learning rates. Stages on texts alone and stages on photos, one after the other, are phases with
    a warm-up and a decay of their own."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 < self.crop <= 1 or not 0 < self.rate < math.inf:
            raise ConfigError("a stage needs epochs ≥ 1, crop in (0, 1] and rate above 0")
        if self.texts_only and self.features:
            raise ConfigError("a stage has texts_only or features, not both")
        if (self.px != 0) if self.texts_only or self.features else (self.px < 32):
            raise ConfigError("a stage needs px ≥ 32, or features = true or texts_only = true and no px")

    @property
    def trunk_frozen(self) -> bool:
        """Whether the image trunk is frozen."""
        return self.texts_only or self.features or any("image.trunk.".startswith(part) for part in self.frozen)


@dataclass(frozen=True)
class Validation:
    """Retrieval on held-out captions now and then; the best student of a run is kept in `best/`."""

    captions: str
    """A captions file below the data folder."""
    splits: str = ""
    """A CSV with `file,split`, where the captions carry no `split` themselves."""
    split: str = ""
    """The split to measure on; empty for all."""
    every: int = 1000
    """Steps; the last one is always measured. The mean R@10 of both directions decides."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError("validate.every must be at least 1")

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
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"loss.{name}: a weight cannot be negative, NaN or infinite; it is {weight}")
        if self.bank < 0:
            raise ConfigError("loss.bank cannot be negative")
        for name in ("bias", "teacher_bias"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"loss.{name} must be finite")
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
    """AdamW, the schedule of its learning rates, and how a step is computed."""

    batch: int = 128
    """Photos per step, over all processes."""
    micro_batch: int = 0
    """Photos that a process runs through the towers at a time, with the exact loss of the whole batch (gradient
    caching). 0 runs them all at once. BatchNorm normalizes each micro-batch separately."""
    extra_texts: int = 256
    """Additional texts without photos in each batch."""
    lr_trunk: float = 5e-4
    """Learning rate of the image trunk, which is usually pretrained."""
    lr_text: float = 0.0
    """Learning rate of the text tower; 0 uses `lr`."""
    lr: float = 1e-3
    """Learning rate of everything else."""
    weight_decay: float = 0.05
    """Weight decay of linear layers and convolutions. Biases, norms, embeddings, positions and scales have none."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's decay of the average gradient and of the average squared gradient."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate develops after the warmup: it falls to a hundredth along a `cosine` or in a `linear` way,
    or stays `constant`. Only a run with a constant rate can be made longer later."""
    warmup: int = 200
    """Steps in which the learning rate rises linearly, at most half of a phase."""
    clip: float = 1.0
    """Largest norm of the gradient; a larger gradient is scaled down."""
    ema: float = 0.998
    """Largest decay of the moving average of the weights, which becomes the student. 0 keeps the last weights instead.
    After n steps the decay is at most (1 + n) / (10 + n), so that a short run doesn't keep untrained weights."""
    explode: float = 10.0
    """Training stops if the loss is this many times the median of the last 100 steps. 0 never stops."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the towers' arithmetic. Losses, weights and their gradients are always float32."""
    quantize: Literal["no", "weights", "int8"] = "no"
    """Rounds `weights`, or weights and activations (`int8`), to eight bits in the forward pass, so that the student
    becomes robust to an int8 export (quantization-aware training). Use it for a short last run of a good student."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train. `auto` is the first available one of CUDA, Apple's GPU (`mps`) and the CPU."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: `ddp` copies the weights to each, `fsdp` shards them (FSDP2)."""
    timeout: float = 60.0
    """With several processes: minutes that one waits for the others in a step. Then the run fails, and torchrun can
    restart it without the machine that was lost. A validation, which only one process does, must take less."""
    checkpoint_activations: bool = False
    """Whether to compute activations again instead of keeping them: about a third slower, much less memory."""
    compile: bool = False
    """Whether to compile the towers with torch.compile, which needs a C++ compiler on the CPU."""

    def __post_init__(self) -> None:
        for name in ("batch", "clip", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"optim.{name} must be above 0")
        for name in ("micro_batch", "extra_texts", "lr_trunk", "lr_text", "weight_decay", "warmup", "explode"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"optim.{name} cannot be negative")
        if not 0 < self.timeout <= 7 * 24 * 60:
            raise ConfigError("optim.timeout must be above 0, and at most a week")
        if self.batch < 2:
            raise ConfigError("optim.batch must be at least 2: photos are compared with the others of their batch")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError("optim.betas must lie in [0, 1)")
        if not 0 <= self.ema < 1:
            raise ConfigError("optim.ema must lie in [0, 1)")
        if 0 < self.explode <= 1:
            raise ConfigError("optim.explode must be above 1, or 0")
        if self.precision == "fp16" and self.strategy == "fsdp":
            raise ConfigError("optim.precision: fp16 does not work with strategy fsdp; use bf16")
        if self.quantize != "no" and (self.compile or self.strategy == "fsdp"):
            raise ConfigError("optim.quantize works neither with optim.compile nor with strategy fsdp")
        if self.quantize == "int8" and self.micro_batch:
            raise ConfigError(
                "optim.quantize: int8 needs optim.micro_batch = 0: its ranges change in each forward pass"
            )


@dataclass(frozen=True)
class Stage:
    """A number of epochs at one picture size. Training is cheaper if small pictures come first."""

    epochs: int
    """Number of epochs."""
    px: int = 0
    """Side of the pictures, in pixels. 0 with `texts_only` and `features`, which uses the student's own size."""
    texts_only: bool = False
    """Whether only the text tower learns. An epoch is then every text once, and no photo is read."""
    features: bool = False
    """Whether to compute the trunk's features of every whole photo once and train with them. The trunk is frozen, and
    what follows it learns together with the text tower. A step needs no forward pass of the trunk."""
    crop: float = 0.5
    """Smallest share of a photo's area that a random crop keeps, above 0 and up to 1. With online teachers and with
    reinforced data, `[reinforcement]` decides instead."""
    retyped: float = 0.0
    """Share of the texts that the student reads as people type them into a search box, with a typo, another spelling or
    number, more or fewer words; see `distill.data.retype`. Teachers read the text as it is."""
    frozen: tuple[str, ...] = ()
    """Frozen parts, given by the beginning of their weights' names, such as `image.trunk` or `text.blocks.0`."""
    rate: float = 1.0
    """Factor of all learning rates. Consecutive stages with photos share one warmup and decay, and so do consecutive
    stages with `texts_only`."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or not 0 < self.crop <= 1 or not 0 < self.rate < math.inf:
            raise ConfigError("a stage needs epochs ≥ 1, crop in (0, 1] and rate above 0")
        if not 0 <= self.retyped <= 1:
            raise ConfigError("a stage needs retyped in [0, 1]")
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
    """Retrieval or zero-shot accuracy on held-out photos during the run. The best student is kept in `best/`."""

    captions: str = ""
    """A captions file, relative to the data folder; its score is the mean R@10 of both directions."""
    labels: str = ""
    """A labels file, relative to the data folder; its score is the zero-shot accuracy (top-1)."""
    splits: str = ""
    """A CSV with columns `file,split`, if the files have no column `split` themselves."""
    split: str = ""
    """The split to measure on; empty for everything."""
    every: int = 1000
    """Steps between measurements. The last step is always measured. The best student has the highest score; with
    captions and labels, the highest mean of both scores."""

    def __post_init__(self) -> None:
        if not self.captions and not self.labels:
            raise ConfigError("[validate] needs captions or labels")
        if self.every < 1:
            raise ConfigError("validate.every must be at least 1")

"""How a student is trained: losses, optimizer, stages, and what its progress is measured on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mobileclip.errors import ConfigError

LOSSES = (
    *("contrastive", "siglip", "affinity", "ensemble", "feature", "masked_feature", "interactive", "gradient"),
    *("augmented", "soft_sigmoid", "posterior"),
)


@dataclass(frozen=True)
class LossConfig:
    """How much of each loss, 0 for none; see `distill.losses`."""

    contrastive: float = 1.0
    """InfoNCE between photos and texts."""
    siglip: float = 0.0
    """The pairwise sigmoid loss, with a learned bias."""
    affinity: float = 1.0
    """The teachers' similarities, to the bank or within the batch, at the teachers' scale."""
    ensemble: float = 0.0
    """The teachers' probabilities within the batch, averaged over teachers (MobileCLIP)."""
    feature: float = 1.0
    """The teachers' vectors themselves."""
    masked_feature: float = 0.0
    """The same from photos with patches blanked out; costs a second forward pass of the image tower."""
    interactive: float = 0.0
    """InfoNCE of the student's photos against the teachers' texts, and the other way round (CLIP-KD)."""
    gradient: float = 0.0
    """The gradients that InfoNCE has at the teachers' vectors (CLIP-KD)."""
    augmented: float = 0.0
    """InfoNCE on student and teacher fused by a linear layer, which is thrown away afterwards (CLIP-KD)."""
    soft_sigmoid: float = 0.0
    """The teachers' pairwise probabilities, for a SigLIP student; see `teacher_bias`."""
    posterior: float = 0.0
    """What the first teacher's classifier says; needs `[aligned]` with `class_names`."""
    bank: int = 4096
    """Teacher vectors of other texts and photos that the affinity losses compare against, a step; 0 compares within
    the batch."""
    masked_share: float = 0.75
    """Share of the patches blanked out for `masked_feature`."""
    masked_patch: int = 32
    """Side of such a patch in pixels."""
    bias: float = -10.0
    """Where the bias of `siglip` and `soft_sigmoid` starts; −10 assumes large batches."""
    teacher_bias: float = -10.0
    """Added to every teacher's scaled similarities before `soft_sigmoid` makes probabilities of them: a SigLIP
    teacher's own `logit_bias`."""
    siglip_chunk: int = 0
    """Texts that `siglip` compares at a time, to save memory; 0 for all."""

    def __post_init__(self) -> None:
        if min(self.weights.values()) < 0 or self.bank < 0:
            raise ConfigError("loss weights and bank cannot be negative")
        if not any(self.weights.values()):
            raise ConfigError("loss: at least one weight must be above 0")
        if not 0 < self.masked_share < 1 or self.masked_patch < 1 or self.siglip_chunk < 0:
            raise ConfigError("loss: masked_share lies in (0, 1), masked_patch ≥ 1, siglip_chunk ≥ 0")

    @property
    def weights(self) -> dict[str, float]:
        """Each loss and its weight."""
        return {name: getattr(self, name) for name in LOSSES}


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

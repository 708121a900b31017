"""Small students and batches of noise, for tests of how a step is computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.losses import TeacherEmbeddings
from mobileclip.preprocess import PixelRecipe
from mobileclip.towers import CLIP, ModelConfig
from mobileclip.towers.config import ImageConfig, TextConfig

DIM, OTHER, VOCABULARY, PX = 32, 24, 520, 32
EVERY_LOSS = {
    "contrastive": 1.0,
    "siglip": 0.3,
    "affinity": 0.7,
    "ensemble": 0.9,
    "feature": 1.1,
    "masked_feature": 0.4,
    "interactive": 0.6,
    "gradient": 0.01,
    "augmented": 0.8,
    "soft_sigmoid": 0.2,
    "posterior": 0.5,
}


class ExactCLIP(CLIP):
    """Vectors as precise as the weights, where the real one always gives float32."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.image(pixels), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.text(tokens), dim=-1)


def toy_model(trunk: str = "test_vit", dropout: float = 0.0, causal: bool = True) -> CLIP:
    """A student of two text layers; `test_vit` has no BatchNorm, `test_efficientnet` has."""
    torch.manual_seed(3)
    options = {"img_size": PX, "depth": 2} if trunk == "test_vit" else {}
    config = ModelConfig(
        "toy",
        DIM,
        ImageConfig(trunk, options, dropout=dropout),
        TextConfig(VOCABULARY, context_length=12, width=32, heads=2, layers=2, causal=causal, dropout=dropout),
        PixelRecipe(PX, "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    )
    return ExactCLIP(config)


def unit(random: np.random.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.from_numpy(random.normal(size=shape)).float(), dim=-1)


def toy_tokens(random: np.random.Generator, count: int) -> Tensor:
    tokens = torch.zeros(count, 12, dtype=torch.long)
    for row, length in zip(tokens, random.integers(1, 11, count), strict=True):
        row[:length] = torch.from_numpy(random.integers(1, VOCABULARY - 2, length))
        row[length] = VOCABULARY - 1
    return tokens


def toy_batch(n: int = 8, extra: int = 4, reference: int = 10, seed: int = 0) -> Batch:
    """A batch of noise with two teachers, one of the student's dimension and one of another; some photos agree."""
    random = np.random.default_rng(seed)
    widths = (DIM, OTHER)
    teachers = tuple(TeacherEmbeddings(unit(random, n, w), unit(random, n + extra, w), 20.0) for w in widths)
    others = tuple(TeacherEmbeddings(unit(random, reference, w), unit(random, reference, w), 20.0) for w in widths)
    return Batch(
        torch.from_numpy(random.normal(size=(n, 3, PX, PX))).float() if n else torch.zeros(0, 3, 1, 1),
        toy_tokens(random, n + extra),
        torch.from_numpy(random.integers(0, max(1, n - 2), n)),
        teachers,
        others if reference else (),
        unit(random, 5, DIM),
        torch.log_softmax(torch.from_numpy(random.normal(size=(n, 5))).float(), dim=1),
        n,
    )


def doubled(batch: Batch) -> Batch:
    """The same in float64."""

    def wide(teachers: tuple[TeacherEmbeddings, ...]) -> tuple[TeacherEmbeddings, ...]:
        return tuple(TeacherEmbeddings(one.image.double(), one.text.double(), one.scale) for one in teachers)

    assert batch.classes is not None and batch.posterior is not None
    return Batch(
        batch.pixels.double(),
        batch.tokens,
        batch.groups,
        wide(batch.teachers),
        wide(batch.reference),
        batch.classes.double(),
        batch.posterior.double(),
        batch.tried,
    )


class ToyFeed:
    """So many steps of noise, each process's share of it."""

    widths = (DIM, OTHER)
    identity = "noise"

    def __init__(self, steps: int = 4, n: int = 8, extra: int = 4) -> None:
        self.count, self.n, self.extra = steps, n, extra

    def steps(self, epoch: int, stage: Stage) -> int:
        return self.count

    def batches(self, epoch: int, stage: Stage, first: int):
        from distill.distributed import rank, size

        for step in range(first, self.count):
            whole = toy_batch(0 if stage.texts_only else self.n, self.extra, seed=1000 * epoch + step)
            yield share(whole, rank(), size())


def share(batch: Batch, rank: int, size: int) -> Batch:
    """The rows of one process: positions rank::size of the photos with their texts, and of further texts."""
    n = len(batch.pixels)
    own = torch.arange(n)[rank::size]
    texts = torch.cat([own, torch.arange(n, len(batch.tokens))[rank::size]])
    assert batch.posterior is not None
    return Batch(
        batch.pixels[own],
        batch.tokens[texts],
        batch.groups[own],
        tuple(TeacherEmbeddings(one.image[own], one.text[texts], one.scale) for one in batch.teachers),
        batch.reference,
        batch.classes,
        batch.posterior[own],
        len(own),
    )


RECIPE = """
name = "toy"
model = "toy"
merges = "m"
save_every = 2
[[photos]]
name = "p"
kind = "reinforced"
file = "f"
[optim]
batch = 8
warmup = 1
ema = 0.5
[[stages]]
epochs = 1
px = 32
"""


def toy_recipe(folder: Path, **overrides: object) -> Recipe:
    """A recipe for `ToyFeed`, with every loss."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy.toml"
    path.write_text(RECIPE)
    return Recipe.load(path, {"loss": {**EVERY_LOSS, "posterior": 0.0, "bank": 4}, **overrides})

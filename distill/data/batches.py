"""Batches of augmented photos, each decided by seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from distill.data.corpus import Corpus
from mobileclip.errors import PhotoError
from mobileclip.photos import open_photo
from mobileclip.preprocess import PixelRecipe


def augmentation(px: int, crop: float, recipe: PixelRecipe) -> v2.Transform:
    """Random crop of at least `crop` of the area, mirror, slight colour change; then the student's own scaling."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(px, (crop, 1.0), (0.8, 1.25), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2)], p=0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(recipe.mean, recipe.std),
        ]
    )


class EpochPhotos(Dataset[tuple[Tensor, int]]):
    """An epoch's photos in order. A photo that cannot be read is replaced by its row number −1 and grey pixels."""

    def __init__(self, paths: list[Path], transform: v2.Transform, px: int, seed: tuple[int, int]) -> None:
        self.paths, self.transform, self.px, self.seed = paths, transform, px, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        try:
            photo = open_photo(self.paths[position], min_side=2 * self.px)
        except PhotoError:
            return torch.zeros(3, self.px, self.px), -1
        # The augmentation depends on the position, not on which worker came first.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((*self.seed, position)) & 0x7FFFFFFF)
            return self.transform(photo), position


def batches(
    corpus: Corpus,
    order: NDArray[np.int64],
    transform: v2.Transform,
    px: int,
    batch: int,
    *,
    seed: tuple[int, int],
    first: int = 0,
    workers: int = 1,
) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    """Yield (pixels (≤ batch, 3, px, px) float32, sample numbers) for an epoch's order, from batch `first` on.

    Unreadable photos are left out of their batch; their neighbours keep their own numbers.
    """
    start = first * batch
    dataset = EpochPhotos([corpus.samples[i].path for i in order], transform, px, seed)
    loader = DataLoader(
        dataset,
        batch_size=batch,
        sampler=range(start, len(order) // batch * batch),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    for pixels, positions in loader:
        good = positions >= 0
        yield pixels[good], order[positions[good].numpy()]

"""Augmented photos, read by any number of workers; seed, epoch and position determine each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from distill.data.tables import DataError
from distill.distributed import rank, size
from mobileclip.errors import PhotoError
from mobileclip.photos import open_photo
from mobileclip.preprocess import PixelRecipe


def train_transform(px: int, crop: float, recipe: PixelRecipe) -> v2.Transform:
    """Crop at random at least `crop` of the area, mirror, change colors slightly, then normalize for the student."""
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
    """The photos of an epoch with their positions; an unreadable photo is black, and its position is −1."""

    def __init__(self, paths: Sequence[Path], transform: v2.Transform, px: int, seed: tuple[int, int]) -> None:
        self.paths, self.transform, self.px, self.seed = paths, transform, px, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        try:
            photo = open_photo(self.paths[position], min_side=2 * self.px)
        except PhotoError:
            return torch.zeros(3, self.px, self.px), -1
        # The augmentation depends on the position, not on which worker is first.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((*self.seed, position)) & 0x7FFFFFFF)
            return self.transform(photo), position


def read_epoch(
    paths: Sequence[Path],
    transform: v2.Transform,
    px: int,
    batch: int,
    *,
    seed: tuple[int, int],
    first: int = 0,
    workers: int = 1,
) -> Iterator[tuple[Tensor, NDArray[np.int64], int]]:
    """Read the photos of an epoch in order, from batch `first` on; each process reads rank::size of every batch.

    Unreadable photos are left out. If several processes train, other photos of the same share replace them, because
    all processes need the same number of rows.

    Args:
        paths: the epoch's photos.
        transform: converts a photo to pixels (3, px, px) float32.
        px: side of the pixels.
        batch: photos of all processes together, a multiple of their number.
        seed: determines a photo's augmentation, together with its position.
        first: number of batches to skip.
        workers: processes that decode; 0 decodes in this process.

    Yields:
        Pixels (n, 3, px, px), the positions (n,) of these photos in `paths`, and the number of photos tried.

    Raises:
        DataError: a process can't read any photo of its share of a batch.
    """
    own_positions = [
        position
        for start in range(first * batch, len(paths) // batch * batch, batch)
        for position in range(start + rank(), start + batch, size())
    ]
    loader = DataLoader(
        EpochPhotos(paths, transform, px, seed),
        batch_size=batch // size(),
        sampler=own_positions,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    for pixels, positions in loader:
        good = torch.nonzero(positions >= 0).flatten()
        unread = len(positions) - len(good)
        if not len(good):
            folder = paths[own_positions[0]].parent
            raise DataError(f"none of the {unread} photos of a batch can be read; check folders such as {folder}")
        if unread and size() > 1:
            good = good[torch.arange(len(positions)) % len(good)]
        yield pixels[good], positions[good].numpy(), len(good) + unread

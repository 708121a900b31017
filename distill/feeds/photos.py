"""Augmented photos, each decided by seed, epoch and position alone, read by as many workers as one likes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from distill.data.sources import DataError
from distill.distributed import rank, size
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
    """An epoch's photos in order, with their positions; one that cannot be read is black and at position −1."""

    def __init__(self, paths: Sequence[Path], transform: v2.Transform, px: int, seed: tuple[int, int]) -> None:
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


def read_photos_of(
    paths: Sequence[Path],
    transform: v2.Transform,
    px: int,
    batch: int,
    *,
    seed: tuple[int, int],
    first: int = 0,
    workers: int = 1,
) -> Iterator[tuple[Tensor, NDArray[np.int64], int]]:
    """Read an epoch's photos in order, from batch `first` on; each process its share, rank::size of every batch.

    A photo that cannot be read is left out. Where several processes train, another one of the same share stands in
    its place, because all must bring the same number of rows.

    Args:
        paths: the epoch's photos.
        transform: photo to pixels (3, px, px) float32.
        px: side of the pixels.
        batch: photos of all processes together, a multiple of their number.
        seed: with a photo's position, decides its augmentation.
        first: batches to skip.
        workers: processes that decode; 0 decodes in this one.

    Yields:
        Pixels (n, 3, px, px), positions (n,) of these photos in `paths`, and how many were tried.

    Raises:
        DataError: several processes train, and one can read no photo of its share.
    """
    mine = [
        position
        for start in range(first * batch, len(paths) // batch * batch, batch)
        for position in range(start + rank(), start + batch, size())
    ]
    loader = DataLoader(
        EpochPhotos(paths, transform, px, seed),
        batch_size=batch // size(),
        sampler=mine,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    for pixels, positions in loader:
        good = torch.nonzero(positions >= 0).flatten()
        unread = len(positions) - len(good)
        if unread and size() > 1:
            if not len(good):
                raise DataError(
                    f"none of {unread} photos of a batch can be read, {paths[mine[0]].parent} is one folder"
                )
            good = good[torch.arange(len(positions)) % len(good)]
        yield pixels[good], positions[good].numpy(), len(good) + unread

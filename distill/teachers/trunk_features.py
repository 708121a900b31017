"""A frozen trunk's features of a whole corpus: for stages with `features`, and for `[aligned]` with `attention`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor, nn

from distill.config.sources import VIEWS, View
from distill.data.corpus import Corpus
from distill.data.degrade import DEGRADATIONS, drawn_degradation
from distill.data.tars import PhotoRef
from distill.teachers.base import encode_files
from distill.teachers.cache import StoredRows, VectorCache
from distill.teachers.fast_trunk import fast_trunk
from mobileclip.files import PathLike
from mobileclip.preprocess import PixelRecipe
from mobileclip.towers.image import trunk_features
from mobileclip.vectors import Floats


class TrunkEncoder:
    """Encodes whole photos with a timm trunk.

    Args:
        trunk: the trunk, without a classifier; it must stay frozen while this is used.
        name: the trunk's name in timm.
        pixels: its preprocessing.
        maps: number of feature maps to join to the pooled features.
        device: where the trunk runs.
        dtype: half-precision type of its arithmetic; None for float32.
        view: what to encode: the photo, its mirror image, or the photo with one of `DEGRADATIONS`, which its file name
            determines.
    """

    def __init__(
        self,
        trunk: nn.Module,
        name: str,
        pixels: PixelRecipe,
        maps: int,
        device: torch.device,
        dtype: torch.dtype | None = None,
        view: View | None = None,
    ) -> None:
        self.trunk, self.pixels, self.maps, self.device = trunk, pixels, maps, device
        self.name, self.dtype, self.view = name, dtype, view
        digest = hashlib.sha256(repr(pixels).encode())
        for key, value in trunk.state_dict().items():
            digest.update(key.encode())
            digest.update(value.cpu().numpy().tobytes())
        self.identity = f"trunk|{name}|{dtype}|{digest.hexdigest()[:32]}"
        self.identity += (f"|{maps} maps" if maps else "") + (f"|{view}" if view else "")

    def encode_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return features (n, width), NaN for unreadable photos; see `mobileclip.towers.image.trunk_features`."""
        return encode_files(photos, self.encode_pictures, self.pixels.size, self._see)

    def _see(self, photo: PhotoRef, picture: Image.Image) -> Image.Image:
        if self.view == "mirror":
            return ImageOps.mirror(picture)
        return DEGRADATIONS[drawn_degradation(photo.path.name)](picture) if self.view else picture

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Floats:
        """Return features (n, width) of pictures as they are."""
        pixels = np.stack([self.pixels(picture) for picture in pictures])
        return self._fast(pixels) if self._fast else self._run(pixels)

    @cached_property
    def _fast(self) -> Callable[[Floats], Floats] | None:
        """The trunk in ONNX Runtime, if it's faster there."""
        if self.device.type != "cpu" or self.dtype is not None:
            return None
        return fast_trunk(self.trunk.eval().to(self.device), self.pixels.size, self.maps)

    @torch.inference_mode()
    def _run(self, pixels: Floats) -> Floats:
        self.trunk.eval().to(self.device).to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            taken = torch.from_numpy(pixels).to(self.device).contiguous(memory_format=torch.channels_last)
            features: Floats = trunk_features(self.trunk, taken, self.maps).float().cpu().numpy()
        return features

    def seeing(self, view: View) -> TrunkEncoder:
        """Return an encoder of other views with the same trunk."""
        return TrunkEncoder(self.trunk, self.name, self.pixels, self.maps, self.device, self.dtype, view)


@dataclass(frozen=True)
class CorpusFeatures:
    """A trunk's features of every photo of a corpus, and of the further views that its source names.

    Attributes:
        photos: a row for each sample.
        views: of each kind of view, the rows of some samples.
        rows: for each kind of view, the row of each sample in it; −1 without (samples,).
    """

    photos: StoredRows
    views: tuple[StoredRows, ...] = ()
    rows: tuple[NDArray[np.int64], ...] = ()

    @classmethod
    def of(cls, encoder: TrunkEncoder, cache: VectorCache, corpus: Corpus) -> CorpusFeatures:
        """Compute the features, or find them in the cache."""
        photos = cache.features(encoder, [sample.photo for sample in corpus.samples])
        views, rows = [], []
        for view in VIEWS:
            seen = np.flatnonzero([view in corpus.views[source] for source in corpus.source_of])
            row = np.full(len(corpus.samples), -1, np.int64)
            row[seen] = np.arange(len(seen))
            views.append(cache.features(encoder.seeing(view), [corpus.samples[number].photo for number in seen]))
            rows.append(row)
        return cls(photos, tuple(views), tuple(rows))

    def draw(self, sample: int, random: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return a sample's features (width,), of the photo or of one of its views, each as likely as the others."""
        found = [(self.photos, sample)]
        found += [(view, int(row[sample])) for view, row in zip(self.views, self.rows, strict=True) if row[sample] >= 0]
        stored, row = found[int(random.integers(len(found)))] if len(found) > 1 else found[0]
        return stored[row]

    def take(self, samples: Sequence[int] | NDArray[np.int64], random: np.random.Generator) -> Tensor:
        """Return `draw` for several samples (n, width) float32."""
        found = torch.empty(len(samples), self.photos.width)
        for place, sample in enumerate(samples):
            found[place] = torch.from_numpy(np.array(self.draw(int(sample), random)))
        return found

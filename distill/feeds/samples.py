"""What every source of training data offers: photos and texts by number, with what the teachers say about them."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distill.config import Stage
from distill.data.epoch import Shares


class TextSample(NamedTuple):
    """A text.

    Attributes:
        text: the text.
        targets: its embedding (d,) by each teacher; empty if teachers still have to encode it.
        tokens: the student's token ids (context length,), if they are known already.
    """

    text: str
    targets: tuple[Tensor, ...]
    tokens: NDArray[np.integer[Any]] | None = None


class PhotoSample(NamedTuple):
    """A photo as one epoch uses it.

    Attributes:
        view: the student's view (px, px, 3) uint8; in a stage with `features`, the trunk's features (width,) float32.
        group: what it shows; equal for photos that aren't each other's negatives.
        text: one of its texts.
        targets: one tensor per teacher: the photo's embedding (d,), or the teacher's view (px, px, 3) uint8, which it
            still has to encode.
        posterior: (c,) float32, the first teacher's log-probabilities of its classes, if they are stored.
    """

    view: Tensor
    group: str
    text: TextSample
    targets: tuple[Tensor, ...]
    posterior: Tensor | None = None


class Samples(Protocol):
    """Photos and texts by number. All randomness comes from the generator that is passed in."""

    identity: str
    """Digest of everything that the samples depend on."""
    sources: Shares
    """The shares and sizes of the sources, by which photos are numbered."""
    photo_count: int
    """How many photos there are: `photo` accepts numbers below this."""
    text_count: int
    """How many texts there are: `text` accepts numbers below this."""
    unreadable: int
    """How many photos are known to be unreadable; they have no number."""
    reference_per_step: bool
    """Whether references are drawn at each step; otherwise once per epoch, because it takes longer than many steps."""

    @property
    def text_lengths(self) -> NDArray[np.int64] | None:
        """Length of each text (text_count,), in any unit; None if the texts aren't known in advance."""

    def photo(self, number: int, random: np.random.Generator, stage: Stage) -> PhotoSample:
        """Return a photo.

        Raises:
            PhotoError, SampleError: it can't be read.
        """

    def text(self, number: int, random: np.random.Generator) -> TextSample:
        """Return a text for which no photo is needed.

        Raises:
            SampleError: it can't be read.
        """

    def reference(self, wanted: int, random: np.random.Generator) -> tuple[tuple[Tensor, Tensor], ...]:
        """Draw embeddings of photos and texts, one pair (n, d), (m, d) per teacher; n and m are at most `wanted`.

        Empty if teachers run at every step.
        """

"""The photos and texts of a corpus, with cached embeddings, or with views for teachers that run at every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.config import Reinforcement, Stage
from distill.data.augment import DECODE_MARGIN, apply, draw, draw_crop
from distill.data.corpus import Corpus
from distill.feeds.samples import PhotoSample, TextSample
from distill.teachers.bank import TeacherBank
from distill.teachers.trunk_features import CorpusFeatures
from mobileclip.tokenizer import Tokenizer

CROP_MARGIN = 2
"""Photos are decoded to at least this multiple of a view's side. Crops of `Stage.crop` are seldom small."""


class CorpusSamples:
    """See `Samples`.

    Args:
        corpus: photos and texts.
        tokenizer: the student's; all texts are tokenized now.
        banks: each teacher's embeddings of the corpus; empty without teachers, and if they run at every step.
        features: the student's trunk features of every photo, for stages with `features`.
        view_sizes: for teachers that run at every step, the side of each one's views in pixels.
        policy: for such teachers, how photos are augmented. Without them, `Stage.crop` says how.
    """

    reference_per_step = True

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        banks: Sequence[TeacherBank] = (),
        features: CorpusFeatures | None = None,
        view_sizes: Sequence[int] = (),
        policy: Reinforcement | None = None,
    ) -> None:
        self.corpus, self.banks, self.features = corpus, tuple(banks), features
        self.view_sizes, self.policy = tuple(view_sizes), policy
        self.identity, self.sources = corpus.identity, corpus.sources
        self.photo_count, self.text_count = len(corpus.readable), len(corpus.texts)
        self.unreadable = len(corpus.unreadable)
        tokens = tokenizer(corpus.texts)
        self.text_lengths = (tokens != 0).sum(axis=1)
        self.tokens = tokens.astype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32)

    def photo(self, number: int, random: np.random.Generator, stage: Stage) -> PhotoSample:
        """See `Samples`."""
        row = int(self.corpus.readable[number])
        sample = self.corpus.samples[row]
        text = self.text(self.corpus.draw_text(row, random), random)
        view, targets = self._view(row, random, stage)
        posterior = self.banks[0].posterior if self.banks else None
        return PhotoSample(view, sample.group, text, targets, None if posterior is None else posterior[row])

    def _view(self, row: int, random: np.random.Generator, stage: Stage) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the student's view of a photo, and each teacher's embedding or view."""
        stored = tuple(bank.photos[row] for bank in self.banks)
        if stage.features:
            assert self.features is not None
            return torch.from_numpy(self.features.draw(row, random).astype(np.float32)), stored
        margin = CROP_MARGIN if self.policy is None else DECODE_MARGIN
        picture = self.corpus.samples[row].photo.open(margin * max((stage.px, *self.view_sizes)))
        aspect = picture.width / picture.height
        if self.policy is None:
            augmentation = draw_crop(random, stage.crop, aspect)
        else:
            augmentation = draw(random, self.policy, aspect)
        views = {
            px: torch.from_numpy(np.array(apply(picture, augmentation, px))) for px in {stage.px, *self.view_sizes}
        }
        return views[stage.px], stored or tuple(views[px] for px in self.view_sizes)

    def text(self, number: int, random: np.random.Generator) -> TextSample:
        """See `Samples`."""
        targets = tuple(bank.texts[number] for bank in self.banks)
        return TextSample(self.corpus.texts[number], targets, self.tokens[number])

    def reference(self, wanted: int, random: np.random.Generator) -> tuple[tuple[Tensor, Tensor], ...]:
        """See `Samples`. Photos that can't be read are never drawn."""
        photos, texts = (
            random.choice(numbers, min(len(numbers), wanted), replace=False)
            for numbers in (self.corpus.readable, np.arange(self.text_count))
        )
        return tuple((bank.photos[photos], bank.texts[texts]) for bank in self.banks)

"""The protocol of feeds, which yield batches, and the feed of a corpus with cached teacher embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.data.corpus import Corpus
from distill.distributed import rank, size
from distill.feeds.photos import read_epoch, train_transform
from distill.losses import TeacherEmbeddings
from distill.teachers.bank import TeacherBank
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig

SORT_WINDOW = 64
"""Number of batches of texts that are sorted by length together."""


class Feed(Protocol):
    """Yields batches.

    The same (epoch, stage, first) always gives the same batches, regardless of what was read before, so a resumed run
    simply starts at `first`. The recipe's batch size is that of all processes together. A feed yields this process's
    share, positions rank::size, with the same number of rows on every process.
    """

    widths: tuple[int, ...]
    """The dimension of each teacher's embeddings."""
    identity: str
    """Digest of the data that the batches depend on; a run resumes only with the same data."""

    def steps(self, epoch: int, stage: Stage) -> int:
        """Return the number of full batches in an epoch."""

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        """Yield this process's share of an epoch's batches, from number `first` on."""


class CorpusFeed:
    """Photos and texts of a corpus, with each teacher's embeddings of all of them.

    Args:
        recipe: batch sizes, losses and seed.
        config: the student's.
        tokenizer: the student's.
        corpus: photos and texts.
        banks: one per teacher.
        workers: processes that decode photos.
        features: the student's trunk features of every photo, (samples, width) float32, for stages with `features`.

    Raises:
        ConfigError: the batch size isn't a multiple of the processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: ModelConfig,
        tokenizer: Tokenizer,
        corpus: Corpus,
        banks: tuple[TeacherBank, ...],
        workers: int = 1,
        features: Tensor | None = None,
    ) -> None:
        self.features = features
        self.recipe, self.config, self.corpus, self.banks, self.workers = recipe, config, corpus, banks, workers
        self.tokens = tokenizer(corpus.texts)
        self.all_texts = np.arange(len(corpus.texts))
        self.widths = tuple(bank.texts.shape[1] for bank in banks)
        self.identity = corpus.identity
        if recipe.optim.batch % size():
            raise ConfigError(f"optim.batch: {recipe.optim.batch} is not a multiple of {size()} processes")

    def steps(self, epoch: int, stage: Stage) -> int:
        """Return the number of full batches in an epoch."""
        if stage.texts_only:
            return len(self.corpus.texts) // self._texts_per_batch
        return len(self.corpus.epoch(self.recipe.seed, epoch)) // self.recipe.optim.batch

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        """Yield this process's share of an epoch's batches, from number `first` on."""
        if stage.texts_only:
            order = self._texts_by_length(epoch)
            for step in range(first, len(order)):
                random = np.random.default_rng((self.recipe.seed, epoch, step))
                ids = order[step][rank() :: size()]
                no_photos = np.zeros(0, np.int64)
                yield self._batch(torch.zeros(0, 3, 1, 1), no_photos, ids, self._reference(random))
            return
        batch = self.recipe.optim.batch
        order = self.corpus.epoch(self.recipe.seed, epoch)
        for step, (pixels, positions, tried) in enumerate(self._photos(order, epoch, stage, first), first):
            random = np.random.default_rng((self.recipe.seed, epoch, step))
            drawn = order[step * batch : (step + 1) * batch]
            # All texts are drawn before any photo is read, so an unreadable photo doesn't change the others' texts.
            texts = np.array([random.choice(self.corpus.text_ids[row]) for row in drawn])
            extra = self._extra_texts(random, texts)
            own = texts[positions - step * batch]
            yield self._batch(pixels, order[positions], np.concatenate([own, extra]), self._reference(random), tried)

    def _photos(
        self, order: NDArray[np.int64], epoch: int, stage: Stage, first: int
    ) -> Iterator[tuple[Tensor, NDArray[np.int64], int]]:
        """Yield this process's share of each batch: pixels or features, positions in `order`, photos tried."""
        batch = self.recipe.optim.batch
        if not stage.features:
            paths = [self.corpus.samples[row].path for row in order]
            transform = train_transform(stage.px, stage.crop, self.config.pixels)
            seed = (self.recipe.seed, epoch)
            yield from read_epoch(paths, transform, stage.px, batch, seed=seed, first=first, workers=self.workers)
            return
        if self.features is None:
            raise ConfigError("stages: the student's features were not computed")
        for start in range(first * batch, len(order) // batch * batch, batch):
            positions = np.arange(start + rank(), start + batch, size())
            yield self.features[order[positions]], positions, len(positions)

    @property
    def _texts_per_batch(self) -> int:
        """Texts in a batch of all processes without photos, a multiple of their number."""
        optim = self.recipe.optim
        return (optim.batch + optim.extra_texts) // size() * size()

    def _texts_by_length(self, epoch: int) -> NDArray[np.int64]:
        """Draw the texts of an epoch, (batches, texts per batch), of similar length in each batch to save padding."""
        random, texts = np.random.default_rng((self.recipe.seed, epoch)), self._texts_per_batch
        order = random.permutation(len(self.corpus.texts))
        if self.config.text.causal:  # other towers process the padding anyway
            lengths = (self.tokens != 0).sum(axis=1)
            windows = [
                order[start : start + SORT_WINDOW * texts] for start in range(0, len(order), SORT_WINDOW * texts)
            ]
            order = np.concatenate([window[np.argsort(lengths[window], kind="stable")] for window in windows])
        full = order[: len(order) // texts * texts].reshape(-1, texts)
        shuffled: NDArray[np.int64] = random.permutation(full)
        return shuffled

    def _extra_texts(self, random: np.random.Generator, texts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw this process's share of the extra texts, without those that photos of the batch use."""
        extra = np.setdiff1d(_draw(random, self.all_texts, self.recipe.optim.extra_texts), texts)
        return extra[: len(extra) // size() * size()][rank() :: size()]

    def _reference(self, random: np.random.Generator) -> tuple[TeacherEmbeddings, ...]:
        """Draw the reference embeddings of the affinity loss, the same on every process."""
        loss = self.recipe.loss
        if not loss.compares_with_reference:
            return ()
        photos, texts = _draw(random, self.corpus.readable, loss.bank), _draw(random, self.all_texts, loss.bank)
        return tuple(TeacherEmbeddings(bank.photos[photos], bank.texts[texts], bank.logit_scale) for bank in self.banks)

    def _batch(
        self,
        pixels: Tensor,
        rows: NDArray[np.int64],
        texts: NDArray[np.int64],
        reference: tuple[TeacherEmbeddings, ...],
        tried: int = 0,
    ) -> Batch:
        first = self.banks[0] if self.banks else None
        return Batch(
            pixels,
            torch.from_numpy(self.tokens[texts]),
            torch.from_numpy(self.corpus.groups[rows]),
            tuple(TeacherEmbeddings(bank.photos[rows], bank.texts[texts], bank.logit_scale) for bank in self.banks),
            reference,
            first.classes if first else None,
            None if first is None or first.posterior is None else first.posterior[rows],
            tried,
        )


def _draw(random: np.random.Generator, numbers: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Draw `wanted` numbers without replacement, or all if there are fewer."""
    return random.choice(numbers, min(len(numbers), wanted), replace=False)

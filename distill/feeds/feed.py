"""Where training batches come from: samples of any source, with targets of any teacher."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.data.epoch import epoch_size
from distill.distributed import size
from distill.feeds.samples import Samples
from distill.feeds.steps import Steps, prepare_steps, rows_per_step
from distill.feeds.targets import Targets
from distill.losses import TeacherEmbeddings
from mobileclip.errors import ConfigError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig


class Feed:
    """Yields batches.

    The same (epoch, stage, first) always gives the same batches, regardless of what was read before, so a resumed run
    simply starts at `first`. The recipe's batch size is that of all processes together. A feed yields this process's
    share, positions rank::size, with the same number of rows on every process.

    Args:
        recipe: batch sizes, losses and seed.
        config: the student's.
        tokenizer: the student's.
        samples: photos and texts.
        targets: what teachers say about them.
        workers: processes that prepare batches ahead; 0 prepares them in this process.

    Raises:
        ConfigError: the batch size isn't a multiple of the processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: ModelConfig,
        tokenizer: Tokenizer,
        samples: Samples,
        targets: Targets,
        workers: int = 1,
    ) -> None:
        self.recipe, self.config, self.tokenizer, self.workers = recipe, config, tokenizer, workers
        self.samples, self.targets = samples, targets
        if recipe.optim.batch % size():
            raise ConfigError(f"optim.batch: {recipe.optim.batch} is not a multiple of {size()} processes")
        texts = recipe.optim.batch + recipe.optim.extra_texts
        if texts % size() and any(stage.texts_only for stage in recipe.stages):
            raise ConfigError(f"optim.batch + optim.extra_texts: {texts} is not a multiple of {size()} processes")

    @property
    def widths(self) -> tuple[int, ...]:
        """The dimension of each teacher's embeddings."""
        return self.targets.widths

    @property
    def identity(self) -> str:
        """Digest of the data that the batches depend on; a run resumes only with the same data."""
        return "|".join(filter(None, (self.samples.identity, self.targets.identity)))

    def steps(self, epoch: int, stage: Stage) -> int:
        """Return the number of full batches in an epoch."""
        total = self.samples.text_count if stage.texts_only else epoch_size(self.samples.sources)
        return total // rows_per_step(self.recipe.optim, stage)

    def batches(self, epoch: int, stage: Stage, first: int) -> Iterator[Batch]:
        """Yield this process's share of an epoch's batches, from number `first` on.

        Raises:
            PocketclipError: data is missing or damaged that was there at the start.
        """
        recipe, samples, targets = self.recipe, self.samples, self.targets
        # Other towers than causal ones process the padding anyway.
        sort = self.config.text.causal
        steps = Steps(samples, stage, recipe.optim, recipe.seed, epoch, self.tokenizer, self.config.pixels, sort)
        reference = () if samples.reference_per_step else self._reference(epoch)
        for number, rows in enumerate(prepare_steps(steps, first, self.workers), first):
            if samples.reference_per_step:
                reference = self._reference(epoch, number)
            yield Batch(
                rows.pixels,
                rows.tokens,
                rows.groups,
                targets.embeddings(rows),
                reference,
                targets.classes,
                targets.posterior(rows),
                rows.tried,
            )

    def _reference(self, *key: int) -> tuple[TeacherEmbeddings, ...]:
        """Draw the reference embeddings of the affinity loss, the same on every process."""
        loss = self.recipe.loss
        if not loss.compares_with_reference:
            return ()
        pairs = self.samples.reference(loss.bank, np.random.default_rng((self.recipe.seed, 6, *key)))
        return tuple(TeacherEmbeddings(*pair, scale) for pair, scale in zip(pairs, self.targets.scales, strict=False))

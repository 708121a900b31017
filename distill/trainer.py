"""The training loop: one student, cached teacher vectors, stages of growing pictures."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill.config import Recipe, Stage
from distill.data.batches import augmentation, batches
from distill.data.corpus import Corpus
from distill.task import DistillTask, TeacherBank
from mobileclip.checkpoints import read_torch
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"


class TrainingError(PocketclipError):
    """Training that cannot go on."""


@dataclass(frozen=True)
class Progress:
    """What a step reports: where it is, how fast, and its losses."""

    step: int
    steps: int
    epoch: int
    photos_per_second: float
    losses: dict[str, float]


class Trainer:
    """Trains a student; `run` yields after each step and may be stopped and resumed at any of them.

    Args:
        recipe: all settings.
        model: the student, trunk weights already loaded.
        tokenizer: the student's.
        corpus: photos and texts.
        bank: the teacher's vectors of all of them.
        out: folder for checkpoint and metrics.
        workers: processes that decode photos.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: CLIP,
        tokenizer: Tokenizer,
        corpus: Corpus,
        bank: TeacherBank,
        out: Path,
        workers: int = 1,
    ) -> None:
        self.recipe, self.corpus, self.out, self.workers = recipe, corpus, out, workers
        self.model = model.to(memory_format=torch.channels_last)
        self.tokens = tokenizer(corpus.texts)
        self.task = DistillTask(self.model, bank, recipe.loss, recipe.optim.precision)
        optim = recipe.optim
        self.plan = [stage for stage in recipe.stages for _ in range(stage.epochs)]
        self.epoch_steps = [self._steps_of(epoch, stage) for epoch, stage in enumerate(self.plan)]
        self.steps = sum(self.epoch_steps)
        if not self.steps:
            raise TrainingError(f"{len(corpus.samples)} photos do not fill one batch of {optim.batch}")
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, recipe), betas=(0.9, 0.98))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema), use_buffers=True)
        self.step = 0
        self.frozen: list[torch.nn.Module] = []
        _check_frozen(self.model, recipe)
        out.mkdir(parents=True, exist_ok=True)

    @property
    def student(self) -> CLIP:
        """The weights to keep: averaged ones where the recipe asks for averaging."""
        averaged = self.average.module
        return averaged if isinstance(averaged, CLIP) and self.recipe.optim.ema else self.model

    def _rate(self, step: int) -> float:
        """Linear warm-up, then cosine to a hundredth."""
        warmup = min(self.recipe.optim.warmup, self.steps // 2)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2

    def run(self) -> Iterator[Progress]:
        """Train from where the checkpoint left off; yields after each step.

        Raises:
            TrainingError: the loss is no longer a number.
        """
        with self._open_metrics() as metrics:
            for epoch, stage in enumerate(self.plan):
                begin = sum(self.epoch_steps[:epoch])
                if self.step >= begin + self.epoch_steps[epoch]:
                    continue
                self._freeze(stage.frozen)
                started = time.perf_counter()
                for losses, count in self._epoch(epoch, stage, self.step - begin):
                    self.step += 1
                    rate = count / (time.perf_counter() - started)
                    started = time.perf_counter()
                    line = {"step": self.step, "epoch": epoch, "px": stage.px, "photos_per_second": round(rate, 1)}
                    metrics.write(json.dumps({**line, "lr": self.schedule.get_last_lr()[-1], **losses}) + "\n")
                    metrics.flush()
                    if self.step % self.recipe.save_every == 0 or self.step == self.steps:
                        self.save()
                    yield Progress(self.step, self.steps, epoch, rate, losses)

    def _steps_of(self, epoch: int, stage: Stage) -> int:
        optim = self.recipe.optim
        if stage.texts_only:
            return len(self.corpus.texts) // (optim.batch + optim.extra_texts)
        return len(self.corpus.epoch(self.recipe.seed, epoch)) // optim.batch

    def _epoch(self, epoch: int, stage: Stage, first: int) -> Iterator[tuple[dict[str, float], int]]:
        """Take the steps of an epoch from `first` on; yields losses and the number of items of each."""
        if stage.texts_only:
            size = self.recipe.optim.batch + self.recipe.optim.extra_texts
            order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.corpus.texts))
            for step in range(first, self.epoch_steps[epoch]):
                yield self._text_step(order[step * size : (step + 1) * size]), size
            return
        for pixels, rows in self._batches(epoch, stage, first):
            yield self._train_step(pixels, rows), len(rows)

    def _text_step(self, ids: NDArray[np.int64]) -> dict[str, float]:
        random = np.random.default_rng((self.recipe.seed, self.step))
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        self.model.train()
        return self._descend(self.task.texts(self._tokens(ids), text_ids=ids, random=random))

    def _tokens(self, ids: NDArray[np.int64]) -> Tensor:
        """Tokens of these texts, without columns in which all are padding where the tower cannot see those."""
        tokens = self.tokens[ids]
        if self.model.config.text.causal:
            tokens = tokens[:, : max(1, int((tokens != 0).sum(axis=1).max()))]
        return torch.from_numpy(tokens)

    def _freeze(self, names: tuple[str, ...]) -> None:
        """Let everything learn but the parts of these names."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(names))
        self.frozen = [module for name, module in self.model.named_modules() if names and name.startswith(names)]

    def _batches(self, epoch: int, stage: Stage, first: int) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        transform = augmentation(stage.px, stage.crop, self.model.config.pixels)
        return batches(
            self.corpus,
            self.corpus.epoch(self.recipe.seed, epoch),
            transform,
            stage.px,
            self.recipe.optim.batch,
            seed=(self.recipe.seed, epoch),
            first=first,
            workers=self.workers,
        )

    def _train_step(self, pixels: Tensor, rows: NDArray[np.int64]) -> dict[str, float]:
        optim = self.recipe.optim
        # All randomness of a step follows from its number, so that a resumed run is the run that was killed.
        random = np.random.default_rng((self.recipe.seed, self.step))
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        texts = np.array([random.choice(self.corpus.text_ids[row]) for row in rows])
        extra = random.choice(len(self.corpus.texts), min(optim.extra_texts, len(self.corpus.texts)), replace=False)
        ids = np.concatenate([texts, np.setdiff1d(extra, texts)])
        self.model.train()
        for module in self.frozen:
            module.eval()  # BatchNorm's statistics are frozen too
        losses = self.task(
            pixels.contiguous(memory_format=torch.channels_last),
            self._tokens(ids),
            rows=rows,
            text_ids=ids,
            groups=self.corpus.groups[rows],
            random=random,
        )
        return self._descend(losses)

    def _descend(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Take one step of the optimizer; returns the losses and the gradient's norm as numbers."""
        optim, total = self.recipe.optim, losses["loss"]
        if not torch.isfinite(total):
            raise TrainingError(
                f"the loss became {float(total)} at step {self.step}; the last checkpoint is good: "
                "resume from it with a lower optim.lr"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip)
        self.optimizer.step()
        self.schedule.step()
        self.model.clamp_logit_scale()
        self.average.update_parameters(self.model)
        values = {name: round(float(value.detach()), 5) for name, value in losses.items()}
        return {**values, "gradient_norm": round(float(norm), 4)}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "step": self.step,
            "recipe": repr(self.recipe),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
        }
        partial = self.out / f"{CHECKPOINT}.{os.getpid()}.part"
        torch.save(state, partial)
        partial.replace(self.out / CHECKPOINT)

    def resume(self) -> bool:
        """Go back to the checkpoint in `out`; False where there is none.

        Raises:
            TrainingError: the checkpoint is of another recipe.
            CheckpointError: it is damaged.
        """
        path = self.out / CHECKPOINT
        if not path.exists():
            return False
        state = read_torch(path)
        if state.get("recipe") != repr(self.recipe):
            raise TrainingError(f"{path}: made with other settings; use another --out, or remove it to start anew")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]["last_epoch"]
        for group, base in zip(self.optimizer.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = base * self._rate(self.schedule.last_epoch)
        self.step = state["step"]
        return True

    def _open_metrics(self) -> TextIO:
        """Open the metrics for appending, without the lines of steps that will be done again."""
        path = self.out / METRICS
        kept = []
        if path.exists():
            kept = [line for line in path.read_text("utf-8").splitlines() if _step(line) <= self.step]
        path.write_text("".join(line + "\n" for line in kept), "utf-8")
        return path.open("a", encoding="utf-8")


def _step(line: str) -> float:
    """The step of a metrics line; a line torn by a kill counts as later than all."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")


def _check_frozen(model: CLIP, recipe: Recipe) -> None:
    """Refuse names of no weight, and stages in which nothing would learn."""
    weights = [name for name, _ in model.named_parameters()]
    for stage in recipe.stages:
        if wrong := [part for part in stage.frozen if not any(name.startswith(part) for name in weights)]:
            raise ConfigError(f"stages: frozen: no weight's name begins with {wrong[0]!r}")
        if stage.frozen and all(name.startswith(stage.frozen) for name in weights):
            raise ConfigError("stages: frozen: nothing would be left to learn")


def parameter_groups(model: CLIP, recipe: Recipe) -> list[dict[str, object]]:
    """Split parameters by tower rate, and those that must not decay: biases, norms, embeddings, the scale."""
    optim = recipe.optim
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        rate = optim.lr_trunk if name.startswith("image.trunk.") else optim.lr
        plain = parameter.ndim < 2 or "embedding" in name or name.endswith("positions")
        groups.setdefault((rate, 0.0 if plain else optim.weight_decay), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]

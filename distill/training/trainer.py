"""The training loop: one student, batches from a feed, stages of growing pictures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.distributed import mean, rank, seed_all, size
from distill.feeds.cached import Feed
from distill.logs import RunLog
from distill.progress import TrainingStep
from distill.training.checkpoints import Snapshots
from distill.training.gradient_cache import backward_in_parts, untouched_statistics
from distill.training.memory import compile_towers, recompute_activations
from distill.training.optimizer import Average, parameter_groups, phase, schedule
from distill.training.parallel import Parallel, fill, restore, whole
from distill.training.task import DistillTask
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.towers import CLIP

MEDIAN_OF, MEDIAN_FROM = 100, 20
"""The loss explodes against the median of the last so many steps of a stage, once there are enough."""

Validate = Callable[[CLIP, int, float], float]
"""Measures a student, its step and the best score so far given, on the first process; keeps it if it is better."""


class TrainingError(PocketclipError):
    """Training that cannot go on."""


@dataclass
class _Course:
    """What a run remembers beside weights; all of it goes into checkpoints."""

    step: int = 0
    recent: list[float] = field(default_factory=list)
    unread: int = 0
    best: float = -1.0


class Trainer:
    """Trains a student; `run` yields after each step and may be stopped and resumed at any of them.

    Args:
        recipe: all settings.
        model: the student, trunk weights already loaded.
        feed: where batches come from.
        out: folder for checkpoints and metrics.
        device: where to train.
        validate: measures the student now and then, as the recipe's `validate` says.

    Raises:
        ConfigError: settings do not fit the student or its teachers.
        TrainingError: there is too little data for a step.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: CLIP,
        feed: Feed,
        out: Path,
        device: torch.device | None = None,
        validate: Validate | None = None,
    ) -> None:
        self.recipe, self.model, self.feed, self.out, self.validate = recipe, model, feed, out, validate
        self.device = device or torch.device("cpu")
        optim = recipe.optim
        _check_frozen(model, recipe)
        self.task = DistillTask(model, recipe.loss, feed.widths, optim.precision, optim.quantize)
        self.task.to(self.device)
        if optim.strategy == "ddp" or size() == 1:  # FSDP shares out tensors in their plain order only
            self.task.to(memory_format=torch.channels_last)
        if optim.checkpoint_activations:
            recompute_activations(model)
        if optim.compile:
            compile_towers(model)
        self.parallel = Parallel(self.task, optim.strategy)
        self.plan = [stage for stage in recipe.stages for _ in range(stage.epochs)]
        self.epoch_steps = [feed.steps(epoch, stage) for epoch, stage in enumerate(self.plan)]
        self.steps = sum(self.epoch_steps)
        if not self.steps:
            raise TrainingError(f"there is too little data for one batch of {optim.batch}: lower optim.batch")
        self.optimizer = torch.optim.AdamW(parameter_groups(self.task, optim), betas=(0.9, 0.98))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=optim.precision == "fp16")
        self.average = Average(model, optim.ema) if optim.ema else None
        self.snapshots = Snapshots(out, recipe.keep_last)
        self.course = _Course()
        self.frozen: tuple[str, ...] = ()
        self.stopping = False
        """Set it, from a signal handler or another process, and the run ends with a checkpoint after this step."""

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.course.step

    def student(self) -> CLIP:
        """Return the weights to keep, on the CPU: averaged ones where the recipe asks. All processes must call it."""
        kept = CLIP(self.model.config)
        kept.load_state_dict(whole(self.average.values if self.average else self.model.state_dict()))
        return kept

    def run(self) -> Iterator[TrainingStep]:
        """Train from where the checkpoint left off; yields after each step.

        Raises:
            TrainingError: the loss is no longer a number, or has exploded.
        """
        log = RunLog(self.out, self.step) if rank() == 0 else None
        try:
            for epoch, stage in enumerate(self.plan):
                begin = sum(self.epoch_steps[:epoch])
                if self.step >= begin + self.epoch_steps[epoch]:
                    continue
                self._begin(stage)
                for progress, figures in self._epoch(epoch, stage, self.step - begin):
                    due = self.step == self.steps or self.step % self.recipe.save_every == 0
                    if (score := self._validate()) is not None:
                        figures["validation"] = score
                    if log:
                        log.write(figures)
                    if due or self.stopping:
                        self.save()
                    yield progress
                    if self.stopping:
                        return
        finally:
            if log:
                log.close()

    def _epoch(self, epoch: int, stage: Stage, first: int) -> Iterator[tuple[TrainingStep, dict[str, float]]]:
        """Take the steps of an epoch from `first` on; yields progress, and figures for the log."""
        if first == 0:
            self.course.recent.clear()
        batches = self.feed.batches(epoch, stage, first)
        started = time.perf_counter()
        while (batch := next(batches, None)) is not None:
            waited = time.perf_counter() - started
            step, steps = phase(self.step, [one.texts_only for one in self.plan], self.epoch_steps)
            rate = stage.rate * schedule(step, steps, self.recipe.optim.warmup)
            losses = self._step(batch.to(self.device), rate)
            self.course.step += 1
            self.course.unread += batch.unread
            took = time.perf_counter() - started
            progress = TrainingStep(
                step=self.step,
                steps=self.steps,
                epoch=epoch,
                photos_per_second=round(len(batch) * size() / took, 1),
                losses=losses,
                wait=round(waited / took, 4),
                unread=self.course.unread,
            )
            figures = {
                "step": self.step,
                "epoch": epoch,
                "px": stage.px,
                "lr": self.recipe.optim.lr * rate,
                **losses,
                "photos_per_second": progress.photos_per_second,
                "wait": progress.wait,
                "unread": progress.unread,
            }
            yield progress, figures
            started = time.perf_counter()

    def _begin(self, stage: Stage) -> None:
        """Let all learn but what the stage freezes; without photos the image tower too, on features its trunk."""
        at_rest = ("image.",) if stage.texts_only else ("image.trunk.",) if stage.features else ()
        self.frozen = (*stage.frozen, *at_rest)
        self.task.train()
        for name, module in self.model.named_modules():
            if self.frozen and f"{name}.".startswith(self.frozen):
                module.eval()  # BatchNorm's statistics are frozen too
        for name, parameter in self.model.named_parameters():
            if not self.parallel.sharded:  # shares keep the setting that they had when they were first joined
                parameter.requires_grad_(not name.startswith(self.frozen))

    def _step(self, batch: Batch, rate: float) -> dict[str, float]:
        """Take one step of the optimizer; returns the losses and the gradient's norm as numbers."""
        optim = self.recipe.optim
        # All randomness of a step follows from its number, so that a resumed run is the run that was killed.
        seed = (self.recipe.seed, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        if optim.micro_batch and len(batch) > optim.micro_batch:
            losses = backward_in_parts(self.parallel, batch, optim.micro_batch, seed, self.scaler.scale)
        else:
            seed_all(*seed, 0)
            losses = self.parallel(batch)
            with untouched_statistics(self.task):  # activations may be computed again
                self.scaler.scale(losses["loss"]).backward()
        self.parallel.gather()
        values = self._agreed(losses)
        self._check(values["loss"])
        for name, parameter in self.model.named_parameters():
            if self.frozen and name.startswith(self.frozen):
                parameter.grad = None
        self.scaler.unscale_(self.optimizer)
        norm = self.parallel.clip(optim.clip)
        if not torch.isfinite(norm) and not self.scaler.is_enabled():
            self._fail(f"the gradient became {float(norm)}")
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.model.clamp_logit_scale()
        if self.average:
            self.average.update(self.model)
        return {**values, "gradient_norm": round(float(norm), 4)}

    def _agreed(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Average losses over the processes, and learn whether any of these is to stop."""
        flag = torch.tensor(float(self.stopping), device=self.device)
        *values, stop = mean(torch.stack([*(value.detach().float() for value in losses.values()), flag])).tolist()
        self.stopping = stop > 0
        return {name: round(value, 5) for name, value in zip(losses, values, strict=True)}

    def _check(self, loss: float) -> None:
        """Stop where the loss is no number, or far above what it was of late."""
        recent, limit = self.course.recent, self.recipe.optim.explode
        if not abs(loss) < float("inf"):
            self._fail(f"the loss became {loss}")
        if limit and len(recent) >= MEDIAN_FROM and loss > limit * (median := statistics.median(recent)) > 0:
            self._fail(f"the loss exploded to {loss:.4g}, {loss / median:.0f} times its median of {median:.4g},")
        self.course.recent = [*recent[1 - MEDIAN_OF :], loss]

    def _fail(self, what: str) -> None:
        # The weights of this very step are what failed, so a checkpoint of it would only fail again.
        good = self.snapshots.before(self.step)
        if rank() == 0:
            self.snapshots.path(self.step).unlink(missing_ok=True)
        advice = (
            f"{good} is the last good checkpoint, from which the same command goes on; lower optim.lr with it"
            if good
            else "there is no good checkpoint yet; start again with a lower optim.lr"
        )
        raise TrainingError(f"{what} at step {self.step}; {advice}")

    def _validate(self) -> float | None:
        """Measure the student where that is due; the first process alone learns the score."""
        plan = self.recipe.validate
        if plan is None or self.validate is None or (self.step % plan.every and self.step != self.steps):
            return None
        student = self.student()
        if rank():
            return None
        score = self.validate(student, self.step, self.course.best)
        self.course.best = max(self.course.best, score)
        return round(score, 4)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; all processes must call it, and the first writes."""
        state = {
            "recipe": self.recipe.basis,
            "data": self.feed.identity,
            "course": dict(vars(self.course)),
            "task": whole(self.task.state_dict()),
            "average": {"updates": self.average.updates, "values": whole(self.average.values)} if self.average else {},
            "optimizer": whole(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
        }
        if rank() == 0:
            self.snapshots.save(self.step, state)

    def resume(self) -> bool:
        """Go back to the last checkpoint in `out`; False where there is none.

        Raises:
            TrainingError: the checkpoint is of another recipe or of other data.
            CheckpointError: it is damaged.
        """
        if (found := self.snapshots.load()) is None:
            return False
        path, state = found
        if state.get("recipe") != self.recipe.basis:
            raise TrainingError(f"{path}: made with other settings; use another --out, or remove it to start anew")
        if state.get("data") != self.feed.identity:
            raise TrainingError(f"{path}: made with other data; use another --out, or remove it to start anew")
        try:
            self._load(state)
        except (KeyError, ValueError, TypeError) as error:
            raise TrainingError(f"{path}: of another version of pocketclip ({error}); use another --out") from error
        return True

    def _load(self, state: dict[str, Any]) -> None:
        fill(self.task.state_dict(), state["task"])
        if self.average:
            fill(self.average.values, state["average"]["values"])
            self.average.updates = state["average"]["updates"]
        rates = [group["rate"] for group in self.optimizer.param_groups]
        restore(self.optimizer, state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["rate"] = rate
        self.scaler.load_state_dict(state["scaler"])
        self.course = _Course(**state["course"])


def _check_frozen(model: CLIP, recipe: Recipe) -> None:
    """Refuse names of no weight, and stages in which nothing would learn."""
    weights = [name for name, _ in model.named_parameters()]
    for stage in recipe.stages:
        if wrong := [part for part in stage.frozen if not any(name.startswith(part) for name in weights)]:
            raise ConfigError(f"stages: frozen: no weight's name begins with {wrong[0]!r}")
        if stage.frozen and all(name.startswith(stage.frozen) for name in weights):
            raise ConfigError("stages: frozen: nothing would be left to learn")

"""The training loop."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.config.changes import AT_THE_END, describe, find_changes, is_free
from distill.distributed import everyone, joined, mean, rank, seed_all, size
from distill.feeds.feed import Feed
from distill.logs import RunLog, StepLog
from distill.losses import LOSSES
from distill.progress import TrainingStep
from distill.training.checkpoints import RunCheckpoints
from distill.training.gradient_cache import backward_in_parts, untouched_statistics
from distill.training.initialize import interpolate
from distill.training.memory import compile_towers, recompute_activations
from distill.training.optimizer import EMA, parameter_groups, rate_factors
from distill.training.parallel import Parallel, gather_optimizer, gather_state, load_optimizer, load_state
from distill.training.task import DistillTask
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.layouts.run import describe_student
from mobileclip.tables import build, to_table
from mobileclip.towers import CLIP

MEDIAN_OF, MEDIAN_FROM = 100, 20
"""The loss is compared with the median of the last 100 steps of an epoch, once there are 20."""

Validate = Callable[[CLIP, int, float], float]
"""Called on the first process with the student, its step and the best score so far; returns the student's score."""


class TrainingError(PocketclipError):
    """Training can't continue."""


@dataclass
class _RunState:
    """State of a run besides the weights, saved in checkpoints."""

    step: int = 0
    recent: list[float] = field(default_factory=list)
    unread: int = 0
    best: float = -1.0


class Trainer:
    """Trains a student. `run` yields after each step and can be stopped and resumed after any of them.

    Args:
        recipe: all settings.
        model: the student with its initial weights.
        feed: provides the batches.
        out: folder for checkpoints and metrics.
        device: where to train; None for the CPU.
        validate: evaluates the student as often as the recipe's `validate` says.
        merges: the bytes of the student's merges file, for its checkpoints.
        logs: where else each step's figures go; only the first process writes.
        start: the model as it was at the start of the run, on the CPU, for the recipe's `keep_start`.

    Raises:
        ConfigError: a setting doesn't fit the student or its teachers.
        TrainingError: there is too little data for one batch.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: CLIP,
        feed: Feed,
        out: Path,
        device: torch.device | None = None,
        validate: Validate | None = None,
        merges: bytes = b"",
        logs: Sequence[StepLog] = (),
        start: CLIP | None = None,
    ) -> None:
        self.merges, self.logs, self.start = merges, logs, start
        self.recipe, self.model, self.feed, self.out, self.validate = recipe, model, feed, out, validate
        self.device = device or torch.device("cpu")
        optim = recipe.optim
        _check_frozen(model, recipe)
        self.task = DistillTask(model, recipe.loss, feed.widths, optim.precision, optim.quantize)
        self.task.to(self.device)
        if optim.strategy == "ddp" or not joined():  # FSDP can't shard tensors in channels-last order
            self.task.to(memory_format=torch.channels_last)
        if optim.checkpoint_activations:
            recompute_activations(model)
        if optim.compile:
            compile_towers(model)
        self.parallel = Parallel(self.task, optim.strategy)
        self.epoch_stages = [stage for stage in recipe.stages for _ in range(stage.epochs)]
        self.epoch_steps = [feed.steps(epoch, stage) for epoch, stage in enumerate(self.epoch_stages)]
        self.steps = sum(self.epoch_steps)
        if not self.steps:
            raise TrainingError(f"there is too little data for one batch of {optim.batch}: {_remedy(feed)}")
        self.rate_factors = list(rate_factors(self.epoch_stages, self.epoch_steps, optim))
        self.optimizer = torch.optim.AdamW(parameter_groups(self.task, optim), betas=optim.betas)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=optim.precision == "fp16")
        self.ema = EMA(model, optim.ema) if optim.ema else None
        self.checkpoints = RunCheckpoints(out, recipe.keep_last)
        self.state = _RunState()
        self.frozen: tuple[str, ...] = ()
        self.stopping = False
        """Set to True on any process, for example by a signal handler, to save a checkpoint and stop after a step."""
        self.stopped = False
        """Whether all processes have agreed to stop."""

    @property
    def step(self) -> int:
        """Number of steps taken."""
        return self.state.step

    def student(self) -> CLIP:
        """Return the student on the CPU. All processes must call it.

        Its weights are averaged if the recipe asks: over the last steps (`optim.ema`), and with those of the start
        (`keep_start`).
        """
        kept = CLIP(self.model.config)
        kept.load_state_dict(gather_state(self.ema.values if self.ema else self.model.state_dict()))
        return interpolate(self.start, kept, 1 - self.recipe.keep_start) if self.start else kept

    def run(self) -> Generator[TrainingStep, None, None]:
        """Train from the current step to the end; yields after each step.

        Raises:
            TrainingError: the loss became NaN or infinite, or exploded.
        """
        logs = [RunLog(self.out, self.step), *self.logs] if rank() == 0 else []
        try:
            for epoch, stage in enumerate(self.epoch_stages):
                begin = sum(self.epoch_steps[:epoch])
                if self.step >= begin + self.epoch_steps[epoch]:
                    continue
                self._begin(stage)
                for progress, figures in self._epoch(epoch, stage, self.step - begin):
                    due = self.step == self.steps or self.step % self.recipe.save_every == 0
                    if (score := self._validate()) is not None:
                        figures["validation"] = score
                    for log in logs:
                        log.write(figures)
                    if due or self.stopped:
                        self.save()
                    yield progress
                    if self.stopped:
                        return
        finally:
            for log in logs:
                log.close()

    def _epoch(self, epoch: int, stage: Stage, first: int) -> Iterator[tuple[TrainingStep, dict[str, float]]]:
        """Run the steps of an epoch, starting at `first`; yields progress, and figures for the log."""
        if first == 0:
            self.state.recent.clear()
        batches = self.feed.batches(epoch, stage, first)
        started = time.perf_counter()
        while (batch := next(batches, None)) is not None:
            waited = time.perf_counter() - started
            rate = self.rate_factors[self.step]
            losses = self._step(batch.to(self.device), rate)
            self.state.step += 1
            self.state.unread += batch.unread
            took = time.perf_counter() - started
            progress = TrainingStep(
                step=self.step,
                steps=self.steps,
                epoch=epoch,
                photos_per_second=round(len(batch) * size() / took, 1),
                losses=losses,
                lr=self.recipe.optim.lr * rate,
                wait=round(waited / took, 4),
                unread=self.state.unread,
            )
            figures = {
                "step": self.step,
                "epoch": epoch,
                "px": stage.px,
                "lr": progress.lr,
                **losses,
                "photos_per_second": progress.photos_per_second,
                "wait": progress.wait,
                "unread": progress.unread,
            }
            yield progress, figures
            started = time.perf_counter()

    def _begin(self, stage: Stage) -> None:
        """Freeze what the stage freezes, and what its inputs bypass: the image tower, or only its trunk."""
        implied = ("image.",) if stage.texts_only else ("image.trunk.",) if stage.features else ()
        self.frozen = (*stage.frozen, *implied)
        self.task.train()
        for name, module in self.model.named_modules():
            if self.frozen and f"{name}.".startswith(self.frozen):
                module.eval()  # freezes BatchNorm statistics too
        for name, parameter in self.model.named_parameters():
            if not self.parallel.sharded:  # FSDP doesn't allow changes after the first step
                parameter.requires_grad_(not name.startswith(self.frozen))

    def _step(self, batch: Batch, rate: float) -> dict[str, float]:
        """Run one optimizer step; returns the losses and the gradient norm."""
        optim = self.recipe.optim
        self._check_rows(batch)
        # A step's randomness depends only on its number, so a resumed run equals an uninterrupted one.
        seed = (self.recipe.seed, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        if optim.micro_batch and len(batch) > optim.micro_batch:
            losses = backward_in_parts(self.parallel, batch, optim.micro_batch, seed, self.scaler.scale)
        else:
            seed_all(*seed, 0)
            losses = self.parallel(batch)
            with untouched_statistics(self.task):  # the backward pass may recompute activations
                self.scaler.scale(losses["loss"]).backward()
        self.parallel.average_loss_gradients()
        values = self._average_losses(losses)
        self._check(values)
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
        if self.ema:
            self.ema.update(self.model)
        return {**values, "gradient_norm": round(float(norm), 4)}

    def _check_rows(self, batch: Batch) -> None:
        """Fail on every process if their shares of a batch differ: gathering them would return garbage, or abort."""
        if size() == 1:
            return
        rows = everyone(torch.tensor([[len(batch.pixels), len(batch.tokens)]], device=self.device))
        if (rows != rows[0]).any():
            raise TrainingError(
                f"at step {self.step}, the processes have different numbers of photos and texts: {rows.tolist()}"
            )

    def _average_losses(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Average losses over all processes, and agree to stop if any process wants to."""
        flag = torch.tensor(float(self.stopping), device=self.device)
        *values, stop = mean(torch.stack([*(value.detach().float() for value in losses.values()), flag])).tolist()
        self.stopped = stop > 0
        return {name: round(value, 5) for name, value in zip(losses, values, strict=True)}

    def _check(self, losses: Mapping[str, float]) -> None:
        """Fail if the loss is NaN or infinite, or far above its recent median."""
        loss, recent, limit = losses["loss"], self.state.recent, self.recipe.optim.explode
        if not math.isfinite(loss):
            terms = [f"loss.{name}" for name, value in losses.items() if name in LOSSES and not math.isfinite(value)]
            self._fail(f"the loss became {loss}", f" ({', '.join(terms)})" if terms else "")
        if limit and len(recent) >= MEDIAN_FROM and loss > limit * (median := statistics.median(recent)) > 0:
            self._fail(f"the loss exploded to {loss:.4g}, {loss / median:.0f} times its median of {median:.4g},")
        self.state.recent = [*recent[1 - MEDIAN_OF :], loss]

    def _fail(self, reason: str, terms: str = "") -> None:
        if self.step == 0:
            raise TrainingError(
                f"{reason} at step 0{terms}, before anything was learned, so optim.lr isn't the cause: see the "
                "teachers' embeddings, the weights that the student starts from, and the settings of [loss]"
            )
        # A checkpoint of this step would fail again, so remove it.
        good = self.checkpoints.before(self.step)
        if rank() == 0:
            self.checkpoints.path(self.step).unlink(missing_ok=True)
        advice = (
            f"{good} is the last good checkpoint; run the same command with a lower optim.lr to resume from it"
            if good
            else "there is no good checkpoint yet; start again with a lower optim.lr"
        )
        raise TrainingError(f"{reason} at step {self.step}{terms}; {advice}")

    def _validate(self) -> float | None:
        """Validate the student if due; returns the score on the first process, None elsewhere."""
        plan = self.recipe.validate
        if plan is None or self.validate is None or (self.step % plan.every and self.step != self.steps):
            return None
        student = self.student()
        if rank():
            return None
        score = self.validate(student, self.step, self.state.best)
        self.state.best = max(self.state.best, score)
        return round(score, 4)

    def save(self) -> None:
        """Write a checkpoint atomically. All processes must call this; the first one writes."""
        state = {
            "recipe": json.dumps(to_table(self.recipe, defaults=True)),
            "data": self.feed.identity,
            "student": describe_student(self.model.config, self.merges, self.recipe.about),
            "course": dict(vars(self.state)),
            "task": gather_state(self.task.state_dict()),
            "average": {"updates": self.ema.updates, "values": gather_state(self.ema.values)} if self.ema else {},
            "optimizer": gather_optimizer(self.optimizer, self.task),
            "scaler": self.scaler.state_dict(),
        }
        if rank() == 0:
            self.checkpoints.save(self.step, state)

    def resume(self, start: Path | None = None) -> str:
        """Load the newest checkpoint in `out` that can be read.

        A finished run can be made longer: with more epochs at its end, if that leaves the learning rate of each step
        that was taken as it was.

        Args:
            start: a checkpoint of a run, or the folder of another run, to load instead; see `RunCheckpoints.choose`.

        Returns:
            A sentence that says where the run resumes; "" if there are no checkpoints.

        Raises:
            TrainingError: the checkpoint was made with other settings or other data, or the run is finished and
                settings differ.
            CheckpointError: all checkpoints are damaged.
        """
        if (found := self.checkpoints.load(start)) is None:
            return ""
        path, state, damaged = found
        try:
            before: Recipe = build(Recipe, json.loads(state["recipe"]), str(path))
            step = int(state["course"]["step"])
        except (KeyError, ValueError, TypeError) as error:
            raise self._other_version(path, error) from error
        self._check_changes(path, before, step)
        if state.get("data") != self.feed.identity:
            raise TrainingError(f"{path}: made with other data; {self._advice(path)}")
        try:
            self._load(state)
        except (KeyError, ValueError, TypeError) as error:
            raise self._other_version(path, error) from error
        if not self._is_own(path):
            self.state.best = -1.0  # the best student so far is in the other run's folder
        text = f"resumed at step {self.step:,} of {self.steps:,} from {path}"
        if self.step == self.steps:
            text = f"the run in {self.out} is finished: {self.steps:,} steps"
        return text + "".join(f"; {newer.name} is damaged" for newer in damaged)

    def _is_own(self, path: Path) -> bool:
        return path.resolve().parent == self.checkpoints.folder.resolve()

    def _advice(self, path: Path) -> str:
        """What to do about a checkpoint that this run can't resume from."""
        if self._is_own(path):
            return "use another --out, or remove it to start again"
        return f"to train from its weights in another way, leave --resume out and set start = {str(path)!r}"

    def _other_version(self, path: Path, error: Exception) -> TrainingError:
        return TrainingError(f"{path}: made by another version of pocketclip ({error}); use another --out")

    def _check_changes(self, path: Path, before: Recipe, step: int) -> None:
        """Refuse changes of settings that a run can't resume with.

        Args:
            path: the checkpoint.
            before: the recipe that it was made with.
            step: its step.
        """
        changes = find_changes(before, self.recipe)
        fixed = [name for name in changes if not is_free(name) and not name.startswith("stages[")]
        epochs = [stage for stage in before.stages for _ in range(stage.epochs)]
        steps = [self.feed.steps(epoch, stage) for epoch, stage in enumerate(epochs)]
        begun = len([epoch for epoch in range(len(steps)) if sum(steps[:epoch]) < step])
        same = [dataclasses.replace(stage, epochs=1) for stage in epochs[:begun]] == [
            dataclasses.replace(stage, epochs=1) for stage in self.epoch_stages[:begun]
        ]
        if not same:
            fixed += [name for name in changes if name.startswith("stages[")]
        if fixed:
            raise TrainingError(f"{path}: made with other settings ({describe(changes, fixed)}); {self._advice(path)}")
        if list(rate_factors(epochs, steps, before.optim))[:step] != self.rate_factors[:step]:
            raise TrainingError(
                f"{path}: {describe(changes, [name for name in changes if name.startswith('stages[')])}, but the "
                f"{self.recipe.optim.schedule} schedule has already set the learning rates for the old length; start a "
                f"new run with start = {str(self.out)!r}, or use optim.schedule = 'constant' from the beginning"
            )
        if changes.keys() - AT_THE_END and step == self.steps == sum(steps):
            raise TrainingError(
                f"{self.out}: the run is finished, with other settings ({describe(changes, changes)}); use another "
                f"--out to train with these, or a new run with start = {str(self.out)!r} to continue from its student"
            )

    def _load(self, state: dict[str, Any]) -> None:
        load_state(self.task.state_dict(), state["task"])
        if self.ema:
            load_state(self.ema.values, state["average"]["values"])
            self.ema.updates = state["average"]["updates"]
        load_optimizer(self.optimizer, self.task, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.state = _RunState(**state["course"])


def _remedy(feed: Feed) -> str:
    """What to do about too little data."""
    if unreadable := feed.samples.unreadable:
        count = feed.samples.photo_count + unreadable
        return f"{unreadable:,} of {count:,} photos can't be read; check the data folder"
    return "lower optim.batch"


def _check_frozen(model: CLIP, recipe: Recipe) -> None:
    """Reject `frozen` names that match no weight, and stages that would freeze everything."""
    weights = [name for name, _ in model.named_parameters()]
    for stage in recipe.stages:
        if wrong := [part for part in stage.frozen if not any(name.startswith(part) for name in weights)]:
            raise ConfigError(f"stages: frozen: no weight's name begins with {wrong[0]!r}")
        if stage.frozen and all(name.startswith(stage.frozen) for name in weights):
            raise ConfigError("stages: frozen: nothing would be left to learn")

"""A trial of a recipe: a few real steps of each stage on a few real photos, and what the whole run would take."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from distill.config import Recipe, Stage
from distill.data.corpus import Corpus
from distill.data.epoch import epoch_size
from distill.data.remote import DOWNLOADS, is_remote, local_path, local_tars, remote_tars
from distill.feeds.steps import rows_per_step
from distill.progress import ReportProgress
from distill.render.dataset import render_missing
from distill.training.run import prepare
from distill.training.trainer import Trainer
from mobileclip.files import PathLike

STEPS = 3
"""Steps of each stage. The first one, which also starts the workers, isn't timed."""


@dataclass(frozen=True)
class StageTrial:
    """A stage of a trial.

    Attributes:
        stage: its settings.
        steps: steps that it has in the whole run.
        seconds: duration of a step.
        samples_per_second: photos per second, or texts in a stage without photos.
    """

    stage: Stage
    steps: int
    seconds: float
    samples_per_second: float


@dataclass(frozen=True)
class Trial:
    """What a trial has measured.

    Attributes:
        stages: each stage of the recipe.
        preparation: estimated seconds to compute the teachers' embeddings, or the trunk's features, of all photos and
            texts; too high if loading the teachers took long.
        memory: the most bytes that this process used, on the GPU if it trains on one.
        device: where it trained.
    """

    stages: tuple[StageTrial, ...]
    preparation: float
    memory: int
    device: str

    @property
    def seconds(self) -> float:
        """Estimated seconds of all steps."""
        return sum(trial.steps * trial.seconds for trial in self.stages)

    def lines(self) -> Iterator[str]:
        """Yield lines about each stage and the whole run."""
        for number, trial in enumerate(self.stages, 1):
            stage = trial.stage
            what = "texts only" if stage.texts_only else "features" if stage.features else f"{stage.px} px"
            unit = "texts" if stage.texts_only else "photos"
            yield (
                f"stage {number}, {what}: {trial.steps:,} steps of {trial.seconds:.2g} s, "
                f"{trial.samples_per_second:,.0f} {unit}/s"
            )
        if self.preparation:
            yield f"preparation, once: up to {_shown(self.preparation)}"
        yield f"training: about {_shown(self.seconds)}, without validation"
        yield f"peak memory of a process: {self.memory / 2**30:.1f} GiB ({self.device})"


def try_recipe(
    recipe: Recipe,
    base: PathLike,
    data: PathLike,
    report: ReportProgress,
    workers: int = 1,
    device: torch.device | None = None,
) -> Trial:
    """Train a few steps of each stage as `prepare` and `Trainer` do, in a temporary folder, which is removed.

    Teachers embed only the photos and texts of these steps. Of tars on another machine, only the first one is copied.

    Args:
        recipe: all settings.
        base: the folder that paths of merges and weights are relative to, usually the recipe's.
        data: the folder that the recipe's data files are relative to.
        report: called with the progress of each long step.
        workers: number of processes that decode photos.
        device: where to train; by default, what the recipe says.

    Raises:
        PocketclipError: whatever would end the run before or in these steps.
    """
    data, optim = Path(data), recipe.optim
    recipe = dataclasses.replace(recipe, validate=None, save_every=sys.maxsize)
    with TemporaryDirectory() as scratch:
        if recipe.render is not None and not (data / recipe.render.folder).exists():
            data = _rendered(recipe, data, Path(scratch) / "data", report)
        recipe, tars = _with_local_tars(recipe, data, Path(scratch))
        watch = _Stopwatch(report)
        few = whole = None if recipe.reinforced else Corpus.read(recipe, data)
        if whole is not None:
            few = whole.few(STEPS * optim.batch, STEPS * (optim.batch + optim.extra_texts))
        trainer = prepare(recipe, base, data, Path(scratch) / "run", watch, workers, device, corpus=few).trainer
        preparation = 0.0
        if whole is not None and few is not None:
            photos = sum(count * tars[number] for number, count in enumerate(_sizes(whole)))
            texts = len(whole.texts) * photos / len(whole.samples) if whole.samples else len(whole.texts)
            preparation = watch.estimate(photos / max(1, len(few.samples)), texts / len(few.texts))
        stages, epoch = [], 0
        for stage in recipe.stages:
            seconds, rate = _time(trainer, epoch)
            if whole is None:
                steps = trainer.epoch_steps[epoch]
            else:
                shown = [(share, [round(n * tars[i]) for n in sizes]) for i, (share, sizes) in enumerate(whole.sources)]
                steps = round(texts if stage.texts_only else epoch_size(shown)) // rows_per_step(optim, stage)
            stages.append(StageTrial(stage, steps * stage.epochs, seconds, rate))
            epoch += stage.epochs
    return Trial(tuple(stages), preparation, _peak_memory(trainer.device), str(trainer.device))


def _sizes(corpus: Corpus) -> list[int]:
    """Return the number of photos of each source."""
    return [sum(sizes) for _, sizes in corpus.sources]


def _rendered(recipe: Recipe, data: Path, folder: Path, report: ReportProgress) -> Path:
    """Return a data folder with everything that is in `data`, and the pictures that the recipe renders."""
    folder.mkdir()
    for entry in data.iterdir():
        (folder / entry.name).symlink_to(entry.resolve())
    assert recipe.render is not None
    render_missing(recipe.render, folder, recipe.seed, report)
    return folder


def _with_local_tars(recipe: Recipe, data: Path, scratch: Path) -> tuple[Recipe, list[float]]:
    """Replace the sources on other machines by one of their tars; returns how often each source has what is left."""
    sources, factors = [], []
    for source in recipe.photos:
        factor = 1
        if source.kind == "webdataset" and is_remote(source.file):
            urls = remote_tars(source.file)
            copies = (copy for url in urls if (copy := local_path(url, data / DOWNLOADS)).exists())
            tar = next(copies, None) or local_tars(urls[0], scratch / DOWNLOADS)[0]
            source, factor = dataclasses.replace(source, file=str(tar.resolve())), len(urls)
        sources.append(source)
        factors.append(float(factor))
    return dataclasses.replace(recipe, photos=tuple(sources)), factors


def _time(trainer: Trainer, epoch: int) -> tuple[float, float]:
    """Take the first steps of an epoch; return seconds per step, and samples per second."""
    trainer.state.step = sum(trainer.epoch_steps[:epoch])
    run, times, rates = trainer.run(), [], []
    for _ in range(min(STEPS, trainer.epoch_steps[epoch])):
        start = time.perf_counter()
        rates.append(next(run).photos_per_second)
        times.append(time.perf_counter() - start)
    run.close()
    timed = slice(1 if len(times) > 1 else 0, None)
    return sum(times[timed]) / len(times[timed]), sum(rates[timed]) / len(rates[timed])


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _Stopwatch:
    """Passes progress on, and measures how long the parts of a preparation take that grow with the data."""

    GROWING = ("teacher photos", "teacher texts", "features", "heads")

    def __init__(self, report: ReportProgress) -> None:
        self.report, self.last = report, time.perf_counter()
        self.passes: list[tuple[str, int, list[tuple[int, float]]]] = []
        """Each pass over photos or texts: its name, its items, and after how many of them how much time was taken."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        now = time.perf_counter()
        if what in self.GROWING:
            if not self.passes or self.passes[-1][0] != what or done <= self.passes[-1][2][-1][0]:
                self.passes.append((what, total, []))
            self.passes[-1][2].append((done, now - self.last))
        self.last = now
        self.report(what, done, total, note)

    def estimate(self, photos: float, texts: float) -> float:
        """Return the seconds of all passes over so many times the photos and texts.

        The time until the first report includes loading a model, so it counts only if there is no other.
        """
        seconds = 0.0
        for what, total, marks in self.passes:
            first = marks[0][0] if len(marks) > 1 else 0
            taken = sum(time for _, time in (marks[1:] or marks))
            seconds += taken / (marks[-1][0] - first) * total * (texts if what.endswith("texts") else photos)
        return seconds


def _shown(seconds: float) -> str:
    return str(timedelta(seconds=max(1, round(seconds))))

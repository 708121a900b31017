"""The command `pocketclip train`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from distill.recipe.cli import recipe_file
from mobileclip.extras import MissingExtraError

if TYPE_CHECKING:  # `pocketclip train --help` needs no torch
    from distill.config import Recipe
    from distill.progress import Bars
    from distill.training.trainer import Trainer


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a recipe that ships (see `pocketclip recipe list`), or a .toml file.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder that the recipe's data files are relative to.",
        ),
    ] = Path(),
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Folder of this run: checkpoints, metrics, plot, student. Default: runs/NAME.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Take a few real steps of each stage, print time and memory of the whole run, and write nothing.",
        ),
    ] = False,
    resume: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT",
            help="auto: the last checkpoint in the run's folder, if there is one. never: refuse a folder with "
            "checkpoints. Otherwise, the path of a checkpoint, or of a run's folder for its last one.",
        ),
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting, such as optim.lr=3e-4. Repeatable.",
        ),
    ] = None,
    wandb: Annotated[
        str,
        typer.Option(
            metavar="PROJECT",
            help="Also log to this project of Weights & Biases. Needs the extra wandb.",
            show_default=False,
        ),
    ] = "",
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads; 0 uses all.", min=0)] = 0,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that decode photos.", min=0)] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Don't show progress.")] = False,
) -> None:
    """Train a student to match its teachers.

    First, everything that the recipe names is opened, as `pocketclip recipe check` does; photos that are missing are
    listed in missing-photos.txt in the run's folder. The teacher embeddings are computed once and kept there too. Stop
    with Ctrl-C at any time; the same command resumes from the last checkpoint. Under torchrun, all processes train one
    student.

    With a path for --resume, the optimizer, the step and the schedule continue too. It can be an earlier checkpoint of
    this run, whose later ones are then replaced, or one of another run, until this run has a checkpoint. To use only
    the weights, set start=PATH.

    [bold]Examples[/bold]

    \b
    pocketclip train quickstart
    pocketclip train pocket --data ~/data --dry-run
    pocketclip train my.toml --data ~/data --set optim.batch=64 --set optim.precision=fp32
    pocketclip train my.toml --data ~/data --resume runs/mine/checkpoints/step-00001000.pt
    torchrun --nproc-per-node 4 --no-python pocketclip train my.toml --data ~/data
    """
    file = recipe_file(recipe)
    try:
        import torch

        from distill.config import Recipe
        from distill.config.command_line import parse_settings
        from distill.distributed import first_process_first, joined_processes, rank
        from distill.render.dataset import render_missing
        from distill.training.allocator import keep_freed_memory
        from distill.training.run import prepare
        from distill.training.summary import summarize
        from distill.training.trial import try_recipe
        from distill.wandb_log import WandbLog
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train", error.name) from error
    from distill.progress import Bars

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    plan = Recipe.load(file, parse_settings(settings or []))
    folder = out or Path("runs") / plan.name
    with joined_processes(plan.optim.device, plan.optim.timeout) as device, Bars(quiet=quiet or rank() > 0) as progress:
        _check(plan, file.parent, data, None if dry_run else folder, progress)
        if dry_run:
            for line in try_recipe(plan, file.parent, data, progress.report, workers, device).lines():
                if rank() == 0:
                    print(line)
            return
        if plan.render is not None:
            with first_process_first():
                render_missing(plan.render, data, plan.seed, progress.report)
        logs = [WandbLog(wandb, folder, plan)] if wandb and rank() == 0 else []
        run = prepare(plan, file.parent, data, folder, progress.report, workers, device, resume, logs)
        if run.resumed and not quiet and rank() == 0:
            progress.say(run.resumed)
        with _stop_on_signal(run.trainer) as signals:
            for step in run.trainer.run():
                progress.step(step)
        if run.trainer.stopped:
            progress.say(f"stopped after step {run.trainer.step}; run the same command to resume")
            if signals == [signal.SIGTERM]:
                raise typer.Exit(128 + signal.SIGTERM)
            raise KeyboardInterrupt
        student = run.finish()
        if rank() == 0:
            for line in () if quiet else summarize(plan, folder, data):
                progress.say(line)
            print(student)


def _check(plan: Recipe, base: Path, data: Path, out: Path | None, progress: Bars) -> None:
    """Open everything that a recipe names, in the first process; all processes stop together if anything is wrong.

    Missing photos are listed in a file in the run's folder, unless `out` is None.

    Raises:
        typer.Exit: something is wrong; each problem was printed on a line.
    """
    from distill.distributed import from_first_process, rank
    from distill.files import write_whole
    from distill.recipe.check import Findings, check_recipe

    findings = check_recipe(plan, base, data) if rank() == 0 else Findings()
    for problem in findings.problems:
        print(f"pocketclip: {problem}", file=sys.stderr)
    if from_first_process(bool(findings.problems)):
        raise typer.Exit(4)
    for source, reasons in findings.skipped.items():
        progress.say(f"{source}: skipped {', '.join(reasons)}")
    if findings.missing:
        if out:
            listed = out / "missing-photos.txt"
            text = "".join(f"{path}\n" for photos in findings.missing.values() for path in photos)
            write_whole(listed, lambda stream: stream.write(text.encode("utf-8", "surrogateescape")))
        counts = ", ".join(f"{len(photos):,} in {source}" for source, photos in findings.missing.items())
        progress.say(f"photos are missing and left out: {counts}" + (f"; {listed} lists them" if out else ""))


@contextmanager
def _stop_on_signal(trainer: Trainer) -> Iterator[list[int]]:
    """End the run after the current step on Ctrl-C or SIGTERM; a second Ctrl-C raises at once."""
    caught: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if signal.SIGINT in caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)
        trainer.stopping = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

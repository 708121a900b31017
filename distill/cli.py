"""`pocketclip train`."""

from __future__ import annotations

import signal
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from mobileclip.errors import PocketclipError


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a .toml file.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's data files are relative to.")] = Path(),
    out: Annotated[
        Path | None, typer.Option(help="Folder of this run: checkpoint, metrics, plot, student. [runs/NAME]")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, e.g. optim.lr=3e-4. Repeatable.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 is all.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes that decode photos.", min=0)] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Distil a student from a teacher.

    The teacher's vectors are computed once and kept in the run's folder. Stop with Ctrl-C at any time; the same
    command goes on from the last checkpoint.

    [bold]Examples[/bold]

    \b
    pocketclip train distill/recipes/pocket/recipe.toml --data ~/data
    pocketclip train my.toml --data ~/data --set optim.batch=64 --set optim.precision=fp32
    """
    try:
        import torch

        from distill.allocator import keep_freed_memory
        from distill.config import Recipe
        from distill.train import prepare
    except ModuleNotFoundError as error:
        raise PocketclipError(f"training needs {error.name}: pip install 'pocketclip[train]'") from error
    from distill.progress import Bars

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    plan = Recipe.load(recipe, dict(parse_setting(text) for text in settings or []))
    folder = out or Path("runs") / plan.name
    with Bars(quiet=quiet) as progress:
        run = prepare(plan, recipe.parent, data, folder, progress.report, workers)
        with _interrupts() as interrupted:
            for step in run.trainer.run():
                progress.step(step)
                if interrupted:
                    run.trainer.save()
                    progress.say(f"stopped after step {step.step}; the same command goes on from here")
                    raise KeyboardInterrupt
    print(run.finish())


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C instead of raising it in the middle of a step; the second one raises at once."""
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)


def parse_setting(text: str) -> tuple[str, Any]:
    """Read `name=value`, the value as TOML, or as a plain string where it is not TOML.

    Raises:
        typer.BadParameter: there is no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"--set {text}: write name=value")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value

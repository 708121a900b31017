"""`pocketclip reinforce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileclip.errors import PocketclipError


def reinforce(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe with photos and teachers, a .toml file.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the shards.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's data files are relative to.")] = Path(),
    augmentations: Annotated[
        int | None, typer.Option(help="Views of each photo. [reinforcement.augmentations, 10]", min=1)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting, e.g. reinforcement.dtype=int8. Repeatable.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 is all.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Processes that decode photos.", min=0)] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Store what teachers say of each photo under several augmentations, once for many students.

    Start the same command as often as you like, on one machine or on many that share the folder: they divide the
    work. Stop it with Ctrl-C; the same command goes on, and what is done stays. Train on the folder with
    [bold]kind = "reinforced"[/bold].

    [bold]Examples[/bold]

    \b
    pocketclip reinforce my.toml --data ~/data --out ~/data/reinforced
    pocketclip reinforce my.toml --data ~/data --out ~/data/reinforced --augmentations 5 --set reinforcement.dtype=int8
    """
    try:
        import torch

        from distill.config import Recipe
        from distill.config.command_line import parse_settings
        from distill.reinforce.run import Reinforcer, assemble_teachers
    except ModuleNotFoundError as error:
        raise PocketclipError(f"reinforcement needs {error.name}: pip install 'pocketclip[train]'") from error
    from distill.progress import Bars

    if threads:
        torch.set_num_threads(threads)
    changes = parse_settings(settings or [])
    if augmentations:
        changes["reinforcement.augmentations"] = augmentations
    plan = Recipe.load(recipe, changes)
    with Bars(quiet=quiet) as progress:
        teachers = assemble_teachers(plan, recipe.parent, data, out / "teachers", progress.report)
        missing = Reinforcer(plan, data, out, teachers, workers).run(progress.report)
        if missing:
            progress.say(f"{missing} shards are in the hands of other processes; should one die, run this again")
    print(out)

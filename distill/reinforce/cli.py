"""`pocketclip reinforce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobileclip.extras import MissingExtraError


def reinforce(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            exists=True,
            dir_okay=False,
            help="A .toml recipe with photos and teachers.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the shards.", show_default=False)],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that the recipe's data files are relative to.")
    ] = Path(),
    augmentations: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Augmented views per photo. Default: the recipe's, or 10.",
            min=1,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting, such as reinforcement.dtype=int8. Repeatable."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="CPU threads; 0 uses all.", min=0)] = 0,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that decode photos.", min=0)] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Don't show progress.")] = False,
) -> None:
    """Precompute teacher embeddings of augmented photos, once for many students.

    Run the same command any number of times, on one machine or on several that share the folder: they divide the work.
    Stop it with Ctrl-C; the same command resumes it. Train on the folder with [bold]kind = "reinforced"[/bold].

    [bold]Examples[/bold]

    \b
    pocketclip reinforce my.toml --data ~/data --out ~/data/reinforced
    pocketclip reinforce my.toml --data ~/data --out ~/data/reinforced --augmentations 5 --set reinforcement.dtype=int8
    """
    try:
        import torch

        from distill.config import Recipe
        from distill.config.command_line import parse_settings
        from distill.data.remote import copy_remote
        from distill.reinforce.run import Reinforcer, assemble_teachers
    except ModuleNotFoundError as error:
        raise MissingExtraError("reinforcement", "train", error.name) from error
    from distill.progress import Bars

    if threads:
        torch.set_num_threads(threads)
    changes = parse_settings(settings or [])
    if augmentations:
        changes["reinforcement.augmentations"] = augmentations
    plan = Recipe.load(recipe, changes)
    with Bars(quiet=quiet) as progress:
        copy_remote(plan.photos, data, progress.report)
        teachers = assemble_teachers(plan, recipe.parent, data, out / "teachers", progress.report)
        missing = Reinforcer(plan, data, out, teachers, workers).run(progress.report)
        if missing:
            progress.say(f"{missing} shards are being written by other processes; if one of them dies, run this again")
    print(out)

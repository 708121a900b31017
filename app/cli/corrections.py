"""`pocketclip corrections`: list accepted and rejected labels, and export them for training."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import output
from app.cli.common import NOTHING, AsJson, Quiet, open_store

corrections = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@corrections.callback()
def _corrections() -> None:
    """List and export the labels that you accepted or rejected.

    [bold]Example[/bold]

    \b
    pocketclip corrections list
    """


@corrections.command("list")
def list_(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List every label that you accepted or rejected, by photo.

    [bold]Example[/bold]

    \b
    pocketclip corrections list --json
    """
    from app.library.store.corrections import list_corrections

    with open_store() as store:
        found = list(list_corrections(store))
    if as_json:
        output.show_json(
            [
                {
                    "paths": list(correction.paths),
                    "hash": correction.key,
                    "label": correction.label,
                    "verdict": "accepted" if correction.verdict else "rejected",
                    "decided_at": correction.decided_at,
                }
                for correction in found
            ]
        )
    else:
        for correction in found:
            where = output.printable(correction.paths[0]) if correction.paths else f"(away: {correction.key[:12]})"
            print(f"{where}\t{'accepted' if correction.verdict else 'rejected'}\t{output.printable(correction.label)}")
    if not found:
        output.say("pocketclip: nothing has been corrected yet; correct labels in `pocketclip gallery`", quiet=quiet)
        raise typer.Exit(NOTHING)


@corrections.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="Table to write: .jsonl, .csv or .tsv.")],
    quiet: Quiet = False,
) -> None:
    """Write accepted labels as training pairs that `pocketclip train` reads.

    One row for each photo: file, label (several joined by |), rejected.

    Name the table in a recipe as [[photos]] with kind = "labels".

    [bold]Example[/bold]

    \b
    pocketclip corrections export ~/data/mine/corrections.jsonl
    """
    from app.library.labels import training_pairs as pairs
    from app.library.store.corrections import list_corrections
    from app.library.store.custom_labels import list_custom_labels

    if out.suffix not in pairs.SUFFIXES:
        raise typer.BadParameter(f"the name must end in {', '.join(pairs.SUFFIXES)}")
    with open_store() as store:
        # A label such as "granny" means nothing to a model, so its first phrase is written instead.
        names = {label.name: label.phrases[0] for label in list_custom_labels(store)}
        done = pairs.export(list_corrections(store), names, out)
    parts = [f"{done.written} photos written"]
    parts += [f"{done.only_rejected} left out because they have only rejected labels"] if done.only_rejected else []
    parts += [f"{done.away} left out because they are not in the index now"] if done.away else []
    parts += [f"{done.unnamed} left out because their names are not text (write a .jsonl)"] if done.unnamed else []
    output.say(f"{out}: {', '.join(parts)}", quiet=quiet)
    if not done.written:
        raise typer.Exit(NOTHING)

"""Average two students that started from the same weights (model soup).

    python -m distill.training.soup runs/a/student runs/b/student runs/soup

The average of runs that differ in one setting is often better than each of them (Wortsman et al. 2022).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.training.initialize import interpolate
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.files import PathLike


def average_checkpoints(first: PathLike, second: PathLike, out: PathLike, share: float = 0.5) -> None:
    """Write the average of two checkpoints, with the name, license and tokenizer of the first.

    Args:
        first: folder of a student.
        second: folder of another student with the same shape and tokenizer.
        out: folder to write.
        share: weight of the second student, 0 to 1.

    Raises:
        PocketclipError: a checkpoint can't be read, or they don't match.
    """
    a, b = load_checkpoint(Path(first)), load_checkpoint(Path(second))
    if a.merges != b.merges:
        raise ConfigError(f"{second}: its tokenizer differs from that of {first}")
    save_checkpoint(interpolate(a.model, b.model, share), a.merges, Path(out), a.about)


def main(
    first: Annotated[Path, typer.Argument(help="Folder of a student.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Folder of another student of the same shape.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the average.", show_default=False)],
    share: Annotated[float, typer.Option(help="Weight of the second student.", min=0, max=1)] = 0.5,
) -> None:
    """Average two students that started from the same weights."""
    try:
        average_checkpoints(first, second, out, share)
    except PocketclipError as error:
        typer.echo(f"soup: {error}", err=True)
        raise typer.Exit(2) from None
    print(out)


if __name__ == "__main__":
    typer.run(main)

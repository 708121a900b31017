"""Two students of one beginning, mixed weight by weight.

    python -m distill.training.soup runs/a/student runs/b/student runs/mixed

Averages of runs that began at the same weights and differ in a setting are often better than each of them (model soups,
Wortsman et al. 2022).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.training.initialize import interpolate
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.errors import ConfigError, PocketclipError


def mix(first: Path, second: Path, out: Path, share: float = 0.5) -> None:
    """Write the mixture of two checkpoints; name, licence and tokenizer are the first one's.

    Args:
        first: folder of a student.
        second: folder of another of the same shape and tokenizer.
        out: folder to write.
        share: of the second, 0 to 1.

    Raises:
        PocketclipError: a checkpoint cannot be read, or they do not fit each other.
    """
    one, other = load_checkpoint(first), load_checkpoint(second)
    if one.merges != other.merges:
        raise ConfigError(f"{second}: has another tokenizer than {first}")
    save_checkpoint(interpolate(one.model, other.model, share), one.merges, out, one.about)


def main(
    first: Annotated[Path, typer.Argument(help="Folder of a student.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Folder of another of the same shape.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder of the mixture.", show_default=False)],
    share: Annotated[float, typer.Option(help="Of the second.", min=0, max=1)] = 0.5,
) -> None:
    """Mix two students of one beginning."""
    try:
        mix(first, second, out, share)
    except PocketclipError as error:
        typer.echo(f"mix: {error}", err=True)
        raise typer.Exit(2) from None
    print(out)


if __name__ == "__main__":
    typer.run(main)

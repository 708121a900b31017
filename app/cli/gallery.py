"""`pocketclip gallery`: open the window."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import ModelName, Threads, absolute, load_model
from mobileclip.home import user_folders

if TYPE_CHECKING:
    from mobileclip.model import Model


def gallery(
    folders: Annotated[
        list[str] | None,
        typer.Argument(metavar="DIR", help="Folders of photos to add to those already indexed."),
    ] = None,
    model: ModelName = "pocket",
    threads: Threads = None,
) -> None:
    """Open a window to browse, search, label and correct photos.

    Photos are only read, never changed. New ones are indexed in the background.

    Needs Kivy: pip install 'pocketclip[ui]'

    [bold]Examples[/bold]

    \b
    pocketclip gallery ~/Pictures
    pocketclip gallery
    """
    from app.library.index.run import check_apart
    from app.ui.launch import run

    paths = absolute(folders)
    for folder in paths:
        if not Path(folder).is_dir():
            raise typer.BadParameter(f"{folder}: no such folder")
    check_apart(user_folders().index, paths)

    def load() -> "Model":
        return load_model(model, threads)

    run(user_folders(), load, paths)

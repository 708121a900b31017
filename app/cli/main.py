"""The `pocketclip` command.

stdout is data, stderr is talk. Exit codes: 0 done, 1 nothing found, nothing indexed or no network to pull a model,
2 wrong usage, 3 some files failed, 4 trouble with the index or a model, 130 interrupted, 141 the reader of a pipe
went away.
"""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from app.cli import output as cli_output
from app.cli import plugins as cli_plugins
from app.cli.common import guarded
from app.cli.corrections import corrections
from app.cli.gallery import gallery
from app.cli.index import index
from app.cli.labels import labels
from app.cli.search import search
from app.cli.status import status
from app.cli.tag import tag

_EPILOG = (
    "Exit codes: 0 done · 1 nothing found, or no network to pull a model · 2 wrong usage · 3 some files failed"
    " · 4 trouble with the index or a model · 130 interrupted. POCKETCLIP_HOME moves index, models, cache and"
    " configuration together."
)

app = typer.Typer(
    name="pocketclip",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"pocketclip {version('pocketclip')}")
    except PackageNotFoundError:
        print("pocketclip, not installed")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop."),
    ] = False,
) -> None:
    """Label your photos and search them by text, on this computer, with no network at all.

    [bold]Examples[/bold]

    \b
    pocketclip index ~/Pictures
    pocketclip search "two dogs on a beach" -t 20
    pocketclip tag ~/Pictures/2024 --json
    """


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Gallery": (index, search, tag, gallery),
    "About": (labels, status),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(guarded(_command))
app.add_typer(cli_plugins.wrapped(corrections, guarded), name="corrections", rich_help_panel="Gallery")


def main() -> None:
    """Run the command line of this process and exit."""
    cli_output.prepare()
    cli_plugins.attach(app, sys.argv[1:], guarded)
    app()

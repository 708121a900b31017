"""The `pocketclip` command.

Data goes to stdout, messages to stderr. Exit codes are listed in `app.cli.common`.
"""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from app.cli import output
from app.cli.common import guarded, report_os_error
from app.cli.corrections import corrections
from app.cli.gallery import gallery
from app.cli.index import index
from app.cli.labels import labels
from app.cli.models import models
from app.cli.plugins import PluginGroup, styled
from app.cli.search import search
from app.cli.status import status
from app.cli.style import Command
from app.cli.tag import tag

_EPILOG = (
    "Exit codes: 0 done · 1 nothing found, or no network to pull a model · 2 wrong usage, or a missing file · 3 some"
    " files failed · 4 trouble with the index, a model or the disk · 130 interrupted · 141 the pipe was closed."
    " POCKETCLIP_HOME moves the index, models, cache and settings together."
)


class _Commands(PluginGroup):
    """`distill` and `export` add their commands."""

    entry_panel = "Workstation"


app = typer.Typer(
    name="pocketclip",
    cls=_Commands,
    no_args_is_help=True,
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
@guarded
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Label your photos and search them by text, on this computer, without a network.

    [bold]Examples[/bold]

    \b
    pocketclip index ~/Pictures
    pocketclip search "two dogs on a beach"
    pocketclip tag ~/Pictures/2024 --json
    """


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Gallery": (index, search, tag, gallery),
    "About": (labels, status),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(cls=Command, rich_help_panel=_panel)(guarded(_command))
app.add_typer(styled(corrections), name="corrections", rich_help_panel="Gallery")
app.add_typer(styled(models), name="models", rich_help_panel="About")


def main() -> None:
    """Run the command line of this process and exit."""
    output.prepare()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # help and version are printed outside a command
    except OSError as error:
        sys.exit(report_os_error(error))

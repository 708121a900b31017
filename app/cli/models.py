"""`pocketclip models`: list and show the installed models."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import output
from app.cli.common import NOTHING, AsJson, Quiet
from app.cli.plugins import MODELS, PluginGroup

if TYPE_CHECKING:
    from mobileclip.bundle import Bundle


class _Models(PluginGroup):
    """`pull` and `available` join from the export package."""

    entry_group = MODELS


models = typer.Typer(cls=_Models, rich_markup_mode="rich")


@models.callback(invoke_without_command=True)
def _models(context: typer.Context, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the installed models, show one, or pull more.

    [bold]Examples[/bold]

    \b
    pocketclip models
    pocketclip models show pocket
    pocketclip models pull clip-vit-b-32
    """
    if context.invoked_subcommand is None:
        _list(as_json, quiet)


@models.command("list")
def list_models(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the installed models with their size, license and engines.

    [bold]Example[/bold]

    \b
    pocketclip models list --json
    """
    _list(as_json, quiet)


@models.command()
def show(
    model: Annotated[str, typer.Argument(metavar="NAME", help="Name of a model, or the path of its folder or .zip.")],
    as_json: AsJson = False,
) -> None:
    """Show one model: license, origin, engines and measured accuracy.

    [bold]Example[/bold]

    \b
    pocketclip models show pocket --json
    """
    from mobileclip.bundle import Bundle, find_bundle

    facts = _facts(Bundle(find_bundle(model)))
    if as_json:
        output.show_json(facts)
        return
    _print_model(facts)
    print(f"\t{facts['path']}")
    for name, value in facts["figures"].items():
        numbers = value.items() if isinstance(value, dict) else [("", value)]
        shown = [f"{key} {number}".strip() for key, number in numbers if not isinstance(number, dict)]
        print(f"\t{name}: {', '.join(shown)}")


def _list(as_json: bool, quiet: bool) -> None:
    from mobileclip.bundle import Bundle, named_bundles
    from mobileclip.errors import BundleError

    installed = []
    for folder in named_bundles().values():
        try:
            installed.append(_facts(Bundle(folder)))
        except BundleError as error:
            output.say(f"pocketclip: {error}")
    if as_json:
        output.show_json({"installed": installed})
    for facts in () if as_json else installed:
        _print_model(facts)
    if not installed:
        output.say("pocketclip: no models are installed", quiet=quiet)
        raise typer.Exit(NOTHING)


def _print_model(facts: dict[str, Any]) -> None:
    engines = ", ".join(f"{engine} {precision}".strip() for engine, precision in facts["engines"].items())
    print(f"{facts['name']} {facts['version']}\t{output.size(facts['bytes'])}, {engines}")
    print(f"\t{facts['dim']} dimensions, {facts['labels']} labels")
    print(f"\t{'RESEARCH ONLY: ' if facts['research_only'] else ''}{facts['licence']}")
    print(f"\t{facts['provenance']}")


def _facts(bundle: "Bundle") -> dict[str, Any]:
    from mobileclip.zeroshot import LabelSet

    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "path": str(bundle.path),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "licence": manifest.license,
        "research_only": manifest.research_only,
        "provenance": manifest.provenance,
        "dim": manifest.embed_dim,
        "labels": len(LabelSet.loads(bundle.read(manifest.labels).decode())),
        "engines": {engine: towers.precision for engine, towers in manifest.towers.items()},
        "figures": manifest.figures,
    }

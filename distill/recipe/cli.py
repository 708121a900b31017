"""The command `pocketclip recipe`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import fill, indent
from typing import TYPE_CHECKING, Annotated

import typer

from distill.recipe.shipped import find_recipe, header, shipped_recipes
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.extras import MissingExtraError

if TYPE_CHECKING:  # `pocketclip recipe --help` needs no torch
    from distill.config import Recipe
    from distill.recipe.describe import SettingDoc

recipe = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RecipeName = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="Name of a recipe that ships, or a .toml file.", show_default=False),
]


@recipe.callback()
def _recipe() -> None:
    """List, explain, check and write training recipes.

    [bold]Examples[/bold]

    \b
    pocketclip recipe list
    pocketclip recipe show pocket optim
    pocketclip recipe new ~/photos/captions.csv --out my.toml
    pocketclip recipe check my.toml --data ~/photos
    """


@recipe.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes that ship: what each makes, what that costs, and the expected result.

    [bold]Example[/bold]

    \b
    pocketclip recipe list
    """
    shipped = shipped_recipes()
    if as_json:
        print(json.dumps({name: {"path": str(path), "about": header(path)} for name, path in shipped.items()}))
        return
    print("\n\n".join(f"{name}\n{_indented(header(path))}" for name, path in shipped.items()))


@recipe.command()
def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Show the values of this recipe. Default: show the defaults.",
            show_default=False,
        ),
    ] = None,
    setting: Annotated[
        str,
        typer.Argument(metavar="SETTING", help="Only settings that begin so, such as optim.", show_default=False),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show every setting with its type, its default and what it does.

    With a recipe, the values that it sets are next to the names.

    [bold]Examples[/bold]

    \b
    pocketclip recipe show
    pocketclip recipe show pocket
    pocketclip recipe show pocket optim.lr
    """
    try:
        from distill.config import Recipe
        from distill.recipe.describe import all_settings
        from distill.report.settings import settings
    except ModuleNotFoundError as error:
        raise MissingExtraError("recipe show", "train", error.name) from error
    chosen: dict[str, list[str]] = {}
    if name is not None:
        for found in settings(Recipe.load(recipe_file(name))):
            if found.chosen:
                chosen.setdefault(_without_numbers(found.name), []).append(found.value)
    docs = [doc for doc in all_settings() if doc.name.startswith(setting)]
    if not docs:
        raise PocketclipError(f"no setting begins with {setting!r}; `pocketclip recipe show` lists them all")
    if as_json:
        rows = [{**vars(doc), "values": chosen.get(doc.name, [])} for doc in docs]
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for doc in docs:
        _print_setting(doc, chosen.get(doc.name, []))


@recipe.command()
def check(
    name: RecipeName,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that the recipe's data files are relative to.")
    ] = Path(),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as optim.lr=3e-4. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a recipe and everything that it names: settings, packages, weights, tables and photos.

    Nothing is trained and nothing is written. Exit code 4: something is wrong.

    [bold]Examples[/bold]

    \b
    pocketclip recipe check pocket --data ~/data
    pocketclip recipe check my.toml --data ~/data --set optim.batch=64
    """
    try:
        from distill.config import Recipe
        from distill.config.command_line import parse_settings
        from distill.recipe.check import check_recipe
    except ModuleNotFoundError as error:
        raise MissingExtraError("recipe check", "train", error.name) from error
    path = recipe_file(name)
    plan: Recipe = Recipe.load(path, parse_settings(overrides or []))
    findings = check_recipe(plan, path.parent, data)
    if as_json:
        print(json.dumps(vars(findings), ensure_ascii=False, indent=1))
    else:
        for part, text in findings.found.items():
            print(f"{part}\t{text}")
    for problem in findings.problems:
        print(f"pocketclip: {problem}", file=sys.stderr)
    if findings.problems:
        raise typer.Exit(4)


@recipe.command()
def new(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Captions or labels (.csv, .tsv, .jsonl, .parquet), captions of COCO (.json), a folder with one "
            "folder per class, a folder of WebDataset tars, or one that `datasets` saved.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The recipe to write. Default: the name of the source with .toml."),
    ] = None,
) -> None:
    """Write a short recipe for your own photos.

    Columns are found by their names and contents. Photos in a `datasets` folder are first written as files into a
    folder next to the recipe.

    [bold]Examples[/bold]

    \b
    pocketclip recipe new ~/photos/captions.csv
    pocketclip recipe new ~/flowers --out flowers.toml
    pocketclip recipe new corrections.jsonl --out mine.toml
    """
    try:
        from distill.recipe.new import commands, write_recipe
    except ModuleNotFoundError as error:
        raise MissingExtraError("recipe new", "train", error.name) from error
    file = out or Path(f"{source.resolve().stem or 'photos'}.toml")
    found = write_recipe(source, file)
    print(f"{file}: {found.count:,} photos, {found.about}. Next:\n")
    print("\n".join(commands(found, file)))


def recipe_file(name: str) -> Path:
    """Find a recipe that a command was given.

    Raises:
        typer.BadParameter: there is none.
    """
    try:
        return find_recipe(name)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def _print_setting(doc: SettingDoc, values: list[str]) -> None:
    value = f" = {' | '.join(values)}" if values else ""
    default = "required" if doc.default is None else f"default {doc.default}"
    print(f"{doc.name}{value}\n  {doc.type}, {default}")
    if doc.description:
        print(_indented(doc.description, 100))
    print()


def _without_numbers(name: str) -> str:
    """`photos[cats].file` as `photos[].file`."""
    parts = name.split("[")
    return "[]".join([parts[0], *(part.partition("]")[2] for part in parts[1:])])


def _indented(text: str, width: int = 0) -> str:
    """Indent a text by two spaces, broken at `width` columns if that isn't 0."""
    return indent(fill(text, width) if width else text, "  ")

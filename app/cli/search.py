"""`pocketclip search`: find photos by text or by an example."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import output
from app.cli.common import (
    NOTHING,
    AsJson,
    ModelName,
    Quiet,
    Threads,
    absolute,
    load_model,
    open_store,
)

if TYPE_CHECKING:
    from app.library.search.rank import Hit, Term

_WEIGHTED = re.compile(r"(\d+(?:\.\d+)?):(.*)", re.DOTALL)
_MORE_THAN_A_SHARE = 1e4


def search(
    query: Annotated[list[str], typer.Argument(metavar="QUERY", help="Words, or the path of a photo.")],
    top: Annotated[int, typer.Option("--top", "-t", min=1, metavar="N", help="How many photos to show.")] = 10,
    add: Annotated[
        list[str] | None, typer.Option("--add", "-a", metavar="QUERY", help="Also this; may be repeated.")
    ] = None,
    subtract: Annotated[
        list[str] | None,
        typer.Option("--subtract", "-s", metavar="QUERY", help="Less of this; may be repeated."),
    ] = None,
    below: Annotated[
        list[str] | None, typer.Option("--in", metavar="DIR", help="Only below this folder; may be repeated.")
    ] = None,
    paths_only: Annotated[bool, typer.Option("--filepath-only", "-f", help="Only paths, one per line.")] = False,
    print0: Annotated[bool, typer.Option("--print0", "-0", help="Only paths, each ended by NUL (xargs -0).")] = False,
    model: ModelName = "pocket",
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find photos by words, or by an example.

    Each part of the query may carry a weight, as in 2:cat.

    A strong result stands out of your photos on this very query, and its
    score is one at which the model's labels, if it has any, count as present.

    [bold]Examples[/bold]

    \b
    pocketclip search "children playing in snow"
    pocketclip search ./holiday.jpg --subtract people
    pocketclip search "2:red car" --add beach --in ~/Pictures/2024
    pocketclip search receipt -0 | xargs -0 ls -l
    """
    from app.library.search.rank import search as find

    terms = [_term(" ".join(query)), *map(_term, add or ())]
    terms += [_term(text, sign=-1.0) for text in subtract or ()]
    with open_store() as store:
        hits = find(store, load_model(model, threads), terms, top=top, folders=absolute(below))
    if as_json:
        output.show_json([{"path": h.path, "score": round(h.score, 6), "strength": h.strength} for h in hits])
    elif print0 or paths_only:
        for hit in hits:
            sys.stdout.write(hit.path + ("\0" if print0 else "\n"))
    else:
        _show(hits)
    if not hits:
        output.say("pocketclip: nothing found" + (" below these folders" if below else ""), quiet=quiet)
        raise typer.Exit(NOTHING)


def _term(text: str, sign: float = 1.0) -> "Term":
    from app.library.search.rank import Term
    from mobileclip.files import PHOTO_SUFFIXES

    weighted = _WEIGHTED.fullmatch(text)
    weight, content = (float(weighted[1]), weighted[2]) if weighted else (1.0, text)
    if not content.strip():
        raise typer.BadParameter("the query is empty")
    if not 0 < weight < _MORE_THAN_A_SHARE:
        raise typer.BadParameter(f"a weight must lie between 0 and {_MORE_THAN_A_SHARE:.0f}, not {weight:g}")
    path = Path(content).expanduser()
    # A word is only a path if it looks like one: a file named "cat" must not capture the search for cats.
    if path.suffix.lower() in PHOTO_SUFFIXES or content.startswith(("./", "../", "/", "~/")):
        if path.is_file():
            return Term(str(path), sign * weight, is_photo=True)
        raise typer.BadParameter(f"there is no photo {content}")
    return Term(content, sign * weight)


def _show(hits: "list[Hit]") -> None:
    for_people = output.is_terminal(sys.stdout)
    divided = False
    for hit in hits:
        if for_people and hit.strength == "weak" and not divided:
            print("── weaker matches ──")
            divided = True
        row = f"{hit.score:.3f}  " if for_people else f"{hit.score:.4f}\t{hit.strength}\t"
        print(row + output.printable(hit.path))

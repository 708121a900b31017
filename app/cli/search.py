"""`pocketclip search`: find photos by text, by an example, or only by filters."""

import os
import sys
from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

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
    from app.library.search.query import Query
    from app.library.search.rank import Results
    from app.library.store.connection import Store
    from mobileclip.model import Model

T = TypeVar("T")


def search(
    query: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY", help="Text, or the path of a photo to resemble.")
    ] = None,
    top: Annotated[int, typer.Option("--top", "-t", min=1, metavar="N", help="Number of photos to show.")] = 10,
    add: Annotated[
        list[str] | None, typer.Option("--add", "-a", metavar="QUERY", help="More of this. Repeatable.")
    ] = None,
    subtract: Annotated[
        list[str] | None, typer.Option("--subtract", "-s", metavar="QUERY", help="Less of this. Repeatable.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", "-w", metavar="TEXT", help="Drop photos that clearly show this. Repeatable."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="NAME", help="Only photos tagged with this label. Repeatable."),
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Only photos taken on or after this day.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="Only photos taken on or before this day.")
    ] = None,
    below: Annotated[
        list[str] | None, typer.Option("--in", metavar="DIR", help="Only photos in this folder. Repeatable.")
    ] = None,
    paths_only: Annotated[bool, typer.Option("--filepath-only", "-f", help="Only paths, one per line.")] = False,
    print0: Annotated[
        bool, typer.Option("--print0", "-0", help="Only paths, each followed by NUL (xargs -0).")
    ] = False,
    model: ModelName = "pocket",
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find photos by text, by an example, or only by filters.

    Any part of the query can have a weight, as in 2:cat. Dates are written
    as 2024, 2024-05 or 2024-05-31. Without a query, photos are listed
    newest first.

    Strong matches score well above the rest of your library for this query,
    and high enough for the model's labels (if it has any) to be assigned.

    [bold]Examples[/bold]

    \b
    pocketclip search "children playing in snow"
    pocketclip search ./holiday.jpg --subtract people
    pocketclip search "2:red car" --add beach --in ~/Pictures/2024
    pocketclip search beach --without people --from 2023-06 --to 2023-08
    pocketclip search --label dog --from 2024
    pocketclip search receipt -0 | xargs -0 ls -l
    """
    parsed = _query(query or [], add or [], subtract or [], without or [], labels or [], first, last, absolute(below))
    with open_store() as store:
        hits = _search(store, parsed, cache(lambda: load_model(model, threads)), top)
        unused = [] if hits else _unused_labels(store, parsed)
    if as_json:
        output.show_json([{"path": h.path, "score": round(h.score, 6), "strength": h.strength} for h in hits])
    elif print0 or paths_only:
        for hit in hits:
            sys.stdout.write(hit.path + ("\0" if print0 else "\n"))
    else:
        _show(hits, with_score=bool(parsed.terms))
    if not hits:
        tags = ", ".join(map(repr, unused))
        reason = f"; no photo is tagged {tags}, but you can search for it in words" if unused else ""
        output.say(f"pocketclip: nothing found{reason or (' in these folders' if below else '')}", quiet=quiet)
        raise typer.Exit(NOTHING)


class _Hit(NamedTuple):
    path: str
    score: float
    strength: str


def _query(
    words: list[str],
    add: list[str],
    subtract: list[str],
    without: list[str],
    labels: list[str],
    first: str | None,
    last: str | None,
    folders: list[str],
) -> "Query":
    from app.library.search.query import Query, parse_day, parse_term
    from app.library.store.filter import Filter

    terms = [_usage(parse_term, " ".join(words))] if words else []
    terms += [_usage(parse_term, text) for text in add]
    terms += [_usage(parse_term, text, -1.0) for text in subtract]
    start = _usage(parse_day, first or "")
    end = _usage(lambda text: parse_day(text, end=True), last or "")
    if start and end and end < start:
        raise typer.BadParameter(f"--from {first} is after --to {last}")
    if any(not text.strip() for text in [*without, *labels]):
        raise typer.BadParameter("--without and --label need a text")
    query = Query(tuple(terms), tuple(without), Filter(tuple(labels), tuple(folders), start, end))
    if query == Query():
        raise typer.BadParameter("name a text, a photo, or a filter such as --label or --from")
    return query


def _usage(parse: Callable[..., T], *arguments: object) -> T:
    """Call a parser, and turn its ValueError into wrong usage."""
    try:
        return parse(*arguments)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _search(store: "Store", query: "Query", open_model: "Callable[[], Model]", top: int) -> list[_Hit]:
    from app.library.labels.tagging import refresh
    from app.library.search.rank import search as find
    from app.library.store.matrix import load_matrix

    if query.without or query.filter.labels:
        refresh(store, open_model())
    found = find(store, query, lambda: (open_model(), load_matrix(store, open_model().fingerprint)), top)
    return _hits(store, found)[:top]


def _hits(store: "Store", found: "Results") -> list[_Hit]:
    """Add paths to results, with copies of a photo in the order of their paths."""
    from app.library.store.photos import list_photos

    rank = {int(photo_id): place for place, photo_id in enumerate(found.ids)}
    hits: list[_Hit] = []
    for _, copies in groupby(list_photos(store, found.ids), key=lambda photo: photo.content_id):
        for photo in sorted(copies, key=lambda photo: os.fsencode(photo.path)):
            place = rank[photo.id]
            hits.append(_Hit(photo.path, float(found.scores[place]), "strong" if place < found.strong else "weak"))
    return hits


def _unused_labels(store: "Store", query: "Query") -> list[str]:
    from app.library.search.timeline import timeline
    from app.library.store.filter import Filter

    return [label for label in query.filter.labels if not len(timeline(store, Filter(labels=(label,))).ids)]


def _show(hits: list[_Hit], *, with_score: bool) -> None:
    on_terminal = output.is_terminal(sys.stdout)
    has_divider = False
    for hit in hits:
        if on_terminal and hit.strength == "weak" and not has_divider:
            print("── weaker matches ──")
            has_divider = True
        score = f"{hit.score:.3f}  " if with_score else ""
        row = score if on_terminal else f"{hit.score:.4f}\t{hit.strength}\t"
        print(row + output.printable(hit.path))

"""`pocketclip tag`: show the labels of indexed photos."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import output
from app.cli.common import (
    NOTHING,
    AsJson,
    ModelName,
    Quiet,
    absolute,
    load_model,
    open_store,
    stop_without_labels,
)

if TYPE_CHECKING:
    from app.library.store.tags import Tag


def tag(
    folders: Annotated[list[str] | None, typer.Argument(metavar="DIR", help="Only photos below these folders.")] = None,
    model: ModelName = "pocket",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the labels of indexed photos.

    A photo may have none. Your own labels come first, then those that say
    most about a photo.

    Labels come from stored vectors. No photo is opened, even if the label
    set has changed.

    [bold]Examples[/bold]

    \b
    pocketclip tag ~/Pictures/2024
    pocketclip tag --json | jq '.[] | select(any(.tags[]; .label == "dog")) | .path'
    """
    from app.library.labels.tagging import refresh, tagged_photos
    from app.library.search.rank import nothing_indexed
    from app.library.store.vectors import count_vectors, id_of_model

    loaded = load_model(model)
    stop_without_labels(loaded, quiet)
    with open_store() as store:
        refresh(store, loaded)
        known = id_of_model(store, loaded.fingerprint)
        if known is None or not count_vectors(store, known):
            raise nothing_indexed(store, loaded)
        photos = tagged_photos(store, known, loaded.labels, absolute(folders))
        shown = _show_tags_as_json(photos) if as_json else _show_tags(photos)
    if not shown:
        output.say("pocketclip: nothing is indexed below these folders", quiet=quiet)
        raise typer.Exit(NOTHING)


def _show_tags(photos: "Iterable[tuple[str, list[Tag]]]") -> int:
    shown = 0
    for path, tags in photos:
        print(f"{output.printable(path)}\t{', '.join(f'{t.label} {t.score:.2f}' for t in tags) or '–'}")
        shown += 1
    return shown


def _show_tags_as_json(photos: "Iterable[tuple[str, list[Tag]]]") -> int:
    data = [
        {
            "path": path,
            "tags": [{"label": t.label, "score": round(t.score, 4), "source": t.source} for t in tags],
        }
        for path, tags in photos
    ]
    output.show_json(data)
    return len(data)

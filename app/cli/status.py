"""`pocketclip status`: show what is indexed."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import output
from app.cli.common import NOTHING, AsJson, Quiet, open_store

if TYPE_CHECKING:
    from app.library.store.connection import Store


def status(
    failures: Annotated[bool, typer.Option("--failures", help="List every photo that can't be read.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what is indexed, by which models, and what can't be read.

    [bold]Examples[/bold]

    \b
    pocketclip status
    pocketclip status --failures
    """
    with open_store() as store:
        data = _status(store)
    if as_json:
        output.show_json(data)
    elif failures:
        for failure in data["failures"]:
            detail = f" ({failure['detail']})" if failure["detail"] else ""
            print(f"{output.printable(failure['path'])}\t{failure['reason']}{detail}")
    else:
        _show_status(data)
    if not data["photos"]:
        output.say("pocketclip: the index has no photos yet", quiet=quiet)
        raise typer.Exit(NOTHING)


def _status(store: "Store") -> dict[str, Any]:
    from app.library.store import contents, failures, photos, roots, tags, vectors
    from app.library.store.schema import VERSION

    ours = [*store.path.parent.glob(f"{store.path.name}*"), *store.path.parent.glob("vectors-*.cache")]
    return {
        "index": str(store.path),
        "bytes": sum(path.stat().st_size for path in ours),
        "schema": VERSION,
        "photos": photos.count_photos(store),
        "contents": photos.count_held_contents(store),
        "tags": tags.count_tags(store),
        "roots": [{"path": r.path, "photos": r.photos, "read_at": r.read_at} for r in roots.list_roots(store)],
        "models": [
            {"name": m.name, "fingerprint": m.fingerprint, "dim": m.dim, "vectors": m.vectors}
            for m in vectors.list_models(store)
        ],
        "label_sets": contents.count_by_label_set(store),
        "failures": [
            {"path": f.path, "reason": f.reason, "detail": f.detail, "attempts": f.attempts}
            for f in failures.list_failures(store)
        ],
    }


def _show_status(data: dict[str, Any]) -> None:
    print(f"index\t{data['index']} ({output.size(data['bytes'])}, schema {data['schema']})")
    print(f"photos\t{data['photos']} ({data['contents']} different), {data['tags']} tags")
    for root in data["roots"]:
        read_at = root["read_at"]
        when = f"read {datetime.fromtimestamp(read_at):%Y-%m-%d %H:%M}" if read_at else "indexing not finished"
        print(f"folder\t{output.printable(root['path'])}: {root['photos']} photos, {when}")
    for model in data["models"]:
        name = f"{model['name']} {model['fingerprint'][:12]}"
        print(f"model\t{name}: {model['vectors']} vectors of {model['dim']} dimensions")
    for tagged_by, contents in data["label_sets"].items():
        print(f"labels\t{tagged_by[:12]}: {contents} photos decided")
    reasons: dict[str, int] = {}
    for failure in data["failures"]:
        reasons[failure["reason"]] = reasons.get(failure["reason"], 0) + 1
    if reasons:
        print("failed\t" + ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())))

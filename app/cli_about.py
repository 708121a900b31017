"""`pocketclip labels`, `status` and `models`: what there is."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import cli_output as output
from app.cli_common import NOTHING, AsJson, ModelName, Quiet, load_model, open_store

if TYPE_CHECKING:
    from app.library.store import Store
    from mobileclip.bundle import Bundle


def labels(model: ModelName = "pocket", as_json: AsJson = False) -> None:
    """List the labels that a model knows, by group.

    [bold]Example[/bold]

    \b
    pocketclip labels --json
    """
    loaded = load_model(model)
    if as_json:
        output.show_json(
            [
                {
                    "label": label.name,
                    "group": label.group,
                    "prompts": list(label.prompts),
                    "threshold": label.threshold,
                    "slope": label.slope,
                    "positives": label.positives,
                }
                for label in loaded.labels
            ]
        )
        return
    groups: dict[str, list[str]] = {}
    for label in loaded.labels:
        groups.setdefault(label.group, []).append(label.name)
    for group, names in groups.items():
        print(f"{group}\t{', '.join(names)}")


def status(
    failures: Annotated[bool, typer.Option("--failures", help="List every photo that could not be read.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what is indexed, by which models, and what could not be read.

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
        output.say("pocketclip: the index holds no photo yet", quiet=quiet)
        raise typer.Exit(NOTHING)


def _status(store: "Store") -> dict[str, Any]:
    from app.library.schema import VERSION

    counts = store.counts()
    ours = [*store.path.parent.glob(f"{store.path.name}*"), *store.path.parent.glob("vectors-*.cache")]
    return {
        "index": str(store.path),
        "bytes": sum(path.stat().st_size for path in ours),
        "schema": VERSION,
        "photos": counts["photos"],
        "contents": counts["contents"],
        "tags": counts["tags"],
        "roots": [{"path": r.path, "photos": r.photos, "read_at": r.read_at} for r in store.roots()],
        "models": [
            {"name": m.name, "fingerprint": m.fingerprint, "dim": m.dim, "vectors": m.vectors} for m in store.models()
        ],
        "label_sets": store.label_sets(),
        "failures": [
            {"path": f.path, "reason": f.reason, "detail": f.detail, "attempts": f.attempts} for f in store.failures()
        ],
    }


def _show_status(data: dict[str, Any]) -> None:
    print(f"index\t{data['index']} ({output.size(data['bytes'])}, schema {data['schema']})")
    print(f"photos\t{data['photos']} ({data['contents']} different), {data['tags']} tags")
    for root in data["roots"]:
        read_at = root["read_at"]
        when = f"read {datetime.fromtimestamp(read_at):%Y-%m-%d %H:%M}" if read_at else "never read to the end"
        print(f"folder\t{output.printable(root['path'])}: {root['photos']} photos, {when}")
    for model in data["models"]:
        name = f"{model['name']} {model['fingerprint'][:12]}"
        print(f"model\t{name}: {model['vectors']} vectors of {model['dim']}")
    for tagged_by, contents in data["label_sets"].items():
        print(f"labels\t{tagged_by[:12]}: {contents} photos decided")
    reasons: dict[str, int] = {}
    for failure in data["failures"]:
        reasons[failure["reason"]] = reasons.get(failure["reason"], 0) + 1
    if reasons:
        print("failed\t" + ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())))


def models(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the installed model bundles with size, licence and measured figures.

    [bold]Example[/bold]

    \b
    pocketclip models --json
    """
    import mobileclip
    from mobileclip.bundle import Bundle
    from mobileclip.errors import BundleError

    found = []
    for folder in sorted((Path(mobileclip.__file__).parent / "bundles").glob("*/")):
        try:
            found.append(_about(Bundle(folder)))
        except BundleError as error:
            output.say(f"pocketclip: {error}")
    if as_json:
        output.show_json(found)
    for about in () if as_json else found:
        engines = ", ".join(f"{engine} {precision}".strip() for engine, precision in about["engines"].items())
        print(f"{about['name']} {about['version']}\t{output.size(about['bytes'])}, {engines}")
        print(f"\t{about['dim']} dimensions, {about['labels']} labels")
        print(f"\t{about['licence']}")
        print(f"\t{about['provenance']}")
    if not found:
        output.say("pocketclip: no model bundle is installed", quiet=quiet)
        raise typer.Exit(NOTHING)


def _about(bundle: "Bundle") -> dict[str, Any]:
    from mobileclip.zeroshot import LabelSet

    manifest = bundle.manifest
    return {
        "name": manifest["name"],
        "version": manifest["version"],
        "path": str(bundle.path),
        "bytes": sum(entry.bytes for entry in bundle.files.values()),
        "licence": manifest["licence"],
        "provenance": manifest["provenance"],
        "dim": manifest["embed_dim"],
        "labels": len(LabelSet.loads(bundle.read(manifest["labels"]).decode())),
        "engines": {engine: towers.get("precision", "") for engine, towers in manifest["towers"].items()},
        "figures": manifest.get("figures", {}),
    }

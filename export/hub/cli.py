"""`pocketclip models`: what is installed, what can be pulled, and pulling it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import output
from app.cli.common import NOTHING, AsJson, Quiet
from export.hub.download import (
    Entry,
    HubError,
    NoNetworkError,
    Repository,
    catalogue,
    fetch,
    find_entry,
    look_up,
    plain_name,
)
from mobileclip.bundle import Bundle, named_bundles
from mobileclip.checkpoint_files import OPENCLIP_CONFIG, OPENCLIP_SAFETENSORS
from mobileclip.errors import BundleError
from mobileclip.home import models_folder, user_folders

if TYPE_CHECKING:
    from export.hub.ready import Ready, Source

models = typer.Typer(rich_markup_mode="rich")


@models.callback(invoke_without_command=True)
def _models(context: typer.Context, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the models that are installed or can be pulled, and pull them.

    [bold]Examples[/bold]

    \b
    pocketclip models
    pocketclip models pull clip-vit-b-32
    """
    if context.invoked_subcommand is None:
        show_models(as_json, quiet)


@models.command("list")
def list_models(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List installed models with size, licence and measured figures, then those that can be pulled.

    [bold]Example[/bold]

    \b
    pocketclip models list --json
    """
    show_models(as_json, quiet)


@models.command()
def pull(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="A name that `list` shows, OWNER/REPO on the hub, or ./folder.")
    ],
    precision: Annotated[
        str, typer.Option(metavar="fp32|fp16|int8|q4…", help="Which of the ready towers; fp32 if not given.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a model of this name.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a model from the Hugging Face hub, check it, and make a bundle of it.

    Nothing is fetched unless this command is run. It prints the bundle's path;
    every command then finds it with --model NAME.

    Ready ONNX towers become a bundle at once. Of safetensors `pocketclip export`
    makes one, with the train and export extras.

    A pulled bundle can search; it has no labels, so it cannot tag.

    Small precisions (int8, q4) can lose much of what a model knows.

    Exit code 1: the hub cannot be reached.

    [bold]Examples[/bold]

    \b
    pocketclip models pull clip-vit-b-32
    pocketclip models pull mobileclip-s2 --precision fp16
    pocketclip models pull onnx-community/some-clip
    pocketclip models pull ./a-folder-laid-out-like-that
    """
    try:
        print(_pull(model, precision.lower(), force, quiet))
    except NoNetworkError as error:
        output.say(f"pocketclip: {error}")
        raise typer.Exit(NOTHING) from None


def _pull(model: str, precision: str, force: bool, quiet: bool) -> Path:
    local = Path(model).expanduser()
    known = {entry.name for entry in catalogue()}
    if model.startswith((".", "~")) or local.is_absolute() or (local.is_dir() and model not in known):
        if not local.is_dir():
            raise HubError(f"there is no folder {model}")
        return _from_folder(local.resolve(), precision, force, quiet)
    entry = find_entry(model)
    out = _free(entry.name, force)
    output.say(f"asking the hub for {entry.repo}", quiet=quiet)
    repository = look_up(entry)
    files = {name: file.bytes for name, file in repository.files.items()}
    from export.hub.ready import Source, choose_towers

    ready = choose_towers(files, precision, entry.folder) if entry.kind != "openclip" else None
    if ready is None:
        return _checkpoint(entry, repository, precision, force, quiet)
    staging = _download(entry, repository, ready.files, quiet)
    provenance = f"{entry.repo} on the Hugging Face hub"
    if entry.homepage:
        provenance += f", see {entry.homepage}"
    source = Source(entry.name, repository.licence, provenance, entry.research_only, repository.commit)
    made = _build(staging, ready, source, out, quiet)
    shutil.rmtree(staging, ignore_errors=True)
    return made


def _from_folder(folder: Path, precision: str, force: bool, quiet: bool) -> Path:
    from export.hub.ready import Source, choose_towers, folder_files

    files = folder_files(folder)
    ready = choose_towers(files, precision)
    if ready is None and OPENCLIP_CONFIG in files:
        raise HubError(f"{folder} is a checkpoint; {_how_to_export(folder)}")
    if ready is None:
        raise HubError(f"{folder} holds neither vision_model.onnx and text_model.onnx nor a checkpoint")
    name = plain_name(folder.name)
    out = _free(name, force)
    source = Source(name, "not stated; see where the folder came from", f"made of the folder {folder.name}")
    return _build(folder, ready, source, out, quiet)


def _build(folder: Path, ready: Ready, source: Source, out: Path, quiet: bool) -> Path:
    from export.hub.ready import build_bundle

    made = build_bundle(folder, ready, source, out, lambda text: output.say(text, quiet=quiet))
    if source.research_only:
        output.say(f"{source.name}: for research only ({source.licence})", quiet=quiet)
    return made


def _checkpoint(entry: Entry, repository: Repository, precision: str, force: bool, quiet: bool) -> Path:
    """Fetch safetensors; pickled weights are never read, so they are not fetched either."""
    weights = next((name for name in OPENCLIP_SAFETENSORS if name in repository.files), None)
    if weights is None or OPENCLIP_CONFIG not in repository.files:
        raise HubError(f"{entry.repo} has neither ready ONNX towers nor safetensors with {OPENCLIP_CONFIG}")
    if precision:
        raise HubError(f"{entry.repo} has no ready ONNX towers, so there is no {precision} to choose")
    out = _free(f"{entry.name}.checkpoint", force)
    names = [weights, OPENCLIP_CONFIG, *(name for name in ("LICENSE", "README.md") if name in repository.files)]
    staging = _download(entry, repository, names, quiet)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        shutil.rmtree(out)
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    shutil.move(staging, out)
    output.say(f"{entry.name} is a checkpoint; {_how_to_export(out)}", quiet=quiet)
    if entry.research_only:
        output.say(f"{entry.name}: for research only ({repository.licence})", quiet=quiet)
    return out


def _how_to_export(folder: Path) -> str:
    return f"`pocketclip export {folder} -o …` makes a bundle of it (pip install 'pocketclip[train,export]')"


def _download(entry: Entry, repository: Repository, names: Sequence[str], quiet: bool) -> Path:
    """Fetch into the cache, where an interrupted download goes on; returns the folder."""
    staging = user_folders().cache / "hub" / entry.repo.replace("/", "--")
    total = sum(repository.files[name].bytes for name in names)
    output.say(f"fetching {output.size(total)} of {entry.repo}", quiet=quiet)
    staging.mkdir(parents=True, exist_ok=True)
    fetch(repository, names, staging, entry.sha256, quiet=quiet)
    return staging


def _free(name: str, force: bool) -> Path:
    """The folder for a new model of this name."""
    parent = models_folder()
    if parent is None:
        raise HubError("set POCKETCLIP_HOME: the folder for models is not known here")
    there = named_bundles().get(name)
    if there is not None and there.parent != parent:
        raise HubError(f"{name} is the name of an embedded model; rename the folder")
    if (parent / name).exists() and not force:
        raise HubError(f"{name} is there already: {parent / name} (--force replaces it)")
    return parent / name


def show_models(as_json: bool, quiet: bool) -> None:
    """Print what is installed and what can be pulled."""
    installed = []
    for folder in named_bundles().values():
        try:
            installed.append(_about(Bundle(folder)))
        except BundleError as error:
            output.say(f"pocketclip: {error}")
    available = [_offer(entry) for entry in catalogue()]
    if as_json:
        output.show_json({"installed": installed, "available": available})
    else:
        _show_installed(installed)
        _show_available(available)
    if not installed:
        output.say("pocketclip: no model bundle is installed", quiet=quiet)
        raise typer.Exit(NOTHING)


def _show_installed(installed: list[dict[str, Any]]) -> None:
    for about in installed:
        engines = ", ".join(f"{engine} {precision}".strip() for engine, precision in about["engines"].items())
        print(f"{about['name']} {about['version']}\t{output.size(about['bytes'])}, {engines}")
        print(f"\t{about['dim']} dimensions, {about['labels']} labels")
        print(f"\t{_licence(about)}")
        print(f"\t{about['provenance']}")


def _show_available(available: list[dict[str, Any]]) -> None:
    print("\nTo be had with `pocketclip models pull NAME`:")
    for offer in available:
        size = output.size(offer["bytes"]) if offer["bytes"] else "size not known"
        print(f"{offer['name']}\t{size}, {offer['kind']}, {offer['source']}")
        print(f"\t{_licence(offer)}")


def _licence(about: dict[str, Any]) -> str:
    return f"RESEARCH ONLY: {about['licence']}" if about["research_only"] else str(about["licence"])


def _offer(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "source": entry.repo,
        "revision": entry.revision,
        "kind": entry.kind,
        "bytes": entry.bytes or None,
        "licence": entry.licence,
        "research_only": entry.research_only,
        "homepage": entry.homepage,
    }


def _about(bundle: Bundle) -> dict[str, Any]:
    from mobileclip.zeroshot import LabelSet

    manifest = bundle.manifest
    return {
        "name": manifest["name"],
        "version": manifest["version"],
        "path": str(bundle.path),
        "bytes": sum(entry.bytes for entry in bundle.files.values()),
        "licence": manifest["licence"],
        "research_only": manifest.get("research_only", False),
        "provenance": manifest["provenance"],
        "dim": manifest["embed_dim"],
        "labels": len(LabelSet.loads(bundle.read(manifest["labels"]).decode())),
        "engines": {engine: towers.get("precision", "") for engine, towers in manifest["towers"].items()},
        "figures": manifest.get("figures", {}),
    }

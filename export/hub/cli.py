"""`pocketclip models available` and `pull`: models on the Hugging Face hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.hub.download import (
    Entry,
    HubError,
    NoNetworkError,
    Repository,
    catalog,
    fetch,
    find_entry,
    look_up,
    plain_name,
)
from mobileclip.bundle import named_bundles
from mobileclip.checkpoint_files import OPENCLIP_CONFIG, OPENCLIP_SAFETENSORS
from mobileclip.extras import install_hint
from mobileclip.home import models_folder, user_folders
from mobileclip.terminal import say, show_json, size

if TYPE_CHECKING:
    from export.hub.ready import Ready, Source

_NO_NETWORK = 1
"""Exit code."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors on stderr.")]


def available(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the models that can be pulled.

    Any other repository with the same files can be pulled as well, as OWNER/REPO.

    [bold]Example[/bold]

    \b
    pocketclip models available
    """
    offers = [_offer(entry) for entry in catalog()]
    if as_json:
        show_json({"available": offers})
        return
    for offer in offers:
        print(f"{offer['name']}\t{size(offer['bytes']) if offer['bytes'] else 'unknown size'}, {offer['kind']}", end="")
        print(f", {offer['source']}")
        print(f"\t{'RESEARCH ONLY: ' if offer['research_only'] else ''}{offer['licence']}")


def pull(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="A name from `models available`, OWNER/REPO on the hub, or ./folder.")
    ],
    precision: Annotated[
        str, typer.Option(metavar="PRECISION", help="Precision of ready-made towers: fp32 (default), fp16, int8, q4, …")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a model of the same name.")] = False,
    quiet: Quiet = False,
) -> None:
    """Download a model from the Hugging Face hub, check it and make it a bundle.

    No other command uses the network. It prints the path of the bundle, which every command then finds as --model NAME.

    Ready-made ONNX towers become a bundle at once. Safetensors checkpoints need `pocketclip export`, with the extras
    train and export.

    A pulled model can search. It has no labels, so it can't tag. Small precisions such as int8 and q4 can cost a lot
    of accuracy.

    Exit code 1: the hub can't be reached.

    [bold]Examples[/bold]

    \b
    pocketclip models pull clip-vit-b-32
    pocketclip models pull mobileclip-s2 --precision fp16
    pocketclip models pull onnx-community/some-clip
    pocketclip models pull ./folder-with-the-same-files
    """
    try:
        print(_pull(model, precision.lower(), force, quiet))
    except NoNetworkError as error:
        say(f"pocketclip: {error}")
        raise typer.Exit(_NO_NETWORK) from None


def _pull(model: str, precision: str, force: bool, quiet: bool) -> Path:
    local = Path(model).expanduser()
    known = {entry.name for entry in catalog()}
    if model.startswith((".", "~")) or local.is_absolute() or (local.is_dir() and model not in known):
        if not local.is_dir():
            raise HubError(f"there is no folder {model}")
        return _from_folder(local.resolve(), precision, force, quiet)
    entry = find_entry(model)
    out = _free(entry.name, force)
    say(f"asking the hub for {entry.repo}", quiet=quiet)
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
    source = Source(entry.name, repository.license, provenance, entry.research_only, repository.commit)
    bundle = _build(staging, ready, source, out, quiet)
    shutil.rmtree(staging, ignore_errors=True)
    return bundle


def _from_folder(folder: Path, precision: str, force: bool, quiet: bool) -> Path:
    from export.hub.ready import Source, choose_towers, folder_files

    files = folder_files(folder)
    ready = choose_towers(files, precision)
    if ready is None and OPENCLIP_CONFIG in files:
        raise HubError(f"{folder} is a checkpoint; {_how_to_export(folder)}")
    if ready is None:
        raise HubError(f"{folder}: no vision_model.onnx with text_model.onnx here, and no checkpoint")
    name = plain_name(folder.name)
    out = _free(name, force)
    source = Source(name, "not stated; see where the folder came from", f"made from the folder {folder.name}")
    return _build(folder, ready, source, out, quiet)


def _build(folder: Path, ready: Ready, source: Source, out: Path, quiet: bool) -> Path:
    from export.hub.ready import build_bundle

    bundle = build_bundle(folder, ready, source, out, lambda text: say(text, quiet=quiet))
    if source.research_only:
        say(f"{source.name}: for research only ({source.license})", quiet=quiet)
    return bundle


def _checkpoint(entry: Entry, repository: Repository, precision: str, force: bool, quiet: bool) -> Path:
    """Download safetensors. Pickled weights are never read, so they aren't downloaded either."""
    weights = next((name for name in OPENCLIP_SAFETENSORS if name in repository.files), None)
    if weights is None or OPENCLIP_CONFIG not in repository.files:
        raise HubError(f"{entry.repo} has neither ready-made ONNX towers nor safetensors with {OPENCLIP_CONFIG}")
    if precision:
        raise HubError(f"{entry.repo} has no ready-made ONNX towers; pull it without --precision")
    out = _free(f"{entry.name}.checkpoint", force)
    names = [weights, OPENCLIP_CONFIG, *(name for name in ("LICENSE", "README.md") if name in repository.files)]
    staging = _download(entry, repository, names, quiet)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        shutil.rmtree(out)
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    shutil.move(staging, out)
    say(f"{entry.name} is a checkpoint; {_how_to_export(out)}", quiet=quiet)
    if entry.research_only:
        say(f"{entry.name}: for research only ({repository.license})", quiet=quiet)
    return out


def _how_to_export(folder: Path) -> str:
    return f"`pocketclip export {folder} -o …` makes a bundle from it (first: {install_hint('train,export')})"


def _download(entry: Entry, repository: Repository, names: Sequence[str], quiet: bool) -> Path:
    """Download into the cache, where an interrupted download resumes; returns the folder."""
    staging = user_folders().cache / "hub" / entry.repo.replace("/", "--")
    total = sum(repository.files[name].bytes for name in names)
    say(f"downloading {size(total)} of {entry.repo}", quiet=quiet)
    staging.mkdir(parents=True, exist_ok=True)
    fetch(repository, names, staging, entry.sha256, quiet=quiet)
    return staging


def _free(name: str, force: bool) -> Path:
    """The folder for a new model with this name."""
    parent = models_folder()
    if parent is None:
        raise HubError("the models folder is unknown: set POCKETCLIP_HOME")
    there = named_bundles().get(name)
    if there is not None and there.parent != parent:
        raise HubError(f"{name} is the name of a model that ships with pocketclip; rename the folder")
    if (parent / name).exists() and not force:
        raise HubError(f"{name} already exists: {parent / name} (--force replaces it)")
    return parent / name


def _offer(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "source": entry.repo,
        "revision": entry.revision,
        "kind": entry.kind,
        "bytes": entry.bytes or None,
        "licence": entry.license,
        "research_only": entry.research_only,
        "homepage": entry.homepage,
    }

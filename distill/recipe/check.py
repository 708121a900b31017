"""Open everything that a recipe names before anything long starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from distill.config import CheckpointConfig, Recipe
from distill.config.sources import PhotoSource, TextSource
from distill.data.remote import find_copies, is_remote, source_tars
from distill.data.sources import all_missing, is_photo_file, list_photos, list_tars, read_texts
from distill.data.tars import find_tars, read_index
from distill.files import locate, locate_weights
from distill.reinforce.shards import Sidecar
from mobileclip.checkpoint_files import find_weights
from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike

TARS = 50
"""How many tars of a source are read, evenly spaced."""

MISSING_SHARE = 0.05
"""A source with a larger share of missing photos is a problem: the folder is probably wrong."""


@dataclass
class Findings:
    """What a recipe names: what was found, and what is wrong with it.

    Attributes:
        found: what was opened, name → what it holds.
        problems: one sentence each; empty if training can start.
        missing: for each source, the listed photos that don't exist.
        skipped: for each source, what can't be used, in words, such as "3 rows without a caption".
    """

    found: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)


def check_recipe(recipe: Recipe, base: PathLike, data: PathLike) -> Findings:
    """Look for each file, package and photo that a recipe names, and read the tables among them.

    Args:
        recipe: the recipe.
        base: its folder; merges and weights are relative to it.
        data: the folder that its data files are relative to.

    Returns:
        All findings, not only the first problem.
    """
    findings, base, data = Findings(), Path(base), Path(data)
    for name, check in _checks(recipe, base, data, findings):
        try:
            findings.found[name] = check()
        except PocketclipError as error:
            hint = recipe.hints.get(name.partition(".")[0], "")
            findings.problems.append(f"{name}: {error}" + (f"; {hint}" if hint else ""))
    return findings


def _checks(recipe: Recipe, base: Path, data: Path, findings: Findings) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "model", partial(_model, recipe, base)
    yield from _weights(recipe, base)
    if not data.is_dir():
        yield "data", partial(_refuse, f"{data} isn't a folder; set it with --data")
        return
    if recipe.render is not None and not (data / recipe.render.folder).exists():
        yield "render", partial(str, f"{recipe.render.folder} will be rendered when training starts")
    for source in recipe.photos:
        if _is_rendered(source.file, recipe, data):
            continue
        yield f"photos.{source.name}", partial(_photos, source, data, findings)
    for texts in recipe.texts:
        yield f"texts.{texts.name}", partial(_texts, texts, data)
    if recipe.validate is not None:
        plan = recipe.validate
        use = (plan.split,) if plan.split else ()
        kinds: dict[Literal["captions", "labels"], str] = {"captions": plan.captions, "labels": plan.labels}
        for kind, file in kinds.items():
            if file and not _is_rendered(file, recipe, data):
                source = PhotoSource("validate", kind, file, splits=plan.splits, use=use)
                yield f"validate.{kind}", partial(_photos, source, data, findings)
    for name, teacher in recipe.named_teachers:
        for file in teacher.tables():
            yield f"{name}.{file}", partial(_file, file, data)


def _is_rendered(file: str, recipe: Recipe, data: Path) -> bool:
    """Whether a file is in the folder that is rendered when training starts."""
    plan = recipe.render
    return plan is not None and not (data / plan.folder).exists() and Path(file).is_relative_to(plan.folder)


def _refuse(message: str) -> str:
    raise PocketclipError(message)


def _file(file: str, base: Path) -> str:
    return str(locate(file, base))


def _weights_file(file: str, base: Path) -> str:
    if not file:
        raise PocketclipError("names no file of weights")
    return str(locate_weights(file, base))


def _checkpoint(file: str, base: Path) -> str:
    path = locate_weights(file, base)
    if path.is_dir() and find_weights(path) is None:
        raise PocketclipError(f"{path}: no checkpoint in this folder")
    return str(path)


def _texts(source: TextSource, data: Path) -> str:
    return f"{len(read_texts(source, data)):,} texts"


def _model(recipe: Recipe, base: Path) -> str:
    config = recipe.student(base)
    recipe.tokenizer(base)
    return f"{config.name}, {config.embed_dim} dimensions, {config.pixels.size} px"


def _weights(recipe: Recipe, base: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """The checks of files and packages with weights to start from or to learn from."""
    if recipe.init:
        yield "init", partial(_weights_file, recipe.init, base)
    for name, file in {"start": recipe.start, "inherit": recipe.inherit}.items():
        if file:
            yield name, partial(_checkpoint, file, base)
    for name, teacher in recipe.named_teachers:
        check = _checkpoint if isinstance(teacher, CheckpointConfig) else _weights_file
        for what, file in teacher.weights().items():
            yield f"{name}.{what}", partial(check, file, base)


def _photos(source: PhotoSource, data: Path, findings: Findings) -> str:
    if source.kind == "webdataset":
        return _tars(source, data, findings)
    if source.kind == "reinforced":
        return _reinforced(locate(source.file, data))
    listing = list_photos(source, data)
    photos = listing.photos
    missing = [str(sample.photo.path) for sample in photos if not is_photo_file(sample.photo.path)]
    if missing:
        findings.missing[source.name] = missing
    if len(missing) == len(photos):
        raise all_missing(source, data, len(photos))
    if len(missing) > MISSING_SHARE * len(photos):
        raise PocketclipError(
            f"{len(missing):,} of {len(photos):,} photos are missing, such as {_some(missing)}; is --data right?"
        )
    texts = sum(len(sample.texts) for sample in photos)
    notes = [f"{count:,} {reason}" for reason, count in listing.skipped.items()]
    if notes:
        findings.skipped[source.name] = notes.copy()
    if missing:
        notes.append(f"{len(missing):,} photos are missing: {_some(missing)}")
    return "; ".join([f"{len(photos) - len(missing):,} photos, {texts:,} texts", *notes])


def _reinforced(folder: Path) -> str:
    """Read what describes a reinforced folder, and look into the first tar of DataCompDR."""
    sidecar = Sidecar.load(folder)
    teachers = ", ".join(entry.identity.partition("|")[0] for entry in sidecar.teachers)
    if sidecar.layout == "pocketclip":
        return f"{sum(shard.photos for shard in sidecar.shards):,} photos, taught by {teachers}"
    tars = find_tars(folder)
    samples = read_index(tars[0])[0]
    joined = sum(not sample.lacks and "paug.json" in sample.members for sample in samples)
    if not joined:
        raise PocketclipError(
            f"{tars[0]}: none of its {len(samples):,} samples has a picture, a caption and stored views; join the tars "
            "with the pictures: python -m distill.reinforce.join --help"
        )
    return f"{len(tars):,} tars, {joined:,} photos in the first, taught by {teachers}"


def _tars(source: PhotoSource, data: Path, findings: Findings) -> str:
    """Look for the tars of a source; those on another machine are read only if they were copied already."""
    if not is_remote(source.file):
        return _usable(source_tars(source.file, data), source, data, findings)
    copies, about = find_copies(source.file, data)
    return f"{about}: {_usable(copies, source, data, findings)}" if copies else about


def _usable(tars: list[Path], source: PhotoSource, data: Path, findings: Findings) -> str:
    """Read the texts of tars, at most `TARS` of them, and count what can't be used by its reason."""
    looked = tars[:: -(-len(tars) // TARS)]
    listing = list_tars(source, looked, data)
    notes = [f"{count:,} × {reason}" for reason, count in listing.skipped.items()]
    where = f"{len(looked):,} of {len(tars):,} tars" if len(looked) < len(tars) else f"{len(tars):,} tars"
    if notes:
        findings.skipped[source.name] = notes
    return f"{len(listing.photos):,} photos in {where}" + (f"; unusable: {', '.join(notes)}" if notes else "")


def _some(names: Sequence[str]) -> str:
    """Join the first three names."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more:,} more" if more > 0 else "")

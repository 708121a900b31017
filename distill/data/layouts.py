"""Rows of photos and texts from what isn't a table: a folder per class, and COCO's captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from distill.data.tables import DataError, as_text, not_utf8, unreadable
from mobileclip.files import PHOTO_SUFFIXES, PathLike

SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def folder_rows(folder: PathLike) -> Iterator[dict[str, str]]:
    """Yield `file`, `label` and `split` of every photo in a folder with one folder per class, sorted.

    The class is the name of the folder in it. Between them can be the splits: if all folders have names such as
    `train` and `test`, these are splits, and their folders are the classes. Hidden folders are skipped.

    Raises:
        DataError: it isn't a folder, or has no folder.
    """
    folder = Path(folder)
    classes = [("", path) for path in _folders(folder)]
    if not classes:
        raise DataError(f"{folder}: has no folders, but needs one for each class")
    if all(path.name.lower() in SPLIT_FOLDERS for _, path in classes):
        classes = [(split.name, path) for _, split in classes for path in _folders(split)]
    for split, path in classes:
        for photo in sorted(path.rglob("*")):
            inside = photo.relative_to(folder)
            if photo.suffix.lower() in PHOTO_SUFFIXES and not any(part.startswith(".") for part in inside.parts):
                yield {"file": inside.as_posix(), "label": path.name, "split": split}


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from error


def coco_rows(path: PathLike) -> Iterator[dict[str, str]]:
    """Yield `file` and `caption` of a captions file of COCO (cocodataset.org), in the order of its annotations.

    Raises:
        DataError: the file is missing, or isn't such a file.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    except (RecursionError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON") from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    try:
        files = {image["id"]: as_text(image["file_name"]) for image in found["images"]}
        rows = [(files[note["image_id"]], as_text(note["caption"])) for note in found["annotations"]]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a captions file of COCO; it needs images with id and file_name, and annotations with "
            "image_id and caption"
        ) from error
    for file, caption in rows:
        yield {"file": file, "caption": caption}

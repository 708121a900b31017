"""Readers of captions files, labels files, and texts without photos."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.data.wordnet import nouns, plurals
from mobileclip.errors import PocketclipError, one_line
from mobileclip.files import PathLike

if TYPE_CHECKING:  # at run time it needs torch, and a bundle is evaluated without
    from distill.config import PhotoSource, TextSource


class DataError(PocketclipError):
    """A data file that is missing or malformed."""


@dataclass(frozen=True)
class Sample:
    """A photo of a captions or labels file, with its texts.

    Attributes:
        path: the photo, which need not exist.
        texts: texts that are true of it.
        group: what it shows; photos of the same group aren't each other's negatives.
        synthetic: captions that a model wrote.
    """

    path: Path
    texts: tuple[str, ...]
    group: str
    synthetic: tuple[str, ...] = ()


def unreadable(path: PathLike, error: Exception) -> DataError:
    """Return the one-line error for a file that can't be read. It names the file once."""
    # safetensors repeats the path in its message.
    missing = "No such file or directory" if isinstance(error, FileNotFoundError) else None
    reason = missing or getattr(error, "strerror", None) or one_line(error)
    return DataError(f"{path}: cannot be read ({reason})")


def read_table(path: PathLike) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV, TSV or JSONL file as dictionaries of strings.

    Raises:
        DataError: the file is missing, or doesn't have the format of its suffix.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix == ".jsonl":
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        try:
                            yield {key: _as_text(value) for key, value in json.loads(line).items()}
                        except (ValueError, AttributeError) as error:
                            raise DataError(f"{path}, line {number}: not a JSON object") from error
            else:
                yield from csv.DictReader(stream, restval="", delimiter="\t" if path.suffix == ".tsv" else ",")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from error


def _as_text(value: Any) -> str:
    """Return a JSON value as a string; a list stays JSON, and null becomes empty."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def is_photo_file(path: Path) -> bool:
    """Return whether a listed photo exists. Names that no file system can hold don't."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name of 5,000 letters
        return False


def all_missing(source: PhotoSource, data: PathLike, count: int) -> DataError:
    """Return the error for a source of `count` photos, none of which exists."""
    path = Path(data) / source.file
    return DataError(
        f"{path}: none of its {count:,} photos exists; they were looked for in {path.parent}; is the data folder right?"
    )


def read_splits(path: PathLike) -> dict[str, str]:
    """Map each file of a `file,split` table to its split.

    Raises:
        DataError: see `read_table`; or a column is missing.
    """
    rows = list(read_table(path))
    if rows and not {"file", "split"} <= rows[0].keys():
        raise DataError(f"{path}: needs the columns `file` and `split`")
    return {row["file"]: row["split"] for row in rows}


def readable_name(label: str, names: dict[str, str] | None = None) -> str:
    """Return a class name as a phrase: "ice hockey" for `ice_hockey`, or what `names` has for it."""
    return (names or {}).get(label) or label.replace("_", " ").replace("-", " ").strip().lower()


def read_photos(source: PhotoSource, data: PathLike) -> list[Sample]:
    """Read the photos and texts of a captions or labels file.

    A captions file may have a column `synthetic` next to `caption`, with one caption that a model wrote or a JSON list
    of them.

    Raises:
        DataError: a file is missing, lacks a column, or has no sample of the wanted splits.
    """
    if source.kind not in ("captions", "labels"):
        raise DataError(
            f'photos.{source.name}: cached teacher embeddings do not work with tars; set teach = "online", '
            "or run `pocketclip reinforce` and train on its folder"
        )
    path = Path(data) / source.file
    splits = read_splits(Path(data) / source.splits) if source.splits else {}
    texts: dict[str, list[str]] = {}
    synthetic: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    text_column = "caption" if source.kind == "captions" else source.column
    for row in read_table(path):
        if "file" not in row or text_column not in row:
            raise DataError(f"{path}: needs the columns `file` and `{text_column}`")
        file, text = row["file"], row[text_column]
        if source.use and splits.get(file, row.get("split", "")) not in source.use:
            continue
        if source.kind == "captions":
            texts.setdefault(file, []).append(text.strip())
            synthetic.setdefault(file, []).extend(_synthetic_captions(row.get("synthetic") or ""))
        else:
            phrase = " and ".join(readable_name(part, dict(source.names)) for part in text.split("|"))
            texts[file] = [template.format(phrase) for template in source.templates]
            labels[file] = phrase
    if not texts:
        raise DataError(f"{path}: no sample in the splits {', '.join(source.use) or '(all)'}")
    # Photos with the same label show the same in every source; a caption describes only its own photo.
    return [
        Sample(
            path.parent / file,
            tuple(dict.fromkeys(captions)),
            labels.get(file) or f"{source.name}/{file}",
            tuple(dict.fromkeys(synthetic.get(file, ()))),
        )
        for file, captions in texts.items()
    ]


def _synthetic_captions(cell: str) -> list[str]:
    """Parse the column `synthetic`: one text, or a JSON list of texts."""
    try:
        texts = json.loads(cell) if cell.startswith("[") else [cell]
    except ValueError:
        texts = [cell]
    return [text.strip() for text in map(str, texts) if text.strip()]


def read_texts(source: TextSource, data: PathLike) -> list[str]:
    """Read texts without photos, in the order of the file and without duplicates.

    Raises:
        DataError: the file or the column is missing.
    """
    path = Path(data) / source.file
    if source.kind == "wordnet":
        texts = nouns(path)
    elif source.kind == "csv":
        rows = list(read_table(path))
        if rows and source.column not in rows[0]:
            raise DataError(f"{path}: no column `{source.column}`")
        texts = [row[source.column] for row in rows]
    else:
        try:
            texts = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(path, error) from error
    unique = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    kept = unique[: source.limit] if source.limit else unique
    if source.plural:
        kept = list(dict.fromkeys(plurals(kept)))
    return [template.format(text) for template in source.templates for text in kept]

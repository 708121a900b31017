"""Readers: captions files, tables of labels, and texts without photos."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import PhotoSource, TextSource
from distill.data.wordnet import nouns, plurals
from mobileclip.errors import PocketclipError


class DataError(PocketclipError):
    """A data file that is missing or cannot be understood."""


@dataclass(frozen=True)
class Sample:
    """One photo and the texts that are true of it.

    Samples of one `group` share their meaning: two photos of one class are not each other's negatives.
    """

    path: Path
    texts: tuple[str, ...]
    group: str
    synthetic: tuple[str, ...] = ()
    """Captions that a model wrote."""


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV, TSV or JSONL file as dictionaries of strings.

    Raises:
        DataError: the file is missing, or a line of it is not what its ending says.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix == ".jsonl":
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        try:
                            yield {key: _plain(value) for key, value in json.loads(line).items()}
                        except (ValueError, AttributeError) as error:
                            raise DataError(f"{path}, line {number}: not a JSON object") from error
            else:
                yield from csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _plain(value: Any) -> str:
    """As one string; a list stays JSON, and null is nothing."""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def read_splits(path: Path) -> dict[str, str]:
    """Map each file of a `file,split` table to its split."""
    return {row["file"]: row["split"] for row in read_table(path)}


def spoken(label: str, names: dict[str, str] | None = None) -> str:
    """Turn a class name into words: `ice_hockey` is "ice hockey"."""
    return (names or {}).get(label) or label.replace("_", " ").replace("-", " ").strip().lower()


def read_photos(source: PhotoSource, data: Path) -> list[Sample]:
    """Read a source's photos and texts; photos named in it need not exist yet.

    Captions files may have a column `synthetic` beside `caption`: a text or a list of texts that a model wrote.

    Raises:
        DataError: a file is missing, lacks a column, or holds no sample of the wanted splits.
    """
    if source.kind not in ("captions", "labels"):
        raise DataError(
            f'photos.{source.name}: tars are not read for cached teacher vectors; set teach = "online", '
            "or run `pocketclip reinforce` and train on its folder"
        )
    path = data / source.file
    splits = read_splits(data / source.splits) if source.splits else {}
    texts: dict[str, list[str]] = {}
    synthetic: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    text_column = "caption" if source.kind == "captions" else source.column
    for row in read_table(path):
        if "file" not in row or text_column not in row:
            raise DataError(f"{path}: the columns `file` and `{text_column}` are needed")
        file, text = row["file"], row[text_column]
        if source.use and splits.get(file, row.get("split", "")) not in source.use:
            continue
        if source.kind == "captions":
            texts.setdefault(file, []).append(text.strip())
            synthetic.setdefault(file, []).extend(_several(row.get("synthetic") or ""))
        else:
            said = [spoken(part, dict(source.names)) for part in text.split("|")]
            phrase = " and ".join(said)
            texts[file] = [template.format(phrase) for template in source.templates]
            labels[file] = phrase
    if not texts:
        raise DataError(f"{path}: no sample in the splits {', '.join(source.use) or '(all)'}")
    # A label means the same in every source, a caption only what its own photo shows.
    return [
        Sample(
            path.parent / file,
            tuple(dict.fromkeys(said)),
            labels.get(file) or f"{source.name}/{file}",
            tuple(dict.fromkeys(synthetic.get(file, ()))),
        )
        for file, said in texts.items()
    ]


def _several(said: str) -> list[str]:
    """One text, or a JSON list of them, as it stands in the column `synthetic`."""
    try:
        texts = json.loads(said) if said.startswith("[") else [said]
    except ValueError:
        texts = [said]
    return [text.strip() for text in map(str, texts) if text.strip()]


def read_texts(source: TextSource, data: Path) -> list[str]:
    """Read texts without photos, without doubles, in the file's order.

    Raises:
        DataError: the file or the column is missing.
    """
    path = data / source.file
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
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    unique = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    kept = unique[: source.limit] if source.limit else unique
    if source.plural:
        kept = list(dict.fromkeys(plurals(kept)))
    return [template.format(text) for template in source.templates for text in kept]

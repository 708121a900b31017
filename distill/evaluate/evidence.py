"""Which photos show which label: evidence for fitting thresholds and measuring tags."""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.sources import read_splits
from distill.data.tables import DataError, parse_list, read_table
from mobileclip.errors import one_line
from mobileclip.files import PathLike

SEEN, CALIBRATE, MEASURE = "seen", "calibrate", "measure"


@dataclass(frozen=True)
class LabelEvidence:
    """A label with its prompts and the evidence for it.

    Attributes:
        words: words or phrases; a photo shows the label if a caption contains one.
        classes: `dataset:class` or `dataset:*`; photos of that class show the label.
        unsure: words, classes or `*`; these photos count neither way, unless `words` or `classes` match them.
    """

    name: str
    group: str
    prompts: tuple[str, ...]
    words: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """A labels file: the labels, and the captioned data sets to search for their words."""

    labels: tuple[LabelEvidence, ...]
    captioned: tuple[str, ...]

    @property
    def collections(self) -> set[str]:
        """All data sets in the file."""
        return {entry.split(":")[0] for label in self.labels for entry in label.classes} | set(self.captioned)


@dataclass(frozen=True)
class KnownPhoto:
    """A photo with known classes or captions.

    Attributes:
        path: the file.
        collection: the folder name of its data set.
        classes: its class names, in a labeled data set.
        text: its captions as ` lower case words `, in a captioned data set.
        role: `seen` in training, or held out to `calibrate` or to `measure`.
    """

    path: Path
    collection: str
    classes: tuple[str, ...]
    text: str
    role: str


def read_evidence(path: PathLike) -> Evidence:
    """Read a labels file with evidence.

    Raises:
        DataError: it is missing or malformed, or defines a label twice.
    """
    try:
        table = tomllib.loads(Path(path).read_text("utf-8"))
        captioned = tuple(table.get("captioned", ()))
        labels = tuple(
            LabelEvidence(
                entry["name"],
                entry["group"],
                tuple(entry["prompts"]),
                *(tuple(entry.get("evidence", {}).get(key, ())) for key in ("words", "classes", "unsure")),
            )
            for entry in table["label"]
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a labels file ({one_line(error)})") from error
    names = [label.name for label in labels]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{path}: {sorted(twice)[0]} is defined twice")
    return Evidence(labels, captioned)


def read_known_photos(data: PathLike, collections: Iterable[str]) -> list[KnownPhoto]:
    """Read the data sets in `data` that have labels or captions.

    A data set is a folder with `labels.csv` (`file, label` and optionally `split`), or with `captions.jsonl`
    (`file, caption`) and `splits.csv`. Rows with split `test` were not trained on: half of those in labeled data sets
    calibrate and half measure; those in captioned data sets only measure.

    Raises:
        DataError: a data set is missing.
    """
    photos: list[KnownPhoto] = []
    for name in sorted(set(collections)):
        folder = Path(data) / name
        if (folder / "labels.csv").is_file():
            for row in read_table(folder / "labels.csv", needs=("file", "label")):
                classes = tuple(row["label"].split("|"))
                role = SEEN
                if row.get("split") == "test":
                    role = CALIBRATE if zlib.crc32(row["file"].encode()) % 2 else MEASURE
                photos.append(KnownPhoto(folder / row["file"], name, classes, "", role))
        elif (folder / "captions.jsonl").is_file():
            splits = read_splits(folder / "splits.csv")
            texts: dict[str, list[str]] = {}
            for row in read_table(folder / "captions.jsonl", needs=("file", "caption")):
                texts.setdefault(row["file"], []).extend(parse_list(row["caption"]))
            for file, captions in texts.items():
                role = MEASURE if splits.get(file) == "test" else SEEN
                photos.append(KnownPhoto(folder / file, name, (), _words(" | ".join(captions)), role))
        else:
            raise DataError(f"{folder}: has neither labels.csv nor captions.jsonl")
    return photos


def truth(photos: Sequence[KnownPhoto], labels: Sequence[LabelEvidence]) -> NDArray[np.int8]:
    """Return, for each photo and label (n, labels): 1 shown, 0 not shown, −1 unknown."""
    table = np.zeros((len(photos), len(labels)), dtype=np.int8)
    for column, label in enumerate(labels):
        yes = _matcher(label.words, label.classes)
        perhaps = _matcher(
            [entry for entry in label.unsure if ":" not in entry and entry != "*"],
            [entry for entry in label.unsure if ":" in entry],
        )
        everything = "*" in label.unsure
        for row, photo in enumerate(photos):
            if yes(photo):
                table[row, column] = 1
            elif everything or perhaps(photo):
                table[row, column] = -1
    return table


def _matcher(words: Sequence[str], classes: Sequence[str]) -> Callable[[KnownPhoto], bool]:
    """Return a test: does a caption contain one of the words, or is the photo's class one of the classes?"""
    pattern = re.compile("|".join(re.escape(_words(word)) for word in words)) if words else None
    complete = {entry[:-2] for entry in classes if entry.endswith(":*")}
    named = set(classes)

    def matches(photo: KnownPhoto) -> bool:
        if photo.classes:
            return photo.collection in complete or any(f"{photo.collection}:{c}" in named for c in photo.classes)
        return pattern is not None and pattern.search(photo.text) is not None

    return matches


def _words(text: str) -> str:
    """Return lower-case words with one space around each, so that a substring search matches full words only."""
    return " " + " ".join(re.findall(r"[a-z0-9']+", text.lower())) + " "

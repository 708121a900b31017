"""Which photos show which label: the evidence that thresholds are fitted on and tags are measured against."""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.sources import DataError, read_splits, read_table

SEEN, CALIBRATE, MEASURE = "seen", "calibrate", "measure"


@dataclass(frozen=True)
class LabelEvidence:
    """A label with its prompts and where labelled photos of it are.

    Attributes:
        words: whole words or phrases; a caption that holds one says that the photo shows the label.
        classes: `set:class` or `set:*`; photos of that class show it.
        unsure: words, classes or `*`; such photos count neither way unless `words` or `classes` claim them.
    """

    name: str
    group: str
    prompts: tuple[str, ...]
    words: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """A labels file: the labels, and the captioned sets that their words are looked for in."""

    labels: tuple[LabelEvidence, ...]
    captioned: tuple[str, ...]

    @property
    def collections(self) -> set[str]:
        """Every set of photos that the file names."""
        return {entry.split(":")[0] for label in self.labels for entry in label.classes} | set(self.captioned)


@dataclass(frozen=True)
class KnownPhoto:
    """A photo of which something is known.

    Attributes:
        path: the file.
        collection: name of its set's folder.
        classes: its class names, of a labelled set.
        text: its captions as ` lower case words `, of a captioned set.
        role: `seen` in training, held out to `calibrate`, or held out to `measure`.
    """

    path: Path
    collection: str
    classes: tuple[str, ...]
    text: str
    role: str


def read_evidence(path: Path) -> Evidence:
    """Read a labels file with evidence.

    Raises:
        DataError: it is missing, malformed, or names a label twice.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
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
        raise DataError(f"{path}: not a labels file ({error})") from error
    names = [label.name for label in labels]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{path}: {sorted(twice)[0]} is there twice")
    return Evidence(labels, captioned)


def read_known_photos(data: Path, collections: Iterable[str]) -> list[KnownPhoto]:
    """Read the sets below `data` that carry labels or captions.

    A set is a folder with `labels.csv` (`file, label` and perhaps `split`), or with `captions.jsonl`
    (`file, caption`) and `splits.csv`. Rows of the split `test` were not trained on: those of labelled sets go half
    to calibrating and half to measuring, those of captioned sets are only measured.

    Raises:
        DataError: a set is not there.
    """
    photos: list[KnownPhoto] = []
    for name in sorted(set(collections)):
        folder = data / name
        if (folder / "labels.csv").is_file():
            for row in read_table(folder / "labels.csv"):
                classes = tuple(row["label"].split("|"))
                role = SEEN
                if row.get("split") == "test":
                    role = CALIBRATE if zlib.crc32(row["file"].encode()) % 2 else MEASURE
                photos.append(KnownPhoto(folder / row["file"], name, classes, "", role))
        elif (folder / "captions.jsonl").is_file():
            splits = read_splits(folder / "splits.csv")
            texts: dict[str, list[str]] = {}
            for row in read_table(folder / "captions.jsonl"):
                texts.setdefault(row["file"], []).append(row["caption"])
            for file, said in texts.items():
                role = MEASURE if splits.get(file) == "test" else SEEN
                photos.append(KnownPhoto(folder / file, name, (), _words(" | ".join(said)), role))
        else:
            raise DataError(f"{folder}: neither labels.csv nor captions.jsonl is there")
    return photos


def truth(photos: Sequence[KnownPhoto], labels: Sequence[LabelEvidence]) -> NDArray[np.int8]:
    """Say of each photo and label (n, labels): 1 shown, 0 not shown, −1 not known."""
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
    """A test whether a photo's captions hold one of the words or its class is one of the classes."""
    pattern = re.compile("|".join(re.escape(_words(word)) for word in words)) if words else None
    whole = {entry[:-2] for entry in classes if entry.endswith(":*")}
    named = set(classes)

    def matches(photo: KnownPhoto) -> bool:
        if photo.classes:
            return photo.collection in whole or any(f"{photo.collection}:{c}" in named for c in photo.classes)
        return pattern is not None and pattern.search(photo.text) is not None

    return matches


def _words(text: str) -> str:
    """Lower-case words with one space around each, so that whole words can be found as substrings."""
    return " " + " ".join(re.findall(r"[a-z0-9']+", text.lower())) + " "

"""Which photos show which label: evidence for fitting thresholds and measuring tags."""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.degrade import drawn_degradation
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
        implies: labels that hold whenever this one does.
    """

    name: str
    group: str
    prompts: tuple[str, ...]
    words: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    implies: tuple[str, ...] = ()


@dataclass(frozen=True)
class RollPart:
    """A part of a camera roll, and the data sets that stand for it.

    Attributes:
        shows: what its photos show, for people.
        share: its share of a camera roll's photos.
        sets: the data sets.
    """

    shows: str
    share: float
    sets: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """A labels file.

    Attributes:
        labels: the labels.
        captioned: the captioned data sets to search for their words.
        exclusive: groups of labels of which only the most probable is given.
        roll: what a camera roll consists of: the prior of the thresholds. Empty if each photo counts the same.
        degraded: share of a camera roll's photos that are gray, dark, blurred, brown, tiny or turned. If it is above 0,
            thresholds are fitted to each photo as it is and once more degraded.
        single: data sets whose photos have one label each although more may be visible: they never count against a
            label.
        columns: data set → column of its classes, if it isn't `label`.
    """

    labels: tuple[LabelEvidence, ...]
    captioned: tuple[str, ...]
    exclusive: tuple[tuple[str, ...], ...] = ()
    roll: tuple[RollPart, ...] = ()
    degraded: float = 0.0
    single: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def collections(self) -> set[str]:
        """All data sets in the file."""
        named = {entry.split(":")[0] for label in self.labels for entry in label.classes}
        return named | set(self.captioned) | {name for part in self.roll for name in part.sets}

    def weights(self, photos: Sequence[KnownPhoto]) -> NDArray[np.float64]:
        """Return how much each photo counts (n,), so that each part of the roll has its share.

        Raises:
            DataError: a photo's data set is in no part of the roll.
        """
        seen = np.ones(len(photos))
        if self.degraded:
            seen = np.array([self.degraded if photo.degraded else 1 - self.degraded for photo in photos])
        return seen * self._part_weights(photos) if self.roll else seen

    def _part_weights(self, photos: Sequence[KnownPhoto]) -> NDArray[np.float64]:
        part_of = {name: number for number, part in enumerate(self.roll) for name in part.sets}
        if lost := {photo.collection for photo in photos} - part_of.keys():
            raise DataError(f"the labels file doesn't say which part of a camera roll {sorted(lost)[0]} stands for")
        parts = np.array([part_of[photo.collection] for photo in photos], np.int64)
        counts = np.bincount(parts, minlength=len(self.roll))
        shares = np.array([part.share for part in self.roll])
        weights: NDArray[np.float64] = (shares / np.maximum(counts, 1))[parts]
        return weights

    def views(self, photos: Sequence[KnownPhoto]) -> list[KnownPhoto]:
        """Return the photos, each followed by itself degraded if the file has `degraded`."""
        if not self.degraded:
            return list(photos)
        return [
            view for photo in photos for view in (photo, replace(photo, degraded=drawn_degradation(photo.path.name)))
        ]


@dataclass(frozen=True)
class KnownPhoto:
    """A photo with known classes or captions.

    Attributes:
        path: the file.
        collection: the folder name of its data set.
        classes: its class names, in a labeled data set.
        text: its captions as ` lower case words `, in a captioned data set.
        role: `seen` in training, or held out to `calibrate` or to `measure`.
        degraded: what befalls it before it is encoded, see `distill.data.degrade`; "" for nothing.
    """

    path: Path
    collection: str
    classes: tuple[str, ...]
    text: str
    role: str
    degraded: str = ""


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
                implies=tuple(entry.get("implies", ())),
                **{key: tuple(entry.get("evidence", {}).get(key, ())) for key in ("words", "classes", "unsure")},
            )
            for entry in table["label"]
        )
        exclusive = tuple(tuple(group) for group in table.get("exclusive", ()))
        roll = tuple(
            RollPart(part["shows"], float(part["share"]), tuple(part["sets"])) for part in table.get("roll", ())
        )
        degraded, single = float(table.get("degraded", 0)), tuple(table.get("single", ()))
        columns = {str(name): str(column) for name, column in table.get("columns", {}).items()}
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a labels file ({one_line(error)})") from error
    names = [label.name for label in labels]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{path}: {sorted(twice)[0]} is defined twice")
    if roll and (min(part.share for part in roll) <= 0 or abs(sum(part.share for part in roll) - 1) > 0.001):
        raise DataError(f"{path}: the shares of [[roll]] must be above 0 and add up to 1")
    if not 0 <= degraded < 1:
        raise DataError(f"{path}: degraded must lie in [0, 1)")
    return Evidence(labels, captioned, exclusive, roll, degraded, single, columns)


def read_known_photos(data: PathLike, evidence: Evidence) -> list[KnownPhoto]:
    """Read the data sets in `data` that a labels file names.

    A data set is a folder with `labels.csv` (`file, label` and optionally `split`), or with `captions.jsonl`
    (`file, caption`) and `splits.csv`. Rows with split `test` were not trained on: half of those in labeled data sets
    calibrate and half measure; those in captioned data sets only measure.

    Raises:
        DataError: a data set is missing.
    """
    photos: list[KnownPhoto] = []
    for name in sorted(evidence.collections):
        folder = Path(data) / name
        if (folder / "labels.csv").is_file():
            column = evidence.columns.get(name, "label")
            for row in read_table(folder / "labels.csv", needs=("file", column)):
                classes = tuple(row[column].split("|"))
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


def truth(photos: Sequence[KnownPhoto], evidence: Evidence) -> NDArray[np.int8]:
    """Return, for each photo and label (n, labels): 1 shown, 0 not shown, −1 unknown."""
    unseen = [-1 if photo.collection in evidence.single else 0 for photo in photos]
    table = np.repeat(np.array(unseen, np.int8)[:, None], len(evidence.labels), axis=1)
    for column, label in enumerate(evidence.labels):
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

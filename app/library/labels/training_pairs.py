"""Decisions as training data: a table of photos and labels that `pocketclip train` reads as it is.

One row a photo with at least one ✓: `file`, `label` (several joined by `|`) and `rejected`, the labels with ✗, which
the trainer leaves alone and a person or a script may use. In a recipe:

    [[photos]]
    name = "mine"
    kind = "labels"
    file = "corrections.jsonl"
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.library.errors import LibraryError
from app.library.labels.corrections import Correction

SUFFIXES = (".jsonl", ".csv", ".tsv")
_COLUMNS = ("file", "label", "rejected")


@dataclass(frozen=True)
class Exported:
    """How many photos were written, and how many were not: only ✗, not in the index now, a name that is no text."""

    written: int
    only_rejected: int
    away: int
    unnamed: int


def export(corrections: Iterable[Correction], names: Mapping[str, str], out: Path) -> Exported:
    """Write a table beside which or anywhere the photos may lie; a file of that name is replaced as a whole.

    Args:
        corrections: all decisions, those on one photo one after another.
        names: label → what to call it in a text where the name says little, as that of a person's own label may.
        out: where to; its ending chooses the format.

    Raises:
        LibraryError: another ending, or the file cannot be written.
    """
    if out.suffix not in SUFFIXES:
        raise LibraryError(f"{out}: the name must end in {', '.join(SUFFIXES)}")
    photos: dict[str, tuple[tuple[str, ...], list[str], list[str]]] = {}
    for correction in corrections:
        _, given, rejected = photos.setdefault(correction.key, (correction.paths, [], []))
        label = names.get(correction.label, correction.label)
        (given if correction.verdict else rejected).append(label.replace("|", " "))
    rows, only_rejected, away, unnamed = [], 0, 0, 0
    for paths, given, rejected in photos.values():
        if not paths:
            away += 1
        elif not given:
            only_rejected += 1
        elif out.suffix != ".jsonl" and not _is_text(paths[0]):
            unnamed += 1
        else:
            rows.append({"file": _seen_from(out, paths[0]), "label": "|".join(given), "rejected": "|".join(rejected)})
    _replace(out, _table(rows, out.suffix))
    return Exported(len(rows), only_rejected, away, unnamed)


def _seen_from(out: Path, path: str) -> str:
    """The photo's path, from the folder of the table where it lies below."""
    folder = Path(os.path.abspath(out)).parent  # noqa: PTH100 (resolve() would follow links)
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _table(rows: list[dict[str, str]], suffix: str) -> bytes:
    if suffix == ".jsonl":
        # In ASCII, a byte that is no text is an escape like any other, and comes back as it was.
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _replace(out: Path, data: bytes) -> None:
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}-", suffix=".part", dir=out.parent)
    except OSError as error:
        raise LibraryError(f"{out} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(out)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise LibraryError(f"{out} cannot be written: {error.strerror}") from None
        raise

"""Export corrections as training data: a table of photos and labels that `pocketclip train` can read.

One row for each photo with at least one accepted label: `file`, `label` (several are joined by `|`) and `rejected`, the
rejected labels, which the trainer ignores and a person or a script may use. In a recipe:

    [[photos]]
    name = "mine"
    kind = "labels"
    file = "corrections.jsonl"
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.library.errors import LibraryError
from app.library.store.corrections import Correction
from mobileclip.files import PathLike, write_bytes

SUFFIXES = (".jsonl", ".csv", ".tsv")
_COLUMNS = ("file", "label", "rejected")


@dataclass(frozen=True)
class Exported:
    """How many photos were written, and how many were not.

    Attributes:
        written: with at least one accepted label.
        only_rejected: without an accepted label.
        away: not in the index now.
        unnamed: the table can't hold their path, because it is not valid text.
    """

    written: int
    only_rejected: int
    away: int
    unnamed: int


def export(corrections: Iterable[Correction], names: Mapping[str, str], path: PathLike) -> Exported:
    """Write a table of all corrected photos, wherever they are; a file of that name is replaced as a whole.

    Args:
        corrections: all decisions, those on one photo one after another.
        names: label → what to call it in a text, for names that say little, such as those of custom labels.
        path: the file to write; its suffix chooses the format, one of SUFFIXES.

    Raises:
        LibraryError: another suffix, or the file cannot be written.
    """
    out = Path(path)
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
            rows.append({"file": _relative(out, paths[0]), "label": "|".join(given), "rejected": "|".join(rejected)})
    try:
        write_bytes(out, _table(rows, out.suffix))
    except OSError as error:
        raise LibraryError(f"{out} cannot be written: {error.strerror}") from None
    return Exported(len(rows), only_rejected, away, unnamed)


def _relative(out: Path, path: str) -> str:
    """The photo's path, relative to the folder of the table if the photo is below it."""
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
        # ASCII with escapes also preserves bytes that are not valid text.
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()

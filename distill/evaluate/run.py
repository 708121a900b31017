"""Measure retrieval, zero-shot classification and tagging on files of captions or labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.sources import read_splits, readable_name
from distill.data.tables import DataError, parse_list, read_lines, read_table
from distill.evaluate.encoders import DualEncoder
from distill.evaluate.evidence import MEASURE, read_evidence, read_known_photos, truth
from distill.evaluate.limits import measure_limits
from distill.evaluate.metrics import classification, retrieval
from distill.evaluate.photos import PhotoProgress, encode_photos
from distill.evaluate.queries import query_overlap
from distill.evaluate.tagging import ENOUGH, Scores, Truth, tagging
from mobileclip.files import PathLike
from mobileclip.vectors import Floats
from mobileclip.zeroshot import TEMPLATES, average_prompts, expand


def evaluate_captions(
    encoder: DualEncoder,
    file: PathLike,
    splits: PathLike | None = None,
    split: str | None = None,
    limits: bool = False,
    progress: PhotoProgress | None = None,
    queries: PathLike | None = None,
) -> dict[str, Any]:
    """Measure retrieval on a captions file (`file, caption`; a photo may have several).

    Args:
        encoder: the model.
        file: JSONL, CSV or TSV; photo paths are relative to it.
        splits: a `file,split` table, if the captions have no `split` column.
        split: the split to measure on; None for all.
        limits: also measure known limits of CLIP, see `distill.evaluate.limits`.
        progress: called with the number of photos done and the total.
        queries: a table of pairs of queries that mean the same, see `distill.evaluate.queries`; None for none.

    Returns:
        `n_photos`, `n_captions`, `n_failed` (photos that can't be read), what `retrieval` returns, and `limits` and
        `queries` if measured.

    Raises:
        DataError: a column is missing, or no photo is left to measure.
    """
    file = Path(file)
    rows = _of_split(_rows(file, "caption"), file, splits, split)
    position: dict[str, int] = {}
    pairs = [
        (position.setdefault(row["file"], len(position)), caption)
        for row in rows
        for caption in parse_list(row["caption"])
    ]
    if not pairs:
        raise DataError(f"{file}: no row has a caption")
    vectors, kept, failed = _encoded(encoder, file, [file.parent / name for name in position], progress)
    row_of = {number: row for row, number in enumerate(kept)}
    pairs = [(row_of[number], caption) for number, caption in pairs if number in row_of]
    owner, captions = [row for row, _ in pairs], [caption for _, caption in pairs]
    texts = encoder.encode_texts(captions)
    result: dict[str, Any] = {"n_photos": len(kept), "n_captions": len(pairs), "n_failed": failed}
    result.update(retrieval(vectors, texts, owner))
    if limits:
        result["limits"] = measure_limits(encoder, vectors, texts, captions, owner)
    if queries is not None:
        result["queries"] = query_overlap(encoder, queries, vectors)
    return result


def evaluate_labels(
    encoder: DualEncoder,
    file: PathLike,
    splits: PathLike | None = None,
    split: str | None = None,
    column: str = "label",
    templates: Sequence[str] = TEMPLATES,
    progress: PhotoProgress | None = None,
) -> dict[str, Any]:
    """Measure zero-shot classification on a labels file (`file, label`; several labels joined by `|`).

    The classes are all labels in the file, in any split; `hot_dog` and `Hot dog` are one. Each is described by the
    templates, averaged as in open_clip.

    Returns:
        `n`, `classes`, `n_failed`, and what `classification` returns.

    Raises:
        DataError: a column is missing, or no photo is left to measure.
    """
    file = Path(file)
    every = [row for row in _rows(file, column) if _names(row[column])]
    names = sorted({name for row in every for name in _names(row[column])})
    rows = _of_split(every, file, splits, split)
    number = {name: i for i, name in enumerate(names)}
    classes = class_vectors(encoder, names, templates)
    vectors, kept, failed = _encoded(encoder, file, [file.parent / row["file"] for row in rows], progress)
    labels = [sorted({number[name] for name in _names(rows[i][column])}) for i in kept]
    return {"n": len(kept), "classes": len(names), "n_failed": failed, **classification(vectors, classes, labels)}


def evaluate_tags(
    encoder: DualEncoder,
    file: PathLike,
    splits: PathLike | None = None,
    split: str | None = None,
    column: str = "label",
    templates: Sequence[str] = TEMPLATES,
    progress: PhotoProgress | None = None,
) -> dict[str, Any]:
    """Measure tagging on a table (`file, label`; several labels joined by `|`, or in several rows).

    The table must be complete: a photo shows none of the table's other labels. Labels that the model knows by name
    are decided by its own vectors and thresholds. Other labels, and all labels of a checkpoint, are described by the
    templates and only ranked.

    Returns:
        `n`, `n_failed`, and what `tagging` returns.

    Raises:
        DataError: a column is missing, or no photo is left to measure.
    """
    file = Path(file)
    every = _rows(file, column)
    names = sorted({name for row in every for name in _names(row[column])})
    number = {name: i for i, name in enumerate(names)}
    shown: dict[str, set[int]] = {}
    for row in _of_split(every, file, splits, split):
        shown.setdefault(row["file"], set()).update(number[name] for name in _names(row[column]))
    known = np.zeros((len(shown), len(names)), np.int8)
    for row_number, labels in enumerate(shown.values()):
        known[row_number, sorted(labels)] = 1
    prompts = [expand(name, templates) for name in names]
    paths = [file.parent / name for name in shown]
    return _measure_tags(encoder, file, paths, known, names, prompts, 1, progress)


def evaluate_evidence(
    encoder: DualEncoder, file: PathLike, data: PathLike, progress: PhotoProgress | None = None
) -> dict[str, Any]:
    """Measure tagging as `pocketclip export` does: on the held-out photos of the data sets in a labels file.

    Args:
        encoder: the model. Labels that it doesn't know are described by the file's prompts and only ranked.
        file: a labels file with evidence, .toml.
        data: the folder of these data sets.
        progress: called with the number of photos done and the total.

    Returns:
        The same as `evaluate_tags`, without labels that fewer than 5 photos show.

    Raises:
        DataError: the file or a data set is missing or malformed, or has no held-out photos.
    """
    file = Path(file)
    evidence = read_evidence(file)
    photos = [photo for photo in read_known_photos(Path(data), evidence) if photo.role == MEASURE]
    if not photos:
        raise DataError(f"{file}: none of its data sets in {data} has photos with split `test`")
    names, prompts = [label.name for label in evidence.labels], [label.prompts for label in evidence.labels]
    known = truth(photos, evidence)
    return _measure_tags(encoder, file, [photo.path for photo in photos], known, names, prompts, ENOUGH, progress)


def has_all_labels(file: PathLike) -> bool:
    """Return whether a table has a column `unsure`, so that it has all labels of each photo.

    Raises:
        DataError: the table can't be read.
    """
    first = next(iter(read_table(file)), None)
    return first is not None and "unsure" in first


def class_vectors(encoder: DualEncoder, names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Floats:
    """Return one unit vector per class name (c, d): the average over all templates."""
    prompts = [text for name in names for text in expand(name, templates)]
    vectors = encoder.encode_texts(prompts).reshape(len(names), len(templates), -1)
    return average_prompts(vectors)


def read_templates(file: PathLike) -> tuple[str, ...]:
    """Read prompt templates, one per line, with `{}` (or CLIP_benchmark's `{c}`) for the class name.

    Raises:
        DataError: the file can't be read or is empty, or a line has no placeholder.
    """
    lines = [line.strip().replace("{c}", "{}") for line in read_lines(file)]
    templates = tuple(line for line in lines if line)
    if wrong := [line for line in templates if "{}" not in line]:
        raise DataError(f"{file}: no {{}} for the class name in {wrong[0]!r}")
    if not templates:
        raise DataError(f"{file}: contains no template")
    return templates


def _measure_tags(
    encoder: DualEncoder,
    file: Path,
    paths: Sequence[Path],
    known: Truth,
    names: Sequence[str],
    prompts: Sequence[Sequence[str]],
    least: int,
    progress: PhotoProgress | None,
) -> dict[str, Any]:
    position = {readable_name(label.name): i for i, label in enumerate(encoder.labels)}
    found = [position.get(readable_name(name), -1) for name in names]
    rows = [
        encoder.label_vectors[i] if i >= 0 else average_prompts(encoder.encode_texts(list(texts)))
        for i, texts in zip(found, prompts, strict=True)
    ]
    vectors, kept, failed = _encoded(encoder, file, paths, progress)
    cosines: Floats = vectors @ np.stack(rows).T
    scores: Scores | None = None
    given = None
    if len(encoder.labels):
        decided, probabilities = encoder.labels.give(vectors @ encoder.label_vectors.T)
        scores = np.where(np.array(found) >= 0, probabilities[:, found], np.nan)
        given = decided[:, found] & (np.array(found) >= 0)
    return {"n": len(kept), "n_failed": failed, **tagging(cosines, known[kept], scores, least, given)}


def _encoded(
    encoder: DualEncoder, file: Path, paths: Sequence[Path], progress: PhotoProgress | None
) -> tuple[Floats, list[int], int]:
    """Return vectors of the readable photos, their positions, and the number of unreadable photos."""
    vectors, kept, errors = encode_photos(encoder, paths, progress)
    if not kept:
        raise DataError(f"{file}: none of its photos can be read ({errors[0]})")
    return vectors, kept, len(errors)


def _names(label: str) -> list[str]:
    """Return the readable names of the classes in a cell, each once."""
    names = (readable_name(name) for cell in parse_list(label) for name in cell.split("|"))
    return list(dict.fromkeys(name for name in names if name))


def _rows(file: Path, column: str) -> list[dict[str, str]]:
    rows = list(read_table(file, needs=("file", column)))
    if not rows:
        raise DataError(f"{file}: has no rows, only the columns")
    return rows


def _of_split(
    rows: list[dict[str, str]], file: Path, splits: PathLike | None, split: str | None
) -> list[dict[str, str]]:
    if not split:
        return rows
    of = read_splits(Path(splits)) if splits else {row["file"]: row.get("split", "") for row in rows}
    kept = [row for row in rows if of.get(row["file"]) == split]
    if not kept:
        raise DataError(f"{file}: no row with split `{split}`")
    return kept

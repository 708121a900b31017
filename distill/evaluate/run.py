"""Retrieval and zero-shot classification on files of captions or labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.data.sources import DataError, read_splits, read_table, spoken
from distill.evaluate.limits import measure_limits
from distill.evaluate.metrics import classification, retrieval
from distill.evaluate.model import Encoder, Floats
from distill.evaluate.photos import encode_photos
from mobileclip.zeroshot import TEMPLATES, average_prompts, expand

Report = Callable[[int, int], None]


def evaluate_captions(
    encoder: Encoder,
    file: Path,
    splits: Path | None = None,
    split: str | None = None,
    limits: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Measure retrieval on a captions file (`file, caption`; several lines a photo).

    Args:
        encoder: the model.
        file: JSONL, CSV or TSV; photo paths are relative to it.
        splits: a `file,split` table, where the captions carry no `split` themselves.
        split: the split to measure on.
        limits: also measure what CLIP is known to be bad at, see `distill.evaluate.limits`.
        report: called with (done, total) photos.

    Returns:
        `n_photos`, `n_captions`, `text_to_photo`, `photo_to_text`, `n_failed` photos that could not be read, and
        perhaps `limits`.

    Raises:
        DataError: a column is missing or nothing is left to measure.
    """
    rows = _rows(file, "caption", splits, split)
    position: dict[str, int] = {}
    pairs = [(position.setdefault(row["file"], len(position)), row["caption"]) for row in rows]
    vectors, kept, errors = encode_photos(encoder, [file.parent / name for name in position], report)
    row_of = {number: row for row, number in enumerate(kept)}
    pairs = [(row_of[number], caption) for number, caption in pairs if number in row_of]
    if not pairs:
        raise DataError(f"{file}: no photo of it can be read ({errors[0]})")
    owner, captions = [row for row, _ in pairs], [caption for _, caption in pairs]
    texts = encoder.encode_texts(captions)
    result: dict[str, Any] = {"n_photos": len(kept), "n_captions": len(pairs), "n_failed": len(errors)}
    result.update(retrieval(vectors, texts, owner))
    if limits:
        result["limits"] = measure_limits(encoder, vectors, texts, captions, owner)
    return result


def evaluate_labels(
    encoder: Encoder,
    file: Path,
    splits: Path | None = None,
    split: str | None = None,
    column: str = "label",
    report: Report | None = None,
) -> dict[str, Any]:
    """Measure zero-shot classification on a labels file (`file, label`; several labels joined by `|`).

    Every class is described by the templates of `mobileclip.zeroshot`, averaged as open_clip does.

    Returns:
        `n`, `classes`, `top1`, `top5`, `mean_per_class`, and `n_failed`.

    Raises:
        DataError: a column is missing or nothing is left to measure.
    """
    rows = _rows(file, column, splits, split)
    names = sorted({part for row in rows for part in row[column].split("|")})
    number = {name: i for i, name in enumerate(names)}
    classes = class_vectors(encoder, [spoken(name) for name in names])
    vectors, kept, errors = encode_photos(encoder, [file.parent / row["file"] for row in rows], report)
    if not kept:
        raise DataError(f"{file}: no photo of it can be read ({errors[0]})")
    labels = [[number[part] for part in rows[i][column].split("|")] for i in kept]
    return {
        "n": len(kept),
        "classes": len(names),
        "n_failed": len(errors),
        **classification(vectors, classes, labels),
    }


def class_vectors(encoder: Encoder, names: list[str]) -> Floats:
    """Return one unit vector a class name, (c, d): the average over all templates."""
    prompts = [text for name in names for text in expand(name, TEMPLATES)]
    vectors = encoder.encode_texts(prompts).reshape(len(names), len(TEMPLATES), -1)
    return average_prompts(vectors)


def _rows(file: Path, column: str, splits: Path | None, split: str | None) -> list[dict[str, str]]:
    rows = list(read_table(file))
    if not rows or "file" not in rows[0] or column not in rows[0]:
        raise DataError(f"{file}: the columns `file` and `{column}` are needed")
    if split:
        of = read_splits(splits) if splits else {row["file"]: row.get("split", "") for row in rows}
        rows = [row for row in rows if of.get(row["file"]) == split]
        if not rows:
            raise DataError(f"{file}: no row in the split `{split}`")
    return rows

"""Measure tags as people meet them: on photos whose labels are all known, also after what befalls photos."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distill.data.degrade import DEGRADATIONS
from distill.data.sources import readable_name
from distill.data.tables import DataError, parse_list, read_table
from distill.evaluate.encoders import DualEncoder
from distill.evaluate.metrics import bootstrap, share
from distill.evaluate.photos import PhotoProgress, encode_photos
from distill.evaluate.tagging import Truth, tagging
from distill.files import write_whole
from mobileclip.files import PathLike
from mobileclip.photos import open_photo
from mobileclip.zeroshot import TAG_PROBABILITY, LabelSet

PEOPLE = "people"
"""The group of the labels of people."""
SCORE_BIN = 0.1
THUMBNAIL = 180
MOST_MISTAKES = 120


@dataclass(frozen=True)
class LabeledPhotos:
    """Photos with all of their labels.

    Attributes:
        paths: the photos.
        truth: (photos, labels of a model): 1 shown, 0 not shown, −1 for labels that could be given or not.
        unknown: labels of the table that the model doesn't have.
    """

    paths: Sequence[Path]
    truth: Truth
    unknown: Sequence[str]


def read_labeled(file: PathLike, photos: PathLike | None, labels: LabelSet) -> LabeledPhotos:
    """Read a table with the columns `file`, `label` and `unsure`; the latter two hold several labels, joined by `|`.

    Args:
        file: the table.
        photos: the folder that its paths are relative to; by default its own.
        labels: the model's. Of these, a photo shows none but those in `label`, and perhaps those in `unsure`.

    Raises:
        DataError: the table is missing, lacks a column or has no rows.
    """
    folder = Path(file).parent if photos is None else Path(photos)
    row_of = {readable_name(label.name): row for row, label in enumerate(labels)}
    rows = list(read_table(file, needs=("file", "label", "unsure")))
    if not rows:
        raise DataError(f"{file}: has no rows, only the columns")
    truth = np.zeros((len(rows), len(labels)), np.int8)
    unknown: dict[str, None] = {}
    for number, row in enumerate(rows):
        for column, value in (("unsure", -1), ("label", 1)):
            for name in (part for cell in parse_list(row[column]) for part in cell.split("|") if part.strip()):
                if (label := row_of.get(readable_name(name))) is None:
                    unknown[readable_name(name)] = None
                else:
                    truth[number, label] = value
    return LabeledPhotos([folder / row["file"] for row in rows], truth, list(unknown))


def evaluate_camera_roll(
    encoder: DualEncoder,
    file: PathLike,
    photos: PathLike | None = None,
    report: PathLike | None = None,
    progress: PhotoProgress | None = None,
) -> dict[str, Any]:
    """Measure a bundle's tags on photos whose labels are all known, see `read_labeled`.

    Args:
        encoder: the model.
        file: the table.
        photos: the folder that its paths are relative to; by default its own.
        report: where to write a page with the wrong tags and their photos; None for no page.
        progress: called with the number of photos done and the total, over all views.

    Returns:
        What `tagging` returns, but `precision`, `recall` and `tags_per_photo` over all labels, those that no photo
        shows included; `n`, `n_failed`; `labels_unknown`, how many labels of the table the model doesn't have;
        `people_without`, the share of the photos without people that get a tag of people; `shown_at`: score → how many
        tags were shown with it, the share that is right, and its interval; and `views`: for the photos as they are and
        after each of `DEGRADATIONS`, `precision`, `recall`, `people_without` and `tags_per_photo`.

    Raises:
        DataError: the table is missing or malformed, no photo can be read, or the model has no thresholds.
    """
    file = Path(file)
    if not len(encoder.labels):
        raise DataError(
            f"{file}: tags with all their labels known are measured by a bundle's thresholds; name a bundle"
        )
    table = read_labeled(file, photos, encoder.labels)
    views = ("", *DEGRADATIONS)
    count = len(table.paths)
    result: dict[str, Any] = {}
    by_view: dict[str, dict[str, float]] = {}
    for number, view in enumerate(views):

        def report_view(done: int, _: int, before: int = number * count) -> None:
            if progress:
                progress(before + done, count * len(views))

        vectors, kept, errors = encode_photos(encoder, table.paths, report_view, [view] * count)
        if not kept:
            raise DataError(f"{file}: none of its photos can be read ({errors[0]})")
        truth = table.truth[kept]
        given, scores = encoder.labels.give(vectors @ encoder.label_vectors.T)
        rates = _rates(encoder.labels, given, truth)
        everything = np.arange(len(kept))
        by_view[view or "as they are"] = {name: rate(everything) for name, rate in rates.items()}
        if not view:
            figures = tagging(vectors @ encoder.label_vectors.T, truth, scores, 1, given)
            # `tagging` leaves out labels that no photo shows; here, their tags are known to be wrong.
            intervals = figures.pop("intervals") | {name: bootstrap(len(kept), rate) for name, rate in rates.items()}
            result = {
                "n": len(kept),
                "n_failed": len(errors),
                "labels_unknown": len(table.unknown),
                **figures,
                **by_view["as they are"],
                "shown_at": _shown_at(given, scores, truth),
                "intervals": intervals,
            }
            if report is not None:
                mistakes = _mistakes([table.paths[i] for i in kept], encoder.labels, given, scores, truth)
    result["views"] = by_view
    if report is not None:
        write_page(report, file.name, result, mistakes)
    return result


def _rates(labels: LabelSet, given: NDArray[np.bool_], truth: Truth) -> dict[str, Any]:
    """Return the rates of one view, each as a function of the photos drawn."""
    known, right = truth >= 0, truth == 1
    people = np.array([label.group == PEOPLE for label in labels])
    without = ~(truth[:, people] != 0).any(axis=1)
    hits = (given & right).sum(axis=1)
    return {
        "precision": share(hits, (given & known).sum(axis=1)),
        "recall": share(hits, right.sum(axis=1)),
        "people_without": share(without & given[:, people].any(axis=1), without),
        "tags_per_photo": share(given.sum(axis=1), np.ones(len(given))),
    }


def _shown_at(given: NDArray[np.bool_], scores: NDArray[np.float64], truth: Truth) -> dict[str, Any]:
    """Return how many of the tags shown with a score are right, for each tenth of the scores."""
    found: dict[str, Any] = {}
    for low in np.arange(TAG_PROBABILITY, 1, SCORE_BIN):
        high = low + SCORE_BIN
        shown = given & (truth >= 0) & (scores >= low) & ((scores < high) | (high > 1 - 1e-9))
        right = shown & (truth == 1)
        if shown.any():
            rate = share(right.sum(axis=1), shown.sum(axis=1))
            found[f"{low:.1f}–{high:.1f}"] = {
                "n": int(shown.sum()),
                "accuracy": rate(np.arange(len(given))),
                "interval": bootstrap(len(given), rate),
            }
    return found


@dataclass(frozen=True)
class Mistake:
    """A wrong tag.

    Attributes:
        path: the photo.
        label: the tag.
        score: its probability.
        right: the labels that the photo shows.
    """

    path: Path
    label: str
    score: float
    right: Sequence[str]


def _mistakes(
    paths: Sequence[Path], labels: LabelSet, given: NDArray[np.bool_], scores: NDArray[np.float64], truth: Truth
) -> list[Mistake]:
    """Return the wrong tags, the most confident first."""
    names = [label.name for label in labels]
    wrong = np.argwhere(given & (truth == 0))
    found = [
        Mistake(
            paths[photo],
            names[label],
            float(scores[photo, label]),
            [names[i] for i in np.flatnonzero(truth[photo] == 1)],
        )
        for photo, label in wrong.tolist()
    ]
    return sorted(found, key=lambda mistake: -mistake.score)


def write_page(path: PathLike, title: str, result: dict[str, Any], mistakes: Sequence[Mistake]) -> None:
    """Write a page with a model's figures and its most confident mistakes; it holds the photos and needs no network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from distill.evaluate.tables import counts, grids

    environment = Environment(
        loader=PackageLoader("distill", "."), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    page = environment.get_template("evaluate/mistakes.html").render(
        title=title,
        counts=counts(result),
        grids=grids(result),
        total=len(mistakes),
        mistakes=[(mistake, _thumbnail(mistake.path)) for mistake in mistakes[:MOST_MISTAKES]],
    )
    write_whole(Path(path), lambda stream: stream.write(page.encode("utf-8")))


def _thumbnail(path: Path) -> str:
    """Return a small picture as a data URL."""
    photo: Image.Image = ImageOps.contain(open_photo(path, min_side=2 * THUMBNAIL), (THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()

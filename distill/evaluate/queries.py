"""Measure whether a search finds the same photos however a query is typed."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill.data.tables import DataError, read_table
from distill.evaluate.encoders import DualEncoder
from distill.evaluate.metrics import bootstrap, share
from mobileclip.files import PathLike
from mobileclip.vectors import Floats

SEEN = 10
"""Photos that people look at first."""
ALL = "all of them"


def query_overlap(encoder: DualEncoder, file: PathLike, photos: Floats) -> dict[str, Any]:
    """Measure how many of the first ten photos two ways to type a query have in common.

    Args:
        encoder: the model.
        file: a table with the columns `kind` (what differs, such as `typo`), `query` and `variant`.
        photos: unit vectors of the photos to search, (n, d), n above 10.

    Returns:
        For each kind and for all pairs: `n`, the number of pairs; `accuracy`, the mean share of photos in common; and
        its `interval` over pairs.

    Raises:
        DataError: the table is missing, lacks a column or is empty.
    """
    rows = list(read_table(file, needs=("kind", "query", "variant")))
    if not rows:
        raise DataError(f"{file}: has no rows, only the columns")
    found = [_first(encoder.encode_texts([row[column] for row in rows]), photos) for column in ("query", "variant")]
    overlap = np.array([len(set(one) & set(other)) / SEEN for one, other in zip(*found, strict=True)])
    kinds = np.array([row["kind"] for row in rows])
    groups = {kind: kinds == kind for kind in dict.fromkeys(kinds.tolist())} | {ALL: np.ones(len(rows), bool)}
    result: dict[str, Any] = {}
    for name, chosen in groups.items():
        rate = share(overlap[chosen], np.ones(int(chosen.sum())))
        count = int(chosen.sum())
        result[name] = {"n": count, "accuracy": rate(np.arange(count)), "interval": bootstrap(count, rate)}
    return result


def _first(queries: Floats, photos: Floats) -> list[list[int]]:
    """Return the photos nearest to each query."""
    return [np.argsort(-(photos @ query), kind="stable")[:SEEN].tolist() for query in queries]

"""The table `corrections`: what a person decided on the labels of photos.

A decision belongs to the hash of the photo's content. It outlives a new bundle, a move, a copy, and the photo's removal
from the index; only the person undoes it.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.library.store.connection import Store
from app.library.store.vectors import from_bytes
from mobileclip.vectors import Floats


@dataclass(frozen=True, slots=True)
class Correction:
    """One decision.

    Attributes:
        paths: of the photos with this content that are in the index now; often one, none if they were removed.
        key: the content's hash in hex.
        label: what was decided on.
        verdict: True for accepted, False for rejected.
        decided_at: Unix seconds.
    """

    paths: tuple[str, ...]
    key: str
    label: str
    verdict: bool
    decided_at: float


def put_correction(store: Store, content_hash: bytes, label: str, verdict: bool) -> None:
    """Record a decision in place of an earlier one on the same label and content."""
    store.sql.execute(
        "INSERT INTO corrections VALUES (?, ?, ?, ?) ON CONFLICT (hash, label) DO UPDATE SET"
        " verdict = excluded.verdict, decided_at = excluded.decided_at",
        (content_hash, label, verdict, time.time()),
    )


def remove_correction(store: Store, content_hash: bytes, label: str) -> None:
    """Forget a decision."""
    store.sql.execute("DELETE FROM corrections WHERE (hash, label) = (?, ?)", (content_hash, label))


def remove_corrections_of_label(store: Store, label: str) -> None:
    """Forget all decisions on a label."""
    store.sql.execute("DELETE FROM corrections WHERE label = ?", (label,))


def list_corrections(store: Store) -> Iterator[Correction]:
    """All decisions, by the photo's first path and by label; those of photos that are not in the index come last."""
    rows = store.sql.execute(
        "SELECT k.hash, k.label, k.verdict, k.decided_at, (SELECT min(p.path) FROM photos p"
        " JOIN contents c ON c.id = p.content_id WHERE c.hash = k.hash) AS first FROM corrections k"
        " ORDER BY first IS NULL, first, k.hash, k.label"
    ).fetchall()
    paths = "SELECT p.path FROM photos p JOIN contents c ON c.id = p.content_id WHERE c.hash = ? ORDER BY p.path"
    for key, label, verdict, decided_at, _ in rows:
        held = tuple(os.fsdecode(path) for (path,) in store.sql.execute(paths, (key,)))
        yield Correction(held, key.hex(), label, bool(verdict), decided_at)


def corrected_contents(store: Store, label: str | None = None) -> set[tuple[int, str]]:
    """(content id, label) of all decisions, or of those on one label."""
    query = "SELECT c.id, k.label FROM corrections k JOIN contents c ON c.hash = k.hash"
    if label is None:
        return set(store.sql.execute(query).fetchall())
    return set(store.sql.execute(f"{query} WHERE k.label = ?", (label,)).fetchall())


def rejected_labels(store: Store, photo_id: int) -> list[str]:
    """The labels that a person rejected on a photo, sorted."""
    query = (
        "SELECT k.label FROM photos p JOIN contents c ON c.id = p.content_id JOIN corrections k ON k.hash = c.hash"
        " WHERE p.id = ? AND k.verdict = 0 ORDER BY k.label"
    )
    return [row[0] for row in store.sql.execute(query, (photo_id,))]


def corrected_vectors(store: Store, model_id: int, dim: int) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """Label → unit rows (n, dim) and verdicts (n,) of the contents that a person decided on, for one model."""
    rows = store.sql.execute(
        "SELECT k.label, k.verdict, v.vector FROM corrections k JOIN contents c ON c.hash = k.hash"
        " JOIN vectors v ON v.content_id = c.id AND v.model_id = ? ORDER BY k.label, k.hash",
        (model_id,),
    )
    found: dict[str, tuple[list[bytes], list[int]]] = {}
    for label, verdict, vector in rows:
        vectors, verdicts = found.setdefault(label, ([], []))
        vectors.append(vector)
        verdicts.append(verdict)
    return {
        label: (from_bytes(b"".join(vectors), dim), np.array(verdicts, dtype=np.bool_))
        for label, (vectors, verdicts) in found.items()
    }

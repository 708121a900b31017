"""The tables `own_labels` and `own_fits`: a person's custom labels, and how each was fitted to each model."""

import json
import time
from dataclasses import dataclass

import numpy as np

from app.library.store.connection import Store
from mobileclip.vectors import Floats


@dataclass(frozen=True)
class CustomLabel:
    """A label that a person made: its name, the phrases that describe it, and 0 (strict) … 1 (generous)."""

    name: str
    phrases: tuple[str, ...]
    sensitivity: float


@dataclass(frozen=True)
class Fit:
    """A custom label fitted to a model: its vector, float32 (d,), and its threshold and slope on cosines."""

    vector: Floats
    threshold: float
    slope: float


def list_custom_labels(store: Store) -> list[CustomLabel]:
    """The custom labels, by name."""
    rows = store.sql.execute("SELECT name, phrases, sensitivity FROM own_labels ORDER BY name")
    return [CustomLabel(name, tuple(json.loads(phrases)), sensitivity) for name, phrases, sensitivity in rows]


def put_custom_label(store: Store, label: CustomLabel) -> None:
    """Add a custom label or change it; it has to be fitted again."""
    store.sql.execute("DELETE FROM own_fits WHERE name = ?", (label.name,))
    store.sql.execute(
        "INSERT INTO own_labels VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
        " phrases = excluded.phrases, sensitivity = excluded.sensitivity",
        (label.name, json.dumps(list(label.phrases)), min(max(label.sensitivity, 0.0), 1.0), time.time()),
    )


def remove_custom_label(store: Store, name: str) -> bool:
    """Remove a custom label and its fits; returns whether there was one."""
    return store.sql.execute("DELETE FROM own_labels WHERE name = ?", (name,)).rowcount > 0


def fit_of(store: Store, model_id: int, name: str) -> Fit | None:
    """How a custom label was fitted to a model, or None if it was not."""
    query = "SELECT vector, threshold, slope FROM own_fits WHERE model_id = ? AND name = ?"
    row = store.sql.execute(query, (model_id, name)).fetchone()
    return None if row is None else Fit(np.frombuffer(row[0], "<f4").astype(np.float32), row[1], row[2])


def put_fit(store: Store, model_id: int, name: str, fit: Fit) -> None:
    """Record how a custom label was fitted to a model."""
    store.sql.execute(
        "INSERT OR REPLACE INTO own_fits VALUES (?, ?, ?, ?, ?)",
        (model_id, name, fit.vector.astype("<f4").tobytes(), fit.threshold, fit.slope),
    )

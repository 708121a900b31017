"""What differs between the recipe of a run and the one that it is started again with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from distill.config.recipe import Recipe
from mobileclip.tables import to_table

AT_THE_END = frozenset({"keep_start"})
"""Settings that matter only at the end of a run, so that a finished run can be finished again with other values."""

FREE = AT_THE_END | {
    "optim.lr",
    "optim.lr_text",
    "optim.lr_trunk",
    "optim.clip",
    "optim.explode",
    "optim.timeout",
    "save_every",
    "keep_last",
}
"""Settings that may change when a run resumes, as may all of `validate`. Those of `stages` depend on the schedule."""

Changes = Mapping[str, tuple[Any, Any]]
"""Settings that differ, by dotted name such as `stages[1].px`: before and now. None where a setting isn't there."""


def find_changes(before: Recipe, now: Recipe) -> Changes:
    """Return the settings of two recipes that differ, defaults included; hints aren't settings."""
    old, new = (dict(_flat(to_table(replace(recipe, hints={}), defaults=True))) for recipe in (before, now))
    return {name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}


def is_free(name: str) -> bool:
    """Whether a setting with this dotted name may change when a run resumes."""
    return name in FREE or name.startswith("validate.")


def describe(changes: Changes, names: Iterable[str]) -> str:
    """Describe some changes, such as `optim.batch was 64, now 32`, but at most three."""
    names = list(names)
    shown = [f"{name} was {_shown(changes[name][0])}, now {_shown(changes[name][1])}" for name in names[:3]]
    return "; ".join([*shown, f"and {len(names) - 3} more"] if len(names) > 3 else shown)


def _shown(value: Any) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{name}[{number}]")
    else:
        yield name, value

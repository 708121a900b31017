"""Zero-shot labels: prompts, their vectors, and one calibrated yes-or-no decision per label.

A logistic curve over a label's cosine decides, with a threshold fitted on labeled photos (Platt scaling, Platt 1999).
Each label is decided separately, without a softmax over all labels: a photo may have many labels, and often has none.
Two kinds of rules connect labels: one can imply another ("puppy" implies "dog"), and of a group of labels that rarely
hold at once, only the most probable is given.
"""

import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip.errors import BundleError
from mobileclip.vectors import unit_rows

__all__ = ["TEMPLATES", "Label", "LabelSet", "average_prompts", "expand", "telling"]

TEMPLATES = (
    "a photo of {}.",
    "a photo of a {}.",
    "a close-up photo of {}.",
    "a snapshot with {} in it.",
    "a blurry phone picture of {}.",
    "a bright photo of {}.",
    "a dark photo of {}.",
)
"""Prompts for a class name: many ways to photograph one thing."""

TAG_PROBABILITY = 0.5
"""A photo is tagged with the labels that have at least this probability, unless a label's `least` is higher."""


def expand(name: str, templates: Sequence[str] = TEMPLATES) -> tuple[str, ...]:
    """Fill each template's `{}` with `name`.

    Raises:
        TypeError: `templates` is a single string.
    """
    if isinstance(templates, str):
        raise TypeError(f"templates must be a list of texts, not one text: [{templates!r}]")
    return tuple(template.replace("{}", name) for template in templates)


def average_prompts(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Compute one vector for all prompts of a label: normalize each, average, and normalize the result.

    Args:
        vectors: (…, prompts, d).

    Returns:
        float32 (…, d), unit rows.

    Raises:
        ValueError: there are no prompts, one is zero, or they cancel each other out.
    """
    rows = np.asarray(vectors, np.float32)
    if rows.ndim < 2 or rows.shape[-2] == 0:
        raise ValueError(f"at least one prompt is needed, (…, prompts, d), not {rows.shape}")
    return unit_rows(unit_rows(rows).mean(axis=-2))


@dataclass(frozen=True)
class Label:
    """One label.

    Attributes:
        name: shown to people, unique in its set.
        group: the heading that it is listed under.
        prompts: texts whose averaged vector represents the label.
        threshold: the cosine at which the label has probability 0.5.
        slope: steepness of the logistic curve, per unit of cosine, above 0.
        positives: photos with this label that the threshold was fitted on; 0 if the pooled rule was used.
        least: the probability from which a photo gets the label, at least `TAG_PROBABILITY`.
        search_only: whether no photo gets the label, because the evidence doesn't show from which probability on it
            is right. It can be searched for.
        prevalence: share of the photos of a camera roll that show the label; 0 if unknown. Of a photo's labels, rare
            ones say more.
        implies: names of labels that hold whenever this one does.
    """

    name: str
    group: str
    prompts: tuple[str, ...]
    threshold: float
    slope: float
    positives: int = 0
    least: float = TAG_PROBABILITY
    search_only: bool = False
    prevalence: float = 0.0
    implies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("name", "group"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field).strip():
                raise ValueError(f"label {self.name!r}: {field} must be a text")
        prompts: Any = self.prompts  # straight from TOML, so anything
        if (
            not isinstance(prompts, (list, tuple))
            or not prompts
            or not all(isinstance(p, str) and p.strip() for p in prompts)
        ):
            raise ValueError(f"label {self.name!r}: prompts must be a list of at least one text")
        object.__setattr__(self, "prompts", tuple(prompts))
        for field in ("threshold", "slope", "least", "prevalence"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"label {self.name!r}: {field} must be a number")
            object.__setattr__(self, field, float(value))
        if self.slope <= 0:
            raise ValueError(f"label {self.name!r}: slope must be above 0")
        if isinstance(self.positives, bool) or not isinstance(self.positives, int) or self.positives < 0:
            raise ValueError(f"label {self.name!r}: positives must be a whole number, at least 0")
        if not TAG_PROBABILITY <= self.least <= 1 or not 0 <= self.prevalence <= 1:
            raise ValueError(f"label {self.name!r}: least must lie in {TAG_PROBABILITY:g} … 1, prevalence in 0 … 1")
        if not isinstance(self.search_only, bool):
            raise ValueError(f"label {self.name!r}: search_only must be true or false")
        implied: Any = self.implies
        if not isinstance(implied, (list, tuple)) or not all(isinstance(name, str) for name in implied):
            raise ValueError(f"label {self.name!r}: implies must be a list of names")
        object.__setattr__(self, "implies", tuple(implied))

    @property
    def edge(self) -> float:
        """The logit from which a photo gets the label; infinite if it is search only."""
        return math.inf if self.search_only or self.least == 1 else math.log(self.least / (1 - self.least))


class LabelSet:
    """Labels in a fixed order, one for each row of the bundle's label vectors."""

    def __init__(self, labels: Iterable[Label], exclusive: Iterable[Sequence[str]] = ()) -> None:
        """Keep the labels in the given order.

        Args:
            labels: the labels.
            exclusive: groups of names of which only the most probable is given.

        Raises:
            ValueError: two labels have the same name, a name of a rule is unknown, or labels imply each other.
        """
        self._labels = tuple(labels)
        self.exclusive = tuple(tuple(group) for group in exclusive)
        self._row = {label.name: row for row, label in enumerate(self._labels)}
        if len(self._row) < len(self._labels):
            names = [label.name for label in self._labels]
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"label {repeated!r} is defined twice")
        for name in (name for names in (*self.exclusive, *(label.implies for label in self._labels)) for name in names):
            if name not in self._row:
                raise ValueError(f"label {name!r} isn't defined, but a rule names it")
        self._thresholds = np.array([label.threshold for label in self._labels])
        self._slopes = np.array([label.slope for label in self._labels])
        self._least = np.array([np.inf if label.search_only else label.least for label in self._labels])
        self._implications = self._sorted_implications()

    def _sorted_implications(self) -> list[tuple[int, int]]:
        """Return rows of pairs (label, label that it implies), each after all pairs that lead to it."""
        waiting = {row: {self._row[name] for name in label.implies} for row, label in enumerate(self._labels)}
        pairs: list[tuple[int, int]] = []
        while waiting:
            implied = set().union(*waiting.values())
            first = [row for row in waiting if row not in implied]
            if not first:
                raise ValueError(f"label {self._labels[min(waiting)].name!r} implies itself")
            pairs += [(row, above) for row in first for above in sorted(waiting.pop(row))]
        return pairs

    @classmethod
    def loads(cls, text: str) -> "LabelSet":
        """Read `labels.toml`: a list of [[label]] tables with the fields of `Label`, and perhaps `exclusive`.

        Raises:
            BundleError: it isn't a labels file.
        """
        try:
            fields: dict[str, Any] = tomllib.loads(text)
            return cls((Label(**table) for table in fields.get("label", [])), fields.get("exclusive", ()))
        except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
            raise BundleError(f"labels: {error}") from None

    def dumps(self) -> str:
        """Return the text of `labels.toml`, which `loads` reads back as an equal set."""
        groups = "".join(f"  {_toml_list(group)},\n" for group in self.exclusive)
        head = f"exclusive = [\n{groups}]\n\n" if groups else ""
        return head + "\n".join(map(_toml_table, self._labels))

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __getitem__(self, name: str) -> Label:
        return self._labels[self._row[name]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSet) and (self._labels, self.exclusive) == (other._labels, other.exclusive)

    def __hash__(self) -> int:
        return hash((self._labels, self.exclusive))

    def scores(self, cosines: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Compute the probability of each label.

        Args:
            cosines: (…, labels), photo vectors times label vectors.

        Returns:
            float64 of the same shape, 0 … 1: 1 / (1 + exp(−slope · (cosine − threshold))).

        Raises:
            ValueError: the number of columns isn't the number of labels.
        """
        values = np.asarray(cosines, np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self):
            raise ValueError(f"cosines for {len(self)} labels are needed, not {values.shape}")
        # tanh, because exp overflows far from the threshold.
        scores: npt.NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * self._slopes * (values - self._thresholds))
        return scores

    def give(self, cosines: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Decide which labels photos get.

        Args:
            cosines: (…, labels), photo vectors times label vectors.

        Returns:
            bool (…, labels), and the probabilities, float64 of the same shape; a label is at least as probable as one
            that was given and implies it.
        """
        scores = self.scores(cosines)
        given = scores >= self._least
        for group in self.exclusive:
            rows = [self._row[name] for name in group]
            best = np.where(given[..., rows], scores[..., rows], -1).argmax(axis=-1)
            given[..., rows] &= np.arange(len(rows)) == best[..., None]
        for row, implied in self._implications:
            scores[..., implied] = np.where(
                given[..., row], np.maximum(scores[..., implied], scores[..., row]), scores[..., implied]
            )
            given[..., implied] |= given[..., row]
        return given, scores

    def decide(self, cosines: npt.ArrayLike) -> list[tuple[Label, float]]:
        """Choose the labels of one photo, with their probabilities, the most telling first; often none.

        Args:
            cosines: (labels,), the photo's vector times the label vectors.
        """
        given, scores = self.give(np.asarray(cosines).reshape(-1))
        chosen = [(self._labels[row], float(scores[row])) for row in np.flatnonzero(given)]
        return sorted(chosen, key=lambda found: -telling(*found))

    def related(self, name: str) -> "LabelSet":
        """Return a label and all labels on which it depends whether a photo gets it, in the order of this set."""
        names, before = {name}, set[str]()
        while names != before:
            before = set(names)
            for group in self.exclusive:
                names |= set(group) if names & set(group) else set()
            for label in self._labels:
                linked = {label.name, *label.implies}
                names |= linked if len(label.implies) and names & linked else set()
        kept = [label for label in self._labels if label.name in names]
        return LabelSet(kept, [group for group in self.exclusive if names & set(group)])


def telling(label: Label, score: float) -> float:
    """How much a label says about a photo: its information in bits, weighted by its probability (Shannon 1948).

    A label of unknown prevalence counts as one that a photo in 64 shows.
    """
    return score * -math.log2(label.prevalence or 1 / 64)


def _toml_list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_toml_text, texts))}]"


def _toml_table(label: Label) -> str:
    """Write a label as a table; fields at their default are left out, as files of older bundles do."""
    lines = [
        f"name = {_toml_text(label.name)}",
        f"group = {_toml_text(label.group)}",
        f"prompts = {_toml_list(label.prompts)}",
        f"threshold = {label.threshold!r}",
        f"slope = {label.slope!r}",
        f"positives = {label.positives}",
        f"least = {label.least!r}" if label.least != TAG_PROBABILITY else "",
        "search_only = true" if label.search_only else "",
        f"prevalence = {label.prevalence!r}" if label.prevalence else "",
        f"implies = {_toml_list(label.implies)}" if label.implies else "",
    ]
    return "\n".join(["[[label]]", *filter(None, lines)]) + "\n"


def _toml_text(text: str) -> str:
    """Quote a text for TOML; as in JSON, except for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

"""Zero-shot labels: prompts, their vectors, and one calibrated yes-or-no decision per label.

A logistic curve over a label's cosine decides, with a threshold fitted on labeled photos (Platt scaling, Platt 1999).
Each label is decided separately, without a softmax over all labels: a photo may have many labels, and often has none.
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

__all__ = ["TEMPLATES", "Label", "LabelSet", "average_prompts", "expand"]

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
"""A photo is tagged with the labels that have at least this probability."""


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
    """

    name: str
    group: str
    prompts: tuple[str, ...]
    threshold: float
    slope: float
    positives: int = 0

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
        for field in ("threshold", "slope"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"label {self.name!r}: {field} must be a number")
            object.__setattr__(self, field, float(value))
        if self.slope <= 0:
            raise ValueError(f"label {self.name!r}: slope must be above 0")
        if isinstance(self.positives, bool) or not isinstance(self.positives, int) or self.positives < 0:
            raise ValueError(f"label {self.name!r}: positives must be a whole number, at least 0")


class LabelSet:
    """Labels in a fixed order, one for each row of the bundle's label vectors."""

    def __init__(self, labels: Iterable[Label]) -> None:
        """Keep the labels in the given order.

        Raises:
            ValueError: two labels have the same name.
        """
        self._labels = tuple(labels)
        self._by_name = {label.name: label for label in self._labels}
        if len(self._by_name) < len(self._labels):
            names = [label.name for label in self._labels]
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"label {repeated!r} is defined twice")
        self._thresholds = np.array([label.threshold for label in self._labels])
        self._slopes = np.array([label.slope for label in self._labels])

    @classmethod
    def loads(cls, text: str) -> "LabelSet":
        """Read `labels.toml`: a list of [[label]] tables with the fields of `Label`.

        Raises:
            BundleError: it isn't a labels file.
        """
        try:
            tables: Any = tomllib.loads(text).get("label", [])
            return cls(Label(**table) for table in tables)
        except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
            raise BundleError(f"labels: {error}") from None

    def dumps(self) -> str:
        """Return the text of `labels.toml`, which `loads` reads back as an equal set."""
        return "\n".join(
            "[[label]]\n"
            f"name = {_toml_text(label.name)}\n"
            f"group = {_toml_text(label.group)}\n"
            f"prompts = [{', '.join(map(_toml_text, label.prompts))}]\n"
            f"threshold = {label.threshold!r}\n"
            f"slope = {label.slope!r}\n"
            f"positives = {label.positives}\n"
            for label in self._labels
        )

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Label:
        return self._by_name[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSet) and self._labels == other._labels

    def __hash__(self) -> int:
        return hash(self._labels)

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

    def decide(self, cosines: npt.ArrayLike) -> list[tuple[Label, float]]:
        """Choose the labels of one photo, with their probabilities, the most probable first; often none.

        Args:
            cosines: (labels,), the photo's vector times the label vectors.
        """
        scores = self.scores(np.asarray(cosines).reshape(-1))
        chosen = np.flatnonzero(scores >= TAG_PROBABILITY)
        order = chosen[np.argsort(-scores[chosen], kind="stable")]
        return [(self._labels[i], float(scores[i])) for i in order]


def _toml_text(text: str) -> str:
    """Quote a text for TOML; as in JSON, except for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

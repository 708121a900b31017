"""Labels that are words: prompts, their vectors, and one calibrated yes-or-no decision per label.

Each label is decided on its own by a logistic curve over its cosine, with a threshold fitted on labelled
photos (Platt scaling, Platt 1999). There is no softmax over the list: a photo may have many labels, and often
has none.
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
"""Prompts for a bare class name: many ways to photograph one thing."""

GIVEN_AT = 0.5  # a label is given from this probability on


def expand(name: str, templates: Sequence[str] = TEMPLATES) -> tuple[str, ...]:
    """One prompt per template, with `name` in the place of each `{}`.

    Raises:
        TypeError: `templates` is a single string.
    """
    if isinstance(templates, str):
        raise TypeError(f"templates must be a list of texts, not one text: [{templates!r}]")
    return tuple(template.replace("{}", name) for template in templates)


def average_prompts(vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """One vector for all prompts of a label: each normalised, averaged, normalised again.

    Args:
        vectors: (…, prompts, d).

    Returns:
        float32 (…, d), unit rows.

    Raises:
        ValueError: no prompts, a vector of zeros, or prompts that cancel out.
    """
    rows = np.asarray(vectors, np.float32)
    if rows.ndim < 2 or rows.shape[-2] == 0:
        raise ValueError(f"vectors of at least one prompt are needed, (…, prompts, d), not {rows.shape}")
    return unit_rows(unit_rows(rows).mean(axis=-2))


@dataclass(frozen=True)
class Label:
    """One label.

    Attributes:
        name: what a person reads, unique in its set.
        group: heading under which it is listed.
        prompts: full texts whose averaged vector stands for the label.
        threshold: cosine at which the label is as likely as not.
        slope: steepness of the logistic curve, per unit of cosine, above 0.
        positives: labelled photos that the threshold was fitted on; 0 where the pooled rule gave it.
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
            raise ValueError(f"label {self.name!r}: positives must be a whole number from 0 on")


class LabelSet:
    """Labels in a fixed order, one for each row of the bundle's label vectors."""

    def __init__(self, labels: Iterable[Label]) -> None:
        """Keep the labels in the given order.

        Raises:
            ValueError: two labels of one name.
        """
        self._labels = tuple(labels)
        self._by_name = {label.name: label for label in self._labels}
        if len(self._by_name) < len(self._labels):
            names = [label.name for label in self._labels]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"label {twice!r} is defined twice")
        self._thresholds = np.array([label.threshold for label in self._labels])
        self._slopes = np.array([label.slope for label in self._labels])

    @classmethod
    def loads(cls, text: str) -> "LabelSet":
        """Read `labels.toml`: a list of [[label]] tables with the fields of `Label`.

        Raises:
            BundleError: not such a file.
        """
        try:
            tables: Any = tomllib.loads(text).get("label", [])
            return cls(Label(**table) for table in tables)
        except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
            raise BundleError(f"labels: {error}") from None

    def dumps(self) -> str:
        """Text of `labels.toml`, from which `loads` makes an equal set."""
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
        """Probability of every label on its own.

        Args:
            cosines: (…, labels), photo vectors times label vectors.

        Returns:
            float64 of the same shape, 0 … 1: 1 / (1 + exp(−slope · (cosine − threshold))).

        Raises:
            ValueError: another number of columns than labels.
        """
        values = np.asarray(cosines, np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self):
            raise ValueError(f"cosines for {len(self)} labels are needed, not {values.shape}")
        # tanh, because exp overflows far from the threshold.
        scores: npt.NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * self._slopes * (values - self._thresholds))
        return scores

    def decide(self, cosines: npt.ArrayLike) -> list[tuple[Label, float]]:
        """Labels of one photo with their probabilities, the surest first; often none.

        Args:
            cosines: (labels,), the photo's vector times the label vectors.
        """
        scores = self.scores(np.asarray(cosines).reshape(-1))
        given = np.flatnonzero(scores >= GIVEN_AT)
        order = given[np.argsort(-scores[given], kind="stable")]
        return [(self._labels[i], float(scores[i])) for i in order]


def _toml_text(text: str) -> str:
    """A TOML basic string; JSON's is the same but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

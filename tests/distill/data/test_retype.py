"""Texts as people type them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.data.retype import SPELLINGS, mistype, reframe, renumber, repunctuate, respell, retype


def edits(one: str, other: str) -> int:
    """Optimal string alignment distance: letters added, removed, replaced, or swapped with their neighbor."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        rows.append([i])
        for j, b in enumerate(other, 1):
            best = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                best = min(best, rows[i - 2][j - 2] + 1)
            rows[i].append(best)
    return rows[-1][-1]


@given(st.text(), st.integers(0, 1000))
def test_a_typo_is_one_edit_and_leaves_first_letters(text: str, seed: int) -> None:
    found = mistype(text, np.random.default_rng(seed))
    assert edits(text, found) <= 1
    assert [word[:1] for word in found.split()] == [word[:1] for word in text.split()]


@given(st.text(), st.integers(0, 1000))
def test_any_text_can_be_retyped(text: str, seed: int) -> None:
    first, again = (retype(text, np.random.default_rng(seed)) for _ in range(2))
    assert first == again


def test_spelling_goes_both_ways() -> None:
    random = np.random.default_rng(0)
    for british, american in SPELLINGS:
        assert respell(f"a {british}", random) == f"a {american}"
        assert respell(f"a {american}", random) == f"a {british}"
    assert edits("a dog outside", respell("a dog outside", random)) == 1, "a text with one spelling gets a typo"


@pytest.mark.parametrize("text", ["a photo of a cat", "a photo of a cat.", "A close-up photo of a cat"])
def test_a_frame_is_removed(text: str) -> None:
    assert reframe(text, np.random.default_rng(0)) == "a cat"


def test_a_frame_is_added_or_an_article_removed() -> None:
    found = {reframe("a cat", np.random.default_rng(seed)) for seed in range(40)}
    assert {"cat", "photo of a cat", "a cat photo"} <= found and "a cat" not in found


def test_punctuation_and_number_change() -> None:
    random = np.random.default_rng(0)
    assert repunctuate("two dogs, one cat .", random) == "two dogs one cat"
    assert repunctuate("two dogs", random).startswith("two dogs")
    assert renumber("a dog", random) == "a dogs" and renumber("dogs", random) == "dog"
    assert renumber("a bus", random) == "a buses" and renumber("a beach .", random) == "a beaches"
    assert renumber("glass", random) == "glasses"

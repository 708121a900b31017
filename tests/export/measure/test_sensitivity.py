import itertools
from collections.abc import Collection

import numpy as np
import pytest

from export.measure.sensitivity import GROUPS, damage, leave_exact

HARM = {"a": 0.1, "b": 5.0, "c": 0.2, "d": 3.0, "e": 0.0, "f": 0.4}
COST = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 1.0, "f": 1.0}


def measure(coarse: Collection[str]) -> float:
    return sum(HARM[name] for name in coarse)


@pytest.mark.parametrize("budget", [10.0, 8.7, 4.0, 0.7, 0.35, 0.1, 0.0])
def test_fewest_layers_stay_exact(budget: float) -> None:
    exact = leave_exact(list(HARM), COST, measure, budget)
    assert measure([name for name in HARM if name not in exact]) <= budget
    possible = (
        set(kept)
        for count in range(len(HARM) + 1)
        for kept in itertools.combinations(HARM, count)
        if measure([name for name in HARM if name not in kept]) <= budget
    )
    assert len(exact) == len(next(possible))


def test_cheap_layers_stay_exact_before_expensive_ones() -> None:
    exact = leave_exact(list(HARM), COST | {"b": 100.0}, measure, 6.0)
    assert "d" in exact and "b" not in exact


def test_without_a_budget_every_harmful_layer_stays_exact() -> None:
    assert leave_exact(["b", "d"], COST, measure, 0.0) == {"b", "d"}


def test_deep_towers_take_no_more_measurements_than_shallow_ones() -> None:
    layers = [str(number) for number in range(5000)]
    asked = []

    def count(coarse: Collection[str]) -> float:
        asked.append(len(coarse))
        return float(len(coarse))

    exact = leave_exact(layers, dict.fromkeys(layers, 1.0), count, 2500.0)
    assert len(asked) < GROUPS + 10 and 2500 <= len(exact) <= 2500 + 5000 // GROUPS + 1


def test_damage_is_the_mean_of_1_minus_cosine_and_worst_for_nan() -> None:
    exact = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert damage(exact * 3, exact) == pytest.approx(0)
    assert damage(np.array([[0.0, 1.0], [0.0, 1.0]]), exact) == pytest.approx(0.5)
    assert damage(np.full((2, 2), np.nan), exact) == 2.0

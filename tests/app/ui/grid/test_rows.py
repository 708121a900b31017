"""The arithmetic of the grid, compared with placing all items in turn."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ui.grid.rows import Measures, Move, Rows

measures = st.builds(
    Measures,
    width=st.floats(50, 2000),
    columns=st.integers(1, 9),
    gap=st.sampled_from([0.0, 2.0, 7.5]),
    heading=st.sampled_from([0.0, 48.0]),
    caption=st.sampled_from([0.0, 40.0]),
)
counts = st.lists(st.integers(0, 25), max_size=12)


def placed(counts: list[int], measures: Measures) -> list[tuple[float, float, int]]:
    """Left, top and section of every item."""
    places, y = [], 0.0
    for section, count in enumerate(counts):
        y += measures.heading
        for item in range(count):
            row, column = divmod(item, measures.columns)
            pitch = measures.cell + measures.caption + measures.gap
            places.append((column * (measures.cell + measures.gap), y + row * pitch, section))
        rows = -(-count // measures.columns)
        y += rows * (measures.cell + measures.caption + measures.gap)
    return places


@settings(max_examples=80, deadline=None)
@given(counts, measures)
def test_every_item_is_where_placing_them_in_turn_puts_it(counts: list[int], measures: Measures) -> None:
    rows, expected = Rows(counts, measures), placed(counts, measures)
    assert rows.count == len(expected)
    for index, (x, y, section) in enumerate(expected):
        assert np.allclose(rows.place(index), (x, y)) and rows.section_of(index) == section


@settings(max_examples=80, deadline=None)
@given(counts, measures, st.floats(0, 1), st.floats(1, 900))
def test_visible_items_are_those_that_overlap_the_window(
    counts: list[int], measures: Measures, at: float, height: float
) -> None:
    rows, expected = Rows(counts, measures), placed(counts, measures)
    top = at * rows.height
    span = rows.span(top, top + height)
    pitch = measures.cell + measures.caption
    visible = [i for i, (_, y, _) in enumerate(expected) if y < top + height - 1e-6 and y + pitch > top + 1e-6]
    assert set(visible) <= set(span)
    # At most one row more at each end.
    assert len(span) <= len(visible) + 2 * measures.columns


@settings(max_examples=60, deadline=None)
@given(
    counts, measures, st.lists(st.sampled_from(["left", "right", "up", "down", "page_up", "page_down"]), max_size=30)
)
def test_the_keyboard_never_leaves_the_grid(counts: list[int], measures: Measures, moves: list[Move]) -> None:
    rows, index = Rows(counts, measures), 0
    for move in moves:
        before, index = index, rows.step(index, move, 500)
        assert 0 <= index < max(rows.count, 1)
        if move == "down" and index != before:
            assert rows.place(index)[1] > rows.place(before)[1]
        if move == "up" and index != before:
            assert rows.place(index)[1] < rows.place(before)[1]
    if rows.count:
        assert rows.step(index, "end", 500) == rows.count - 1 and rows.step(index, "home", 500) == 0


def test_down_keeps_the_column_over_the_border_of_a_section() -> None:
    rows = Rows([5, 0, 4], Measures(300, 3))
    assert rows.step(1, "down", 1) == 4
    assert rows.step(4, "down", 1) == 6
    assert rows.step(2, "down", 1) == 4
    assert rows.step(6, "up", 1) == 4
    assert rows.step(8, "down", 1) == 8


def test_a_grid_may_be_empty() -> None:
    rows = Rows([], Measures(300, 3))
    assert (rows.count, rows.height, len(rows.span(0, 100)), rows.section_at(5)) == (0, 0.0, 0, -1)


def test_fifty_thousand_photos_cost_their_days() -> None:
    rows = Rows([10] * 5000, Measures(1000, 6, 3, 48))
    assert rows.count == 50_000 and len(rows.span(rows.height / 2, rows.height / 2 + 800)) < 60

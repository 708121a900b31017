"""The parts of the grid without a window: pooled widgets, the visible part, keys, pinch, and photos read by id."""

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kivy.uix.widget import Widget

from app.library.gallery import Photo
from app.ui.grid import lookup
from app.ui.grid.keyboard import Keyboard
from app.ui.grid.lookup import PhotoLookup
from app.ui.grid.pinch import Pinch
from app.ui.grid.rows import Measures, Rows
from app.ui.grid.selection import Selection
from app.ui.grid.viewport import Viewport
from app.ui.grid.widget_pool import OUTSIDE, WidgetPool

spans = st.builds(lambda first, count: range(first, first + count), st.integers(0, 30), st.integers(0, 12))


@settings(max_examples=60, deadline=None)
@given(st.lists(spans, max_size=12))
def test_a_pool_gives_each_visible_item_one_widget_and_makes_no_more_than_were_visible_at_once(
    spans: list[range],
) -> None:
    parent, cleared = Widget(), list[Widget]()
    pool = WidgetPool(parent, Widget, cleared.append)
    for span in spans:
        before = {number: pool.get(number) for number in span}
        cleared.clear()
        pool.keep(span)
        taken = [pool.take(number) for number in span]
        for number, widget in zip(span, taken, strict=True):
            widget.pos = number, 0
            assert pool.get(number) is widget and before[number] in (None, widget)
            assert before[number] is None or widget not in cleared
        assert {id(widget) for widget in pool} == {id(widget) for widget in taken}
        assert len({id(widget) for widget in taken}) == len(pool) == len(span)
        spare = [widget for widget in parent.children if widget not in taken]
        assert all(tuple(widget.pos) == OUTSIDE for widget in spare)
        assert len(parent.children) == len(taken) + len(spare)
    assert len(parent.children) <= max((len(span) for span in spans), default=0)


def viewport(counts: Sequence[int], measures: Measures, height: float = 500.0) -> Viewport:
    scroll = SimpleNamespace(width=measures.width, height=height, scroll_y=1.0, effect_y=SimpleNamespace(velocity=5.0))
    view = Viewport(scroll, Widget(size_hint=(None, None)))
    view.lay_out(Rows(counts, measures))
    return view


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=8), st.integers(1, 7), st.data())
def test_a_revealed_item_is_visible_whole_and_scrolling_is_never_more_than_needed(
    counts: list[int], columns: int, data: st.DataObject
) -> None:
    view = viewport(counts, Measures(600.0, columns, 3.0, 48.0), height=800.0)
    if not view.rows.count:
        return
    view.scroll_to(data.draw(st.floats(0, view.rows.height)))
    before, index = view.visible(), data.draw(st.integers(0, view.rows.count - 1))
    view.reveal(index)
    (_, y), (top, bottom) = view.rows.place(index), view.visible()
    was_visible = before[0] <= y - 48 and y + view.rows.pitch <= before[1]
    assert not was_visible or (top, bottom) == before
    assert top - 1e-6 <= y and y + view.rows.measures.cell <= bottom + 1e-6
    view.jump(0.25)
    assert view._scroll.effect_y.velocity == 0


@pytest.mark.parametrize("width", [600.0, 601.3, 999.9])
def test_squares_lie_on_whole_pixels_and_keep_their_gaps(width: float) -> None:
    view = viewport([40], Measures(width, 7, 3.0))
    boxes = [view.box(index) for index in range(14)]
    for (left, bottom, w, h), (next_left, next_bottom, _, _) in pairwise(boxes[:7]):
        assert next_bottom == bottom and next_left - left - w in (2, 3, 4) and abs(w - h) <= 1
    for (left, bottom, _, _), (below_left, below_bottom, _, h) in zip(boxes[:7], boxes[7:], strict=True):
        assert below_left == left and bottom - below_bottom - h in (2, 3, 4)


def test_the_uppermost_item_is_none_at_the_very_top() -> None:
    view = viewport([30], Measures(300.0, 3), height=200.0)
    assert view.uppermost() is None
    view.scroll_to(view.rows.pitch * 2 + 10)
    assert view.uppermost() == (6, pytest.approx(-10))


@pytest.fixture
def keyboard() -> Any:
    """A keyboard over photos 100 … 129 in rows of three, and what it calls."""
    calls: list[Any] = []
    made = Keyboard(
        viewport([30], Measures(300.0, 3), height=350.0),
        Selection(),
        open_photo=lambda index: calls.append(("open", index)),
        zoom=lambda by: calls.append(("zoom", by > 1)),
        changed=lambda: calls.append("changed"),
    )
    made.show(np.arange(100, 130), stay=False)
    return SimpleNamespace(keys=made, calls=calls)


def test_keys_move_open_choose_and_zoom(keyboard: Any) -> None:
    keys, calls = keyboard.keys, keyboard.calls
    assert not keys.press("spacebar", set()) and not keys.press("enter", set()) and not keys.press("q", set())
    assert keys.press("right", set()) and keys.cursor == 0 and keys.ring and calls == ["changed"]
    assert keys.press("down", set()) and keys.cursor == 3 and keys.targets == [103]
    assert keys.press("spacebar", set()) and keys.targets == [103]
    assert keys.press("right", {"shift"}) and sorted(keys.targets) == [103, 104]
    assert keys.press("enter", set()) and calls[-1] == ("open", 4)
    assert keys.press("a", {"meta"}) and len(keys.targets) == 30
    assert keys.press("escape", set()) and not keys.press("escape", set())
    assert keys.press("numpadadd", set()) and calls[-1] == ("zoom", True)
    assert keys.press("-", set()) and calls[-1] == ("zoom", False)


def test_the_first_key_begins_with_what_is_visible(keyboard: Any) -> None:
    keyboard.keys._viewport.scroll_to(300.0)
    keyboard.keys.press("down", set())
    assert keyboard.keys.cursor == keyboard.keys._viewport.rows.span(300.0, 301.0)[0] > 0


def test_the_cursor_follows_its_photo(keyboard: Any) -> None:
    keys = keyboard.keys
    keys.go_to(7)
    keys.show(np.array([1, 107, 2]), stay=True)
    assert keys.cursor == 1 and keys.targets == [107]
    keys.show(np.array([107]), stay=False)
    assert keys.cursor is None and keys.targets == []
    keys.show(np.empty(0, np.int64), stay=True)
    assert not keys.press("down", set())


def test_two_fingers_scale_and_other_numbers_of_fingers_do_nothing() -> None:
    pinch = Pinch()
    pinch.down(1, (0.0, 0.0), 100.0)
    assert pinch.move(1, (5.0, 0.0)) is None
    pinch.down(2, (105.0, 0.0), 100.0)
    assert pinch.move(2, (205.0, 0.0)) == pytest.approx(200)
    assert pinch.move(1, (155.0, 0.0)) == pytest.approx(50)
    assert pinch.move(9, (0.0, 0.0)) is None
    pinch.down(3, (0.0, 300.0), 100.0)
    assert pinch.move(2, (300.0, 0.0)) is None
    pinch.up(3)
    pinch.up(2)
    pinch.down(4, (160.0, 0.0), 80.0)  # too close to the first finger
    assert pinch.move(4, (400.0, 0.0)) is None


def test_photos_are_read_once_while_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "KEPT", 10)
    asked: list[list[int]] = []

    def photos_of(ids: Sequence[int]) -> list[Photo]:
        asked.append(list(ids))
        return [SimpleNamespace(id=photo_id) for photo_id in ids if photo_id != 3]  # type: ignore[misc]

    look_up = PhotoLookup(photos_of)
    assert set(look_up(range(5))) == {0, 1, 2, 4}
    assert set(look_up(range(8))) == {0, 1, 2, 4, 5, 6, 7} and asked == [[0, 1, 2, 3, 4], [3, 5, 6, 7]]
    assert set(look_up(range(50, 90))) == set(range(50, 90)), "more than are kept are still all there"
    look_up.forget()
    look_up([89])
    assert asked[-1] == [89]
    asked.clear()
    look_up([])
    assert not asked

"""Headings of sections, and the knob that runs through years; their looks are in photo_grid.kv."""

from collections.abc import Sequence
from typing import Any

from kivy.animation import Animation
from kivy.clock import Clock
from kivy.metrics import dp
from kivy.properties import BooleanProperty, NumericProperty, StringProperty
from kivy.uix.widget import Widget

from app.ui.grid.sections import Section
from app.ui.grid.viewport import Viewport
from app.ui.grid.widget_pool import WidgetPool


class Headline(Widget):
    """The heading of a section."""

    title = StringProperty("")
    note = StringProperty("")
    stuck = BooleanProperty(False)


class Headings:
    """A heading above each visible section, and one that sticks to the upper edge until the next one pushes it out.

    Args:
        content: the scrolled widget, which gets the headings.
        sticky: the heading at the upper edge of its parent.
        viewport: the visible part.
    """

    def __init__(self, content: Widget, sticky: Headline, viewport: Viewport) -> None:
        self._content, self._sticky, self._viewport = content, sticky, viewport
        self._pool = WidgetPool(content, Headline)

    def place(self, sections: Sequence[Section], margin: float) -> None:
        """Put headings where they are visible, and `margin` screens above and below."""
        rows = self._viewport.rows
        visible = rows.sections(*self._viewport.visible(margin)) if rows.measures.heading else range(0)
        self._pool.keep(visible)
        for number in visible:
            headline = self._pool.take(number)
            headline.title, headline.note = sections[number].title, sections[number].note
            headline.width = self._content.width
            headline.pos = 0, round(self._content.height - float(rows.tops[number]) - headline.height)
        self._place_sticky(sections)

    def _place_sticky(self, sections: Sequence[Section]) -> None:
        rows, top, sticky = self._viewport.rows, self._viewport.top, self._sticky
        number = rows.section_at(top)
        shown = bool(rows.measures.heading) and number >= 0 and top > 0
        sticky.opacity = 1 if shown else 0
        if shown:
            sticky.title, sticky.note = sections[number].title, sections[number].note
            pushed = min(0.0, float(rows.tops[number + 1]) - top - sticky.height)
            sticky.top = round(sticky.parent.top - pushed)


class Scroller(Widget):
    """A knob at the edge that runs through years in one drag."""

    shown = NumericProperty(0.0)
    dragged = BooleanProperty(False)
    knob = NumericProperty(0.0)
    length = NumericProperty(dp(48))
    mark = StringProperty("")
    at = NumericProperty(1.0)

    def __init__(self, **kwargs: Any) -> None:
        self.register_event_type("on_drag")
        super().__init__(**kwargs)
        self._fade = Clock.create_trigger(lambda _: Animation(shown=0, duration=0.4).start(self), 1.2)

    def follow(self, at: float, worth_it: bool) -> None:
        """Show where the grid is; `at` is 1 at the top and 0 at the bottom."""
        self.at = at
        self.knob = self.y + dp(4) + (self.height - self.length - dp(8)) * min(1.0, max(0.0, at))
        if worth_it:
            Animation.cancel_all(self, "shown")
            self.shown = 1.0
            self._fade.cancel()
            if not self.dragged:
                self._fade()

    def on_touch_down(self, touch: Any) -> bool:
        over_knob = self.knob - dp(8) <= touch.y <= self.knob + self.length + dp(8)
        if self.shown < 0.1 or touch.is_mouse_scrolling or not self.collide_point(*touch.pos) or not over_knob:
            return False
        if touch.x < self.right - dp(28):
            return False
        touch.grab(self)
        touch.ud["knob"] = touch.y - self.knob
        self.dragged = True
        self._fade.cancel()
        return True

    def on_touch_move(self, touch: Any) -> bool:
        if touch.grab_current is not self:
            return False
        room = max(1.0, self.height - self.length - dp(8))
        at = min(1.0, max(0.0, (touch.y - touch.ud["knob"] - self.y - dp(4)) / room))
        self.dispatch("on_drag", at)
        return True

    def on_touch_up(self, touch: Any) -> bool:
        if touch.grab_current is not self:
            return False
        touch.ungrab(self)
        self.dragged = False
        self._fade()
        return True

    def on_drag(self, at: float) -> None:
        """The knob was dragged to `at`."""

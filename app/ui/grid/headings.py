"""Headings of sections, and the knob that runs through years; their looks are in grid.kv."""

from typing import Any

from kivy.animation import Animation
from kivy.clock import Clock
from kivy.metrics import dp
from kivy.properties import BooleanProperty, NumericProperty, StringProperty
from kivy.uix.widget import Widget


class Headline(Widget):
    """The heading of a section."""

    title = StringProperty("")
    note = StringProperty("")
    stuck = BooleanProperty(False)


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
        """The knob was drawn to `at`."""

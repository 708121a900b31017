"""Suggestions below the search field."""

from typing import Any

from kivy.properties import BooleanProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.widget import Widget

from app.library.gallery import Suggestion

MOST = 6


class SuggestionRow(ButtonBehavior, Widget):
    """One suggestion; `on` while the arrow keys are at it."""

    icon = StringProperty("")
    text = StringProperty("")
    on = BooleanProperty(False)


class Completions(BoxLayout):
    """A list of suggestions; the arrow keys mark one. Event: `on_take(suggestion)`."""

    def __init__(self, **kwargs: Any) -> None:
        self.register_event_type("on_take")
        super().__init__(**kwargs)
        self._shown: list[Suggestion] = []
        self._at = -1

    @property
    def marked(self) -> Suggestion | None:
        """The suggestion that the arrow keys are at."""
        return self._shown[self._at] if 0 <= self._at < len(self._shown) else None

    def show(self, suggestions: list[Suggestion]) -> None:
        """Show the first of some suggestions; rows stay as they are if nothing changed."""
        shown = suggestions[:MOST]
        self._fill(shown, min(self._at, len(shown) - 1))

    def move(self, by: int) -> None:
        """Mark the next suggestion (1) or the one before (-1), around the ends."""
        self._fill(self._shown, (self._at + by) % len(self._shown) if self._shown else -1)

    def _fill(self, shown: list[Suggestion], at: int) -> None:
        if (shown, at) == (self._shown, self._at):
            return
        self._shown, self._at = shown, at
        self.clear_widgets()
        for place, suggestion in enumerate(shown):
            icon = "tag" if suggestion.kind == "label" else "clock"
            row = SuggestionRow(text=suggestion.text, icon=icon, on=place == at)
            row.bind(on_release=lambda _, suggestion=suggestion: self.dispatch("on_take", suggestion))
            self.add_widget(row)

    def on_take(self, suggestion: Suggestion) -> None:
        """A suggestion was pressed."""

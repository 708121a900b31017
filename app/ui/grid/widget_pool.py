"""Widgets that are reused while a long list scrolls by."""

from collections.abc import Callable, Container, Iterator
from typing import Generic, TypeVar

from kivy.uix.widget import Widget

W = TypeVar("W", bound=Widget)

OUTSIDE = -100_000.0, -100_000.0
"""Where spare widgets wait. They keep their parent: moving one costs less than removing it and adding it again."""


class WidgetPool(Generic[W]):
    """The widgets of the visible items, each under its item's number, and spare ones.

    Args:
        parent: gets every widget.
        make: makes a widget when no spare one is left.
        clear: makes a widget show nothing and release what it holds.
    """

    def __init__(self, parent: Widget, make: Callable[[], W], clear: Callable[[W], None] = lambda _: None) -> None:
        self._parent, self._make, self._clear = parent, make, clear
        self._used: dict[int, W] = {}
        self._spare: list[W] = []

    def __len__(self) -> int:
        """How many are in use."""
        return len(self._used)

    def __iter__(self) -> Iterator[W]:
        """Those in use."""
        return iter(list(self._used.values()))

    def get(self, number: int) -> W | None:
        """The widget of an item; None if the item isn't visible."""
        return self._used.get(number)

    def take(self, number: int) -> W:
        """The widget of an item: the one it has, else a spare or a new one."""
        widget = self._used.get(number)
        if widget is None:
            widget = self._used[number] = self._spare.pop() if self._spare else self._new()
        return widget

    def keep(self, numbers: Container[int]) -> None:
        """Make the widgets of all other items spare."""
        for number in [number for number in self._used if number not in numbers]:
            widget = self._used.pop(number)
            self._clear(widget)
            widget.pos = OUTSIDE
            self._spare.append(widget)

    def _new(self) -> W:
        widget = self._make()
        self._parent.add_widget(widget)
        return widget

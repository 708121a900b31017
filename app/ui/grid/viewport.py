"""The visible part of a grid: what it shows, and where it scrolls to."""

from typing import Any

from kivy.uix.widget import Widget

from app.ui.grid.rows import Measures, Rows


class Viewport:
    """How far rows are scrolled. Lengths are in pixels, and y runs downwards from the top of the content.

    Args:
        scroll: the ScrollView.
        content: the widget in it; as high as the rows.
    """

    def __init__(self, scroll: Any, content: Widget) -> None:
        self._scroll, self._content = scroll, content
        self.rows = Rows([], Measures(1, 1))

    def lay_out(self, rows: Rows) -> None:
        """Show other rows."""
        self.rows = rows
        self._content.height = max(1.0, rows.height)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the visible part."""
        return self._scroll.width, self._scroll.height

    @property
    def top(self) -> float:
        """Where the visible part begins."""
        room = self.rows.height - self._scroll.height
        return float(max(0.0, room * (1 - self._scroll.scroll_y))) if room > 0 else 0.0

    def visible(self, margin: float = 0.0) -> tuple[float, float]:
        """Top and bottom of the visible part, extended by a share of its height on both sides."""
        top, height = self.top, self._scroll.height
        return top - margin * height, top + (1 + margin) * height

    def uppermost(self) -> tuple[int, float] | None:
        """The first visible item, and how far it is below the upper edge; None at the very top."""
        span = self.rows.span(*self.visible())
        if self.top < 1 or not span:
            return None
        return span[0], self.rows.place(span[0])[1] - self.top

    def box(self, index: int) -> tuple[int, int, int, int]:
        """Left, bottom, width and height of an item's square, as Kivy places it in the content.

        Whole pixels, so that neither photos nor the gaps between them swim.
        """
        x, y = self.rows.place(index)
        side = self.rows.measures.cell
        left, bottom = round(x), round(self._content.height - y - side)
        return left, bottom, round(x + side) - left, round(self._content.height - y) - bottom

    def scroll_to(self, y: float) -> None:
        """Bring a height to the upper edge."""
        room = self.rows.height - self._scroll.height
        self._scroll.scroll_y = 1.0 if room <= 0 else 1 - min(1.0, max(0.0, y / room))

    def jump(self, at: float) -> None:
        """Go to a share of the whole, 1 at the top and 0 at the bottom, and stop there."""
        self._scroll.effect_y.velocity = 0
        self._scroll.scroll_y = at

    def reveal(self, index: int) -> None:
        """Scroll as little as needed to show an item whole, with the heading above it."""
        _, y = self.rows.place(index)
        top, bottom = self.visible()
        if y - self.rows.measures.heading < top:
            self.scroll_to(y - self.rows.measures.heading)
        elif y + self.rows.pitch > bottom:
            self.scroll_to(y + self.rows.pitch - (bottom - top))

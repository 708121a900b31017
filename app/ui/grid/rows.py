"""Where everything is in a long grid of equal cells, in sections with headings.

Arithmetic on a few numbers per section, so the cost depends on the number of days and not of photos. Lengths are in
pixels, and y runs downwards from the top of the content.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Move = Literal["left", "right", "up", "down", "home", "end", "page_up", "page_down"]


@dataclass(frozen=True)
class Measures:
    """The sizes that determine a layout.

    Attributes:
        width: of the whole grid.
        columns: cells next to each other, at least 1.
        gap: between cells, and between sections.
        heading: height of a section's heading; 0 for none.
        caption: height below the square of each cell.
    """

    width: float
    columns: int
    gap: float = 2.0
    heading: float = 0.0
    caption: float = 0.0

    @property
    def cell(self) -> float:
        """Side of a cell's square."""
        return max(1.0, (self.width - self.gap * (self.columns - 1)) / self.columns)


class Rows:
    """The layout of one grid.

    Args:
        counts: how many items each section has, in order.
        measures: see Measures.
    """

    def __init__(self, counts: Sequence[int], measures: Measures) -> None:
        self.measures = measures
        self._counts = np.asarray(counts, np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self._counts)])
        self.pitch = measures.cell + measures.caption + measures.gap
        lines = -(-self._counts // measures.columns)
        heights = measures.heading + lines * self.pitch
        self.tops = np.concatenate([[0.0], np.cumsum(heights)])

    @property
    def count(self) -> int:
        """The number of items."""
        return int(self.starts[-1])

    @property
    def height(self) -> float:
        """Height of the whole grid."""
        return float(self.tops[-1])

    def section_at(self, y: float) -> int:
        """The section at `y`; the first or the last one beyond the ends, -1 if there is none."""
        last = len(self._counts) - 1
        return int(np.clip(np.searchsorted(self.tops, y, side="right") - 1, min(0, last), last))

    def section_of(self, index: int) -> int:
        """The section that holds the item."""
        return int(np.searchsorted(self.starts, index, side="right") - 1)

    def sections(self, top: float, bottom: float) -> range:
        """The sections that are at least partly between two heights."""
        if not len(self._counts) or bottom <= top:
            return range(0)
        return range(self.section_at(top), self.section_at(np.nextafter(bottom, top)) + 1)

    def place(self, index: int) -> tuple[float, float]:
        """Left and top of an item's cell."""
        section = self.section_of(index)
        row, column = divmod(index - int(self.starts[section]), self.measures.columns)
        top = float(self.tops[section]) + self.measures.heading + row * self.pitch
        return column * (self.measures.cell + self.measures.gap), top

    def span(self, top: float, bottom: float) -> range:
        """The items in rows that are at least partly between two heights."""
        touched = self.sections(top, bottom)
        if not touched:
            return range(0)
        return range(self._first_below(touched[0], top), self._last_above(touched[-1], bottom))

    def _first_below(self, section: int, y: float) -> int:
        row = int((y - self.tops[section] - self.measures.heading) // self.pitch)
        return int(self.starts[section] + np.clip(row * self.measures.columns, 0, self._counts[section]))

    def _last_above(self, section: int, y: float) -> int:
        row = int(-(-(y - self.tops[section] - self.measures.heading) // self.pitch))
        return int(self.starts[section] + np.clip(row * self.measures.columns, 0, self._counts[section]))

    def step(self, index: int, move: Move, page: float) -> int:
        """The item that a key leads to; stays in bounds, and in the column if it can.

        Args:
            index: where the keyboard is.
            move: the key.
            page: height of the visible part.
        """
        if not self.count:
            return 0
        if move in ("left", "right", "home", "end"):
            target = {"left": index - 1, "right": index + 1, "home": 0, "end": self.count - 1}[move]
            return int(np.clip(target, 0, self.count - 1))
        lines = 1 if move in ("up", "down") else max(1, int(page // self.pitch) - 1)
        for _ in range(lines):
            index = self._line(index, -1 if move in ("up", "page_up") else 1)
        return index

    def _line(self, index: int, by: int) -> int:
        columns = self.measures.columns
        section = self.section_of(index)
        row, column = divmod(index - int(self.starts[section]), columns)
        count = int(self._counts[section])
        row += by
        if 0 <= row * columns < count:
            return int(self.starts[section]) + min(row * columns + column, count - 1)
        section += by
        while 0 <= section < len(self._counts) and not self._counts[section]:
            section += by
        if not 0 <= section < len(self._counts):
            return index
        count = int(self._counts[section])
        first = 0 if by > 0 else (count - 1) // columns * columns
        return int(self.starts[section]) + min(first + column, count - 1)

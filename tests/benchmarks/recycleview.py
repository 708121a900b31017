"""Why the grid isn't a RecycleView: `python -m tests.benchmarks.recycleview`.

Both show 50,000 photos with the same tiles, in the same window, without pictures. The table has the processor time
until the end of the next frame for what the gallery does: show photos, show them again with one more (as while it
indexes), change the number of columns, and scroll by a screen. The RecycleView has an easier task, because it shows no
headings. Prints a table, asserts nothing.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from statistics import median
from typing import Any

import tests.app.ui.driver  # noqa: F401 (first: it prepares Kivy)

# isort: split
import numpy as np
from kivy.base import EventLoop
from kivy.core.window import Window
from kivy.graphics.opengl import glFinish
from kivy.lang import Builder
from kivy.uix.recycleview import RecycleView
from kivy.uix.recycleview.views import RecycleDataViewBehavior
from rich.console import Console
from rich.table import Table

from app.library.gallery import Photo
from app.ui.grid.photo_grid import PhotoGrid
from app.ui.grid.sections import Section
from app.ui.grid.tile import Tile

PHOTOS, A_DAY, COLUMNS, STEPS, ROUNDS = 50_000, 20, (8, 6), 100, 5

Builder.load_string("""
<Recycled>:
    viewclass: "Cell"
    RecycleGridLayout:
        cols: 8
        default_size: None, root.width / self.cols
        default_size_hint: 1, None
        size_hint_y: None
        height: self.minimum_height
        spacing: dp(3)
""")


class NoPictures:
    """Replaces `Pictures`, so that tiles stay empty."""

    def want(self, owner: object, key: str, photo: str) -> None:
        """Do nothing."""

    def release(self, owner: object) -> None:
        """Do nothing."""


class Cell(RecycleDataViewBehavior, Tile):
    """A tile for RecycleView."""

    def __init__(self) -> None:
        super().__init__(NoPictures(), lambda _: None, lambda _: None)  # type: ignore[arg-type]

    def refresh_view_attrs(self, view: RecycleView, index: int, data: dict[str, Any]) -> None:
        """Show another photo."""
        self.set(index, photo(data["photo_id"]))


class Recycled(RecycleView):
    """The grid that Kivy offers."""


def photo(number: int) -> Photo:
    """A photo that exists nowhere."""
    taken = datetime.fromtimestamp(1.7e9 - number)
    path = f"/photos/{number:06}.jpg"
    return Photo(number, number, f"{number:064x}", path, taken, "camera", width=4000, height=3000, size=1, mtime_ns=1)


def photos_of(ids: Sequence[int]) -> list[Photo]:
    """What the library says about photos."""
    return [photo(number) for number in ids]


def cost(action: Callable[[], None]) -> float:
    """Milliseconds of processor time that an action and the frame after it take."""
    began = time.process_time()
    action()
    EventLoop.idle()
    glFinish()
    return 1e3 * (time.process_time() - began)


def measure_recycleview() -> dict[str, float]:
    """The costs of each action with a RecycleView."""
    view = Recycled(size=Window.size)
    Window.add_widget(view)
    EventLoop.idle()

    def show(count: int) -> None:
        view.data = [{"photo_id": number} for number in range(count)]

    costs = measure(show, lambda columns: setattr(view.layout_manager, "cols", columns), view)
    Window.remove_widget(view)
    return costs


def measure_grid() -> dict[str, float]:
    """The costs of each action with our grid."""
    grid = PhotoGrid(size=Window.size)
    grid.feed(photos_of, NoPictures())  # type: ignore[arg-type]
    Window.add_widget(grid)
    EventLoop.idle()

    def show(count: int) -> None:
        sections = [Section("A day", min(A_DAY, count - first)) for first in range(0, count, A_DAY)]
        grid.show(np.arange(count), sections, stay=True)

    def set_columns(columns: int) -> None:
        grid.cell = grid.width / columns - 3

    costs = measure(show, set_columns, grid.scroll)
    Window.remove_widget(grid)
    return costs


def measure(show: Callable[[int], None], set_columns: Callable[[int], None], scroll: Any) -> dict[str, float]:
    """Median costs of all actions."""
    costs: dict[str, list[float]] = {}
    costs["show the photos"] = [cost(lambda: show(PHOTOS))]
    for number in range(ROUNDS):
        costs.setdefault("one photo more", []).append(cost(lambda number=number: show(PHOTOS + number)))
        columns = COLUMNS[number % 2]
        costs.setdefault("other columns", []).append(cost(lambda columns=columns: set_columns(columns)))
    for step in range(STEPS):
        at = 1 - (step + 1) * Window.height / (PHOTOS / COLUMNS[0] * Window.width / COLUMNS[0])
        costs.setdefault("scroll by a screen", []).append(cost(lambda at=at: setattr(scroll, "scroll_y", at)))
    return {what: median(each) for what, each in costs.items()}


def main() -> None:
    """Measure both and print a table."""
    EventLoop.ensure_window()
    Window.size = 1180, 780
    EventLoop.status = "started"
    ours, theirs = measure_grid(), measure_recycleview()
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    table = Table(title=f"{PHOTOS:,} photos: processor time of an action and its frame, ms (median)")
    for column in ("action", "PhotoGrid", "RecycleView"):
        table.add_column(column, justify="left" if column == "action" else "right")
    for what, value in ours.items():
        table.add_row(what, f"{value:,.1f}", f"{theirs[what]:,.1f}")
    console.print(table)


if __name__ == "__main__":
    main()

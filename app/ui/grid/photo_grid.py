"""The grid of photos: sections with sticky headings, a fast scroller, selection, keyboard and pinch.

Only what is visible has widgets, however long the list. `Rows` knows where everything is, and `WidgetPool` reuses tiles
and headings.

Kivy's RecycleView has no grid with headings, and wants a description of every row. With 50,000 photos it takes 600 ms
to show one photo more, which happens every second during indexing, and 650 ms for another number of columns; this grid
takes 80 ms and 70 ms (`python -m tests.benchmarks.recycleview`, processor time on two cores, software renderer).
"""

from typing import Any, NamedTuple

import numpy as np
from kivy.clock import Clock
from kivy.core.window import Window
from kivy.metrics import dp
from kivy.properties import NumericProperty, ObjectProperty
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.widget import Widget
from numpy.typing import NDArray

from app.library.gallery import Photo
from app.ui.grid.headings import Headings, Scroller
from app.ui.grid.keyboard import ZOOM, Keyboard
from app.ui.grid.lookup import PhotoLookup, PhotosOf
from app.ui.grid.pictures import Pictures
from app.ui.grid.pinch import Pinch
from app.ui.grid.rows import Measures, Rows
from app.ui.grid.sections import Section
from app.ui.grid.selection import Selection
from app.ui.grid.tile import Tile
from app.ui.grid.viewport import Viewport
from app.ui.grid.widget_pool import WidgetPool
from app.ui.kit.widgets import Notice, load_layout

GAP = 3.0
"""Between photos, in dp."""

LEAST, MOST = 56.0, 360.0
"""Smallest and largest side of a photo that the user can choose, in dp."""

MARGIN = 0.5
"""Screens above and below the visible part that have widgets too."""


class Anchor(NamedTuple):
    """A photo, and how far it is below the upper edge, in pixels."""

    photo_id: int
    offset: float


class PhotoGrid(FloatLayout):
    """Photos in sections. Events: `on_open(index)`, `on_selection`, `on_offer`.

    Attributes:
        cell: wanted side of a photo, in dp; columns follow from it and the window.
        ids_shown: the photos, int64 (n,), in order.
        sections: their counts add up to the photos.
        selection: the chosen photos.
        keyboard: handles keys; has the cursor.
        viewport: the visible part.
        tiles: the tiles of the visible photos, by place in `ids_shown`.
    """

    cell = NumericProperty(132.0)
    heading = NumericProperty(dp(48))
    scroll = ObjectProperty(None)
    content = ObjectProperty(None)
    scroller: Scroller = ObjectProperty(None)
    sticky = ObjectProperty(None)
    notice: Notice = ObjectProperty(None)

    keyboard: Keyboard
    viewport: Viewport
    tiles: WidgetPool[Tile]
    _headings: Headings

    def __init__(self, **kwargs: Any) -> None:
        for event in ("on_open", "on_offer", "on_selection"):
            self.register_event_type(event)
        self.ids_shown: NDArray[np.int64] = np.empty(0, np.int64)
        self.sections: list[Section] = []
        self.selection = Selection(self._selection_changed)
        self._look_up: PhotoLookup | None = None
        self._pinch = Pinch()
        self._anchor: Anchor | None = None
        self._arranged_for = 0.0, 0.0
        super().__init__(**kwargs)
        self._arrange_soon = Clock.create_trigger(lambda _: self._arrange(), -1)
        self._place_soon = Clock.create_trigger(lambda _: self._place(), -1)

    def on_kv_post(self, _: Widget) -> None:
        """The parts of the layout exist; Kivy calls this."""
        self.viewport = Viewport(self.scroll, self.content)
        self.keyboard = Keyboard(
            self.viewport,
            self.selection,
            open_photo=lambda index: self.dispatch("on_open", index),
            zoom=self.zoom,
            changed=lambda: self._place_soon(),
        )
        self._headings = Headings(self.content, self.sticky, self.viewport)
        self.bind(size=lambda *_: self._arrange_soon(), pos=lambda *_: self._arrange_soon())
        self.fbind("cell", lambda *_: self._arrange_soon())
        self.scroll.bind(scroll_y=lambda *_: self._place_soon(), size=lambda *_: self._arrange_soon())
        self.scroller.bind(on_drag=lambda _, at: self.viewport.jump(at))

    def feed(self, photos_of: PhotosOf, pictures: Pictures[Any]) -> None:
        """Say where photos and their pictures come from; once, before anything is shown."""
        self._look_up = PhotoLookup(photos_of)
        self.tiles = WidgetPool(self.content, lambda: Tile(pictures, self._tapped, self._pressed_long), Tile.clear)

    def show(self, ids: NDArray[np.int64], sections: list[Section], *, stay: bool) -> None:
        """Show other photos.

        Args:
            ids: of the photos, in order.
            sections: their counts add up to the photos.
            stay: keep the photo at the top where it is, as after indexing; else start from the top.
        """
        self.ids_shown, self.sections = ids, sections
        if self._look_up is not None:
            self._look_up.forget()
        self.selection.keep(ids)
        self.keyboard.show(ids, stay=stay)
        self._arrange(stay)

    def release(self) -> None:
        """Show nothing and want no pictures any more."""
        self.show(np.empty(0, np.int64), [], stay=False)

    @property
    def columns(self) -> int:
        """Photos next to each other; follows from their wanted size and the window."""
        return max(2, round(float((self.width + dp(GAP)) / (dp(self.cell) + dp(GAP)))))

    def zoom(self, by: float) -> None:
        """Make photos larger or smaller by a factor, by at least one column."""
        before = self.columns
        cell = self.cell
        while LEAST < cell * by < MOST and self.columns == before:
            cell *= by
            self.cell = cell

    # layout

    def _arrange(self, stay: bool = True) -> None:
        """Compute where everything is, and show it; with `stay` the photo at the top keeps its place."""
        if self._look_up is None or self.scroll.width <= 1:
            return
        view = self.viewport
        self._arranged_for = view.size
        heading = self.heading if any(section.title for section in self.sections) else 0.0
        measures = Measures(self.width, self.columns, dp(GAP), heading)
        view.lay_out(Rows([section.count for section in self.sections], measures))
        if not stay:
            view.scroll_to(0.0)
        elif self._anchor is not None:
            found = np.flatnonzero(self.ids_shown == self._anchor.photo_id)
            if len(found):
                view.scroll_to(view.rows.place(int(found[0]))[1] - self._anchor.offset)
        self.tiles.keep(())
        self._place()

    def _place(self) -> None:
        """Put tiles and headings where they are visible, with a margin."""
        if self._look_up is None:
            return
        view = self.viewport
        span = view.rows.span(*view.visible(MARGIN))
        photos = self._look_up(self.ids_shown[span.start : span.stop].tolist())
        self.tiles.keep(span)
        for index in span:
            self._place_tile(index, photos)
        self._headings.place(self.sections, MARGIN)
        # While the window changes its size, the old layout doesn't fit the new height: keep what was seen before.
        if view.size == self._arranged_for:
            first = view.uppermost()
            self._anchor = None if first is None else Anchor(int(self.ids_shown[first[0]]), first[1])
        section = view.rows.section_at(view.top)
        self.scroller.mark = self.sections[section].mark if section >= 0 else ""
        self.scroller.follow(self.scroll.scroll_y, view.rows.height > 2 * self.scroll.height)

    def _place_tile(self, index: int, photos: dict[int, Photo]) -> None:
        tile = self.tiles.take(index)
        left, bottom, width, height = self.viewport.box(index)
        tile.pos, tile.size = (left, bottom), (width, height)
        photo_id = int(self.ids_shown[index])
        tile.set(
            index,
            photos.get(photo_id),
            chosen=photo_id in self.selection,
            choosing=len(self.selection) > 0,
            at_cursor=self.keyboard.ring and index == self.keyboard.cursor,
        )

    # touch

    def on_touch_down(self, touch: Any) -> bool:
        if not self.collide_point(*touch.pos):
            return False
        # A ring around a photo is for those who use keys.
        self.keyboard.ring = False
        if not touch.is_mouse_scrolling:
            self._pinch.down(touch.uid, touch.pos, self.cell)
        elif {"ctrl", "meta"} & set(Window.modifiers):
            self.zoom(ZOOM if touch.button == "scrolldown" else 1 / ZOOM)
            return True
        return bool(super().on_touch_down(touch))

    def on_touch_move(self, touch: Any) -> bool:
        cell = self._pinch.move(touch.uid, touch.pos)
        if cell is not None:
            self.cell = min(MOST, max(LEAST, cell))
            return True
        return bool(super().on_touch_move(touch))

    def on_touch_up(self, touch: Any) -> bool:
        self._pinch.up(touch.uid)
        return bool(super().on_touch_up(touch))

    def _tapped(self, tile: Tile) -> None:
        modifiers = set(Window.modifiers)
        photo_id = int(self.ids_shown[tile.index])
        if "shift" in modifiers and len(self.selection):
            self.selection.stretch(self.ids_shown, photo_id)
        elif len(self.selection) or {"ctrl", "meta"} & modifiers:
            self.selection.toggle(photo_id)
        else:
            self.keyboard.cursor = tile.index
            self.dispatch("on_open", tile.index)

    def _pressed_long(self, tile: Tile) -> None:
        self.selection.toggle(int(self.ids_shown[tile.index]))

    def _selection_changed(self) -> None:
        self._place_soon()
        self.dispatch("on_selection")

    # events

    def on_open(self, index: int) -> None:
        """A photo is to be opened."""

    def on_offer(self) -> None:
        """The button of the notice was pressed."""

    def on_selection(self) -> None:
        """Other photos are chosen."""


load_layout(__file__)

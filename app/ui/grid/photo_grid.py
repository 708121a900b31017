"""The grid of photos: sections with sticky headings, a fast scroller, selection, keyboard and pinch.

Only what is seen has widgets, whatever the length of the list. `Rows` knows where everything lies, tiles and headings
are taken from a pool and given back; there is no list of 50,000 row descriptions to build, as a RecycleView wants.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from kivy.clock import Clock
from kivy.core.window import Window
from kivy.metrics import dp
from kivy.properties import NumericProperty, ObjectProperty
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.widget import Widget
from kivy.vector import Vector
from numpy.typing import NDArray

from app.library.gallery import Photo
from app.ui.grid.headings import Headline
from app.ui.grid.pictures import Pictures
from app.ui.grid.rows import Measures, Move, Rows
from app.ui.grid.sections import Section
from app.ui.grid.selection import Selection
from app.ui.grid.tile import Tile
from app.ui.kit.widgets import Notice, load_layout
from mobileclip.lru import LruCache

GAP = 3.0
"""Between photos, in dp."""

LEAST, MOST = 56.0, 360.0
"""Sides of a photo between which a person may choose, in dp."""

AWAY = -100_000.0, -100_000.0
"""Where spare tiles and headings wait. They stay in the window: moving one costs less than taking it out and putting it
back."""

KNOWN = 8192
"""Photos whose path and key are kept: more than two screens of the smallest photos in a 4K window."""

PhotosOf = Callable[[Sequence[int]], list[Photo]]

MOVES: dict[str, Move] = {
    "left": "left", "right": "right", "up": "up", "down": "down", "home": "home", "end": "end",
    "pageup": "page_up", "pagedown": "page_down",
}  # fmt: skip


class PhotoGrid(FloatLayout):
    """Photos in sections. Events: `on_open(index)`, `on_selection`, `on_offer`."""

    cell = NumericProperty(132.0)
    heading = NumericProperty(dp(48))
    scroll = ObjectProperty(None)
    content = ObjectProperty(None)
    scroller = ObjectProperty(None)
    sticky = ObjectProperty(None)
    notice: Notice = ObjectProperty(None)

    def __init__(self, **kwargs: Any) -> None:
        for event in ("on_open", "on_offer", "on_selection"):
            self.register_event_type(event)
        self.ids_shown: NDArray[np.int64] = np.empty(0, np.int64)
        self.sections: list[Section] = []
        self.rows = Rows([], Measures(1, 1))
        self.cursor: int | None = None
        self.keyed = False
        self._held_at: tuple[int, float] | None = None
        self._arranged_for: tuple[float, ...] = ()
        self.selection = Selection(self._selection_changed)
        self._photos_of: PhotosOf = lambda ids: []
        self._pictures: Pictures[Any] | None = None
        self._known: LruCache[int, Photo] = LruCache(KNOWN)
        self._tiles: dict[int, Tile] = {}
        self._spare: list[Tile] = []
        self._heads: dict[int, Headline] = {}
        self._spare_heads: list[Headline] = []
        self._pinch: dict[int, tuple[float, float]] = {}
        self._pinch_from = (1.0, 0.0)
        super().__init__(**kwargs)
        self._arrange_soon = Clock.create_trigger(lambda _: self._arrange(), -1)
        self._place_soon = Clock.create_trigger(lambda _: self._place(), -1)

    def on_kv_post(self, _: Widget) -> None:
        """The parts of the layout are there; Kivy calls this."""
        self.bind(size=lambda *_: self._arrange_soon(), pos=lambda *_: self._arrange_soon())
        self.fbind("cell", lambda *_: self._arrange_soon())
        self.scroll.bind(scroll_y=lambda *_: self._place_soon(), size=lambda *_: self._arrange_soon())
        self.scroller.bind(on_drag=lambda _, at: self._scroll_to(at))

    def feed(self, photos_of: PhotosOf, pictures: Pictures[Any]) -> None:
        """Say where photos and their pictures come from; once, before anything is shown."""
        self._photos_of, self._pictures = photos_of, pictures

    def show(self, ids: NDArray[np.int64], sections: list[Section], *, stay: bool) -> None:
        """Show other photos.

        Args:
            ids: of the photos, in order.
            sections: their counts add up to the photos.
            stay: keep the photo at the top where it is, as after indexing; else start from the top.
        """
        anchor = self._held_at if stay else None
        standing = int(self.ids_shown[self.cursor]) if stay and self.cursor is not None else -1
        self.ids_shown, self.sections = ids, sections
        self._known.clear()
        self.selection.keep(ids)
        at = np.flatnonzero(ids == standing)
        self.cursor = int(at[0]) if len(at) else None
        self._arrange(anchor, keep=stay)

    def release(self) -> None:
        """Show nothing and want no pictures any more."""
        self.show(np.empty(0, np.int64), [], stay=False)

    @property
    def columns(self) -> int:
        """Photos side by side; follows from their wanted size and the window."""
        return max(2, round(float((self.width + dp(GAP)) / (dp(self.cell) + dp(GAP)))))

    @property
    def top_y(self) -> float:
        """How far the content is scrolled, in pixels from its top."""
        room = self.rows.height - self.scroll.height
        return float(max(0.0, room * (1 - self.scroll.scroll_y))) if room > 0 else 0.0

    def tile_of(self, index: int) -> Tile | None:
        """The tile that shows an item now."""
        return self._tiles.get(index)

    @property
    def tiles(self) -> list[Tile]:
        """All tiles that show something."""
        return list(self._tiles.values())

    # layout

    def _anchor(self) -> tuple[int, float] | None:
        """The photo that is uppermost, and how far it is from the upper edge; None at the very top."""
        top = self.top_y
        span = self.rows.span(top, top + self.scroll.height)
        if top < 1 or not span or span[0] >= len(self.ids_shown):
            return None
        return int(self.ids_shown[span[0]]), self.rows.place(span[0])[1] - top

    def _arrange(self, anchor: tuple[int, float] | None = None, keep: bool = True) -> None:
        if self.scroll.width <= 1:
            return
        anchor = anchor or (self._held_at if keep else None)
        self._arranged_for = tuple(self.scroll.size)
        heading = self.heading if any(section.title for section in self.sections) else 0.0
        measures = Measures(self.width, self.columns, dp(GAP), heading)
        self.rows = Rows([section.count for section in self.sections], measures)
        self.content.height = max(1.0, self.rows.height)
        if anchor is not None:
            at = np.flatnonzero(self.ids_shown == anchor[0])
            if len(at):
                self._scroll_top(self.rows.place(int(at[0]))[1] - anchor[1])
        elif not keep:
            self.scroll.scroll_y = 1.0
        self._give_back(self._tiles)
        self._place()

    def _scroll_top(self, y: float) -> None:
        room = self.rows.height - self.scroll.height
        self.scroll.scroll_y = 1.0 if room <= 0 else 1 - min(1.0, max(0.0, y / room))

    def _scroll_to(self, at: float) -> None:
        self.scroll.effect_y.velocity = 0
        self.scroll.scroll_y = at

    def _place(self) -> None:
        """Put tiles and headings where something is seen, with half a screen of margin."""
        if self._pictures is None:
            return
        top, height = self.top_y, self.scroll.height
        span = self.rows.span(top - height / 2, top + height * 1.5)
        self._give_back([index for index in self._tiles if index not in span])
        photos = self._look_up(span)
        for index in span:
            self._place_tile(index, photos.get(int(self.ids_shown[index])))
        self._place_heads(self.rows.sections(top - height / 2, top + height * 1.5))
        self._place_sticky(top)
        # While the window changes its size, the old layout does not fit the new height any more: keep what was seen.
        if tuple(self.scroll.size) == self._arranged_for:
            self._held_at = self._anchor()
        self.scroller.follow(self.scroll.scroll_y, self.rows.height > 2 * height)

    def _look_up(self, span: range) -> dict[int, Photo]:
        """The photos of some places by their ids, without those that have left the library."""
        wanted = self.ids_shown[span.start : span.stop].tolist() if span else []
        found = {photo_id: photo for photo_id in wanted if (photo := self._known.get(photo_id)) is not None}
        missing = [photo_id for photo_id in wanted if photo_id not in found]
        for photo in self._photos_of(missing) if missing else ():
            found[photo.id] = photo
            self._known.put(photo.id, photo)
        return found

    def _place_tile(self, index: int, photo: Photo | None) -> None:
        tile = self._tiles.get(index)
        if tile is None:
            tile = self._tiles[index] = self._spare.pop() if self._spare else self._new_tile()
        x, y = self.rows.place(index)
        side = self.rows.measures.cell
        # Whole pixels, so that neither photos nor the gaps between them swim.
        left, right = round(x), round(x + side)
        upper, lower = round(self.content.height - y), round(self.content.height - y - side)
        tile.pos, tile.size = (left, lower), (right - left, upper - lower)
        photo_id = int(self.ids_shown[index])
        tile.set(
            index,
            photo,
            photo_id in self.selection,
            len(self.selection) > 0,
            self.keyed and index == self.cursor,
        )

    def _new_tile(self) -> Tile:
        assert self._pictures is not None
        tile = Tile(self._pictures, self._tapped, self._held)
        self.content.add_widget(tile)
        return tile

    def _give_back(self, indices: Any) -> None:
        for index in list(indices):
            tile = self._tiles.pop(index)
            tile.clear()
            tile.pos = AWAY
            self._spare.append(tile)

    def _place_heads(self, shown: range) -> None:
        if not self.rows.measures.heading:
            shown = range(0)
        for section in [section for section in self._heads if section not in shown]:
            head = self._heads.pop(section)
            head.pos = AWAY
            self._spare_heads.append(head)
        for section in shown:
            if section not in self._heads:
                if not self._spare_heads:
                    self._spare_heads.append(Headline())
                    self.content.add_widget(self._spare_heads[-1])
                self._heads[section] = self._spare_heads.pop()
            head = self._heads[section]
            head.title, head.note = self.sections[section].title, self.sections[section].note
            head.width = self.width
            head.pos = (0, round(self.content.height - float(self.rows.tops[section]) - head.height))

    def _place_sticky(self, top: float) -> None:
        section = self.rows.section_at(top)
        shown = bool(self.rows.measures.heading) and section >= 0 and top > 0
        self.sticky.opacity = 1 if shown else 0
        if not shown:
            return
        self.sticky.title, self.sticky.note = self.sections[section].title, self.sections[section].note
        pushed = min(0.0, float(self.rows.tops[section + 1]) - top - self.sticky.height)
        self.sticky.top = round(self.top - pushed)
        self.scroller.mark = self.sections[section].mark

    # touch

    def on_touch_down(self, touch: Any) -> bool:
        if not self.collide_point(*touch.pos):
            return False
        # A ring around a photo is for those who go by keys.
        self.keyed = False
        if touch.is_mouse_scrolling and {"ctrl", "meta"} & set(Window.modifiers):
            self.zoom(1.15 if touch.button == "scrolldown" else 1 / 1.15)
            return True
        if not touch.is_mouse_scrolling:
            self._pinch[touch.uid] = touch.pos
            if len(self._pinch) == 2:
                self._pinch_from = self._spread(), self.cell
        return bool(super().on_touch_down(touch))

    def on_touch_move(self, touch: Any) -> bool:
        if touch.uid in self._pinch:
            self._pinch[touch.uid] = touch.pos
            if len(self._pinch) == 2 and self._pinch_from[0] > dp(20):
                self.zoom_to(self._pinch_from[1] * self._spread() / self._pinch_from[0])
                return True
        return bool(super().on_touch_move(touch))

    def on_touch_up(self, touch: Any) -> bool:
        self._pinch.pop(touch.uid, None)
        return bool(super().on_touch_up(touch))

    def _spread(self) -> float:
        one, other = self._pinch.values()
        return float(Vector(one).distance(other))

    def zoom(self, by: float) -> None:
        """Make photos larger or smaller by a factor, by at least one column."""
        before = self.columns
        cell = self.cell
        while LEAST < cell * by < MOST and self.columns == before:
            cell *= by
            self.cell = cell

    def zoom_to(self, cell: float) -> None:
        """Give photos a side, in dp."""
        self.cell = min(MOST, max(LEAST, cell))

    def _tapped(self, tile: Tile) -> None:
        modifiers = set(Window.modifiers)
        photo_id = int(self.ids_shown[tile.index])
        if "shift" in modifiers and len(self.selection):
            self.selection.stretch(self.ids_shown, photo_id)
        elif len(self.selection) or {"ctrl", "meta"} & modifiers:
            self.selection.toggle(photo_id)
        else:
            self.cursor = tile.index
            self.dispatch("on_open", tile.index)

    def _held(self, tile: Tile) -> None:
        self.selection.toggle(int(self.ids_shown[tile.index]))

    def _selection_changed(self) -> None:
        self._place_soon()
        self.dispatch("on_selection")

    # keyboard

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        """Move, open, choose; whether the key meant something here."""
        if not len(self.ids_shown):
            return False
        if key in MOVES:
            self._stand_on(MOVES[key])
            if "shift" in modifiers:
                self.selection.stretch(self.ids_shown, int(self.ids_shown[self.cursor or 0]))
        elif key in ("enter", "numpadenter") and self.cursor is not None:
            self.dispatch("on_open", self.cursor)
        elif key == "spacebar" and self.cursor is not None:
            self.selection.toggle(int(self.ids_shown[self.cursor]))
        elif key == "a" and {"ctrl", "meta"} & modifiers:
            self.selection.all(self.ids_shown)
        elif key == "escape" and len(self.selection):
            self.selection.clear()
        elif key in ("+", "=", "numpadadd") or key in ("-", "numpadsubstract"):
            self.zoom(1.15 if key in ("+", "=", "numpadadd") else 1 / 1.15)
        else:
            return False
        return True

    def _stand_on(self, move: Move) -> None:
        page, self.keyed = self.scroll.height, True
        if self.cursor is None:
            self.cursor = self.rows.span(self.top_y, self.top_y + page)[0] if self.top_y else 0
        else:
            self.cursor = self.rows.step(self.cursor, move, page)
        self.bring(self.cursor)

    def bring(self, index: int) -> None:
        """Scroll as little as is needed to see an item whole."""
        _, y = self.rows.place(index)
        top, height = self.top_y, self.scroll.height
        upper = y - self.rows.measures.heading
        if upper < top:
            self._scroll_top(upper)
        elif y + self.rows.pitch > top + height:
            self._scroll_top(y + self.rows.pitch - height)
        self._place_soon()

    @property
    def targets(self) -> list[int]:
        """Photos that an action is about: the chosen ones, else the one the keyboard stands on."""
        if len(self.selection):
            return self.selection.ids
        return [int(self.ids_shown[self.cursor])] if self.cursor is not None else []

    def on_open(self, index: int) -> None:
        """A photo is to be opened."""

    def on_offer(self) -> None:
        """The button of the notice was pressed."""

    def on_selection(self) -> None:
        """Other photos are chosen."""


load_layout(__file__)

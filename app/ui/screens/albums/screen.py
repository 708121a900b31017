"""One album per label that a photo has, custom labels first."""

from typing import Any

from kivy.clock import Clock
from kivy.factory import Factory
from kivy.metrics import dp
from kivy.properties import ObjectProperty
from kivy.uix.widget import Widget

from app.library.gallery import Album
from app.ui.grid.album_card import CAPTION, AlbumCard
from app.ui.grid.rows import Measures, Rows
from app.ui.grid.widget_pool import WidgetPool
from app.ui.host import Host
from app.ui.kit.shell import AppScreen
from app.ui.kit.strings import t
from app.ui.kit.theme import theme
from app.ui.kit.widgets import load_layout
from mobileclip.errors import PocketclipError

CARD = 168.0
"""Preferred width of an album's cover, in dp."""


class AlbumsScreen(AppScreen):
    """All albums."""

    app = ObjectProperty(None)
    scroll = ObjectProperty(None)
    content = ObjectProperty(None)
    notice = ObjectProperty(None)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        self._albums: list[Album] | None = None
        self._heads: list[Widget] = []
        self.rows = Rows([], Measures(1, 1))
        super().__init__(app=app, **kwargs)
        self._cards = WidgetPool(self.content, lambda: AlbumCard(app.pictures, self._open), _hide)
        self._place_soon = Clock.create_trigger(lambda _: self._place(), -1)
        self._arrange_soon = Clock.create_trigger(lambda _: self._arrange(), -1)
        self.scroll.bind(scroll_y=lambda *_: self._place_soon(), size=lambda *_: self._arrange_soon())
        app.session.tags_changed += self.refresh
        app.session.changed += self.refresh

    def on_pre_enter(self, *_: Any) -> None:
        """Read the albums again; there may be new ones."""
        self.refresh(force=True)

    def refresh(self, force: bool = False) -> None:
        """Read the albums, if the screen is visible."""
        if force or (self.manager is not None and self.manager.current_screen is self):
            self.app.session.ask(lambda gallery: gallery.albums(), self._show, self._failed, "albums")

    @property
    def cards(self) -> list[AlbumCard]:
        """The cards that are visible now."""
        return list(self._cards)

    def _show(self, albums: list[Album]) -> None:
        own = [album for album in albums if album.own]
        self._albums = own + [album for album in albums if not album.own]
        self._own = len(own)
        if albums:
            self.notice.show()
        else:
            text = self.app.session.model_trouble or t("albums.empty.text")
            self.notice.show("albums", t("albums.empty.title"), text, t("albums.new"))
        self._arrange()

    def _failed(self, error: PocketclipError) -> None:
        self.notice.show("warning", t("broken.title"), str(error))

    def _arrange(self) -> None:
        if self._albums is None or self.scroll.width <= 1:
            return
        gap = dp(14)
        room = self.scroll.width - 2 * gap
        columns = max(2, round((room + gap) / (dp(CARD) + gap)))
        counts = [count for count in (self._own, len(self._albums) - self._own) if count]
        titles = [t("albums.own")] * bool(self._own) + [t("albums.found")] * (len(self._albums) > self._own)
        heading = dp(44) if self._own else 0
        self.rows = Rows(counts, Measures(room, columns, gap, heading, dp(CAPTION)))
        self.content.height = max(1.0, self.rows.height + gap)
        for head in self._heads:
            self.content.remove_widget(head)
        self._heads = []
        for section, title in enumerate(titles if heading else []):
            head = Factory.Heading(text=title, font_size=theme.body, size_hint=(None, None), width=room)
            head.pos = gap, float(self.content.height - self.rows.tops[section] - dp(32))
            self.content.add_widget(head)
            self._heads.append(head)
        self._cards.keep(())
        self._place()

    def _open(self, album: Album) -> None:
        self.app.open_album(album.label, album.own)

    def _place(self) -> None:
        if self._albums is None:
            return
        height = self.scroll.height
        top = max(0.0, self.content.height - height) * (1 - self.scroll.scroll_y)
        span = self.rows.span(top - height / 2, top + 1.5 * height)
        self._cards.keep(span)
        for index in span:
            card, (x, y) = self._cards.take(index), self.rows.place(index)
            side = round(self.rows.measures.cell)
            card.size = side, side + dp(CAPTION)
            card.pos = round(x + dp(14)), round(self.content.height - y - card.height)
            card.set(self._albums[index])


def _hide(card: AlbumCard) -> None:
    card.clear()
    card.size = 0, 0


load_layout(__file__)

"""What the search screen shows before anything is asked: past searches, and labels that photos have."""

from typing import Any

from kivy.factory import Factory
from kivy.metrics import dp
from kivy.properties import ObjectProperty
from kivy.uix.widget import Widget

from app.library.gallery import Album, Suggestion
from app.library.store.searches import forget_searches, past_searches
from app.ui.grid.album_card import CAPTION, AlbumCard
from app.ui.host import Host
from app.ui.kit.strings import t
from app.ui.kit.theme import theme
from app.ui.kit.widgets import Chip, Overlay, TextButton
from app.ui.screens.search.conditions import add_label
from app.ui.screens.search.model import SearchModel

MOST_LABELS, MOST_PAST = 12, 6

COVER = 104.0
"""Least side of a label's cover, in dp: three next to each other on the narrowest phone."""


class StartPage(Overlay):
    """Lies over the empty grid."""

    column = ObjectProperty(None)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._shown: tuple[list[str], list[Album]] | None = None
        self._covers: list[AlbumCard] = []

    def attach(self, app: Host, model: SearchModel) -> None:
        """Say where searches and labels come from, and what to search with; once, before `refresh`."""
        self._app, self._model = app, model

    def refresh(self) -> None:
        """Read past searches and labels again."""
        self._app.session.ask(
            lambda gallery: (past_searches(gallery.store, MOST_PAST), gallery.albums()[:MOST_LABELS]),
            self._show,
            lambda _: self._show(([], [])),
            "search start",
        )

    def _show(self, answer: tuple[list[str], list[Album]]) -> None:
        if answer == self._shown:
            return
        self._shown = past, albums = answer
        self.column.clear_widgets()
        for cover in self._covers:
            cover.clear()
        self.column.add_widget(Factory.Heading(text=t("search.start.title")))
        self.column.add_widget(Factory.SecondaryLabel(text=t("search.start.text"), font_size=theme.body))
        if past:
            self.column.add_widget(Factory.Caption(text=t("search.past")))
            self.column.add_widget(self._chips_for(past))
            forget = TextButton(text=t("search.forget"), kind="plain")
            forget.bind(on_release=lambda _: self._forget_searches())
            self.column.add_widget(forget)
        if albums:
            self.column.add_widget(Factory.Caption(text=t("search.labels")))
            self.column.add_widget(self._covers_for(albums))

    def _chips_for(self, past: list[str]) -> Widget:
        flow = Factory.Flow()
        for words in past:
            chip = Chip(text=words, icon="clock")
            chip.bind(on_release=lambda _, words=words: self._model.take(Suggestion(words, "search")))
            flow.add_widget(chip)
        return flow

    def _covers_for(self, albums: list[Album]) -> Widget:
        flow = Factory.Flow()
        while len(self._covers) < len(albums):
            self._covers.append(AlbumCard(self._app.pictures, self._search_label))
        for cover, album in zip(self._covers, albums, strict=False):
            if cover.parent is not None:
                cover.parent.remove_widget(cover)
            cover.set(album)
            flow.add_widget(cover)
        flow.bind(width=lambda _, width: self._fit_covers(width, flow.spacing[0]))
        self._fit_covers(flow.width, flow.spacing[0])
        return flow

    def _fit_covers(self, width: float, gap: float) -> None:
        """Make covers so large that their rows end at the right edge."""
        columns = max(2, int((width + gap) // (dp(COVER) + gap)))
        side = max(1, int((width - gap * (columns - 1)) / columns))
        for cover in self._covers:
            cover.size = side, side + dp(CAPTION)

    def _search_label(self, album: Album) -> None:
        self._model.refine(add_label(self._model.query, album.label))

    def _forget_searches(self) -> None:
        self._app.session.ask(
            lambda gallery: forget_searches(gallery.store), lambda _: self.refresh(), self._app.trouble
        )

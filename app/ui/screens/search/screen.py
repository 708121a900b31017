"""Search in words, live, with conditions as chips."""

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
from kivy.factory import Factory
from kivy.metrics import dp
from kivy.properties import BooleanProperty, ObjectProperty, StringProperty
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.widget import Widget

from app.library.gallery import Album, Suggestion
from app.library.search.query import parse_day
from app.library.store.photos import list_folders
from app.library.store.searches import forget_searches, past_searches
from app.ui.grid.album_card import CAPTION, AlbumCard
from app.ui.grid.sections import by_strength
from app.ui.host import Host
from app.ui.kit import layers
from app.ui.kit.shell import ChangeTracker, later
from app.ui.kit.strings import n, t
from app.ui.kit.theme import theme
from app.ui.kit.widgets import Chip, Field, TextButton, load_layout
from app.ui.screens.grid_screen import GridScreen
from app.ui.screens.search.model import SearchModel, usual_ranges

SHOWN_LABELS = 12
SHOWN_PAST = 6

COVER = 104.0
"""Side of a label's cover before anything is asked, in dp: three beside each other on the narrowest phone."""


class SuggestionRow(ButtonBehavior, Widget):
    """A completion of what is typed."""

    icon = StringProperty("")
    text = StringProperty("")
    on = BooleanProperty(False)


class SearchScreen(GridScreen):
    """The search."""

    field: Field = ObjectProperty(None)
    chips = ObjectProperty(None)
    start = ObjectProperty(None)
    completions = ObjectProperty(None)
    line = StringProperty("")
    asked = BooleanProperty(False)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        self.model = SearchModel(app.session, later, self._changed)
        self._shown: object = None
        self._at = -1
        self._differs = ChangeTracker()
        self._covers: list[AlbumCard] = []
        super().__init__(app, **kwargs)
        app.session.changed += self.model.again
        app.session.tags_changed += self._fill_start

    def on_pre_enter(self, *_: Any) -> None:
        super().on_pre_enter()
        self._changed()
        self._fill_start()

    def focus_field(self) -> None:
        """Put the cursor into the field."""
        self.field.focus = True

    # what the person does

    def typed(self, text: str) -> None:
        """The field's text has changed."""
        self.model.type(text)

    def submit(self) -> None:
        """Enter: follow the suggestion that is marked, else search at once."""
        if 0 <= self._at < len(self.model.suggestions):
            self._take(self.model.suggestions[self._at])
            return
        self.model.submit()
        self.model.suggestions = []
        self._changed()
        self.field.focus = False

    def clear(self) -> None:
        """Ask nothing; the cursor stays in the field."""
        self.field.text = ""
        self.model.clear()
        self.field.focus = True

    def _take(self, suggestion: Suggestion) -> None:
        self.model.take(suggestion)
        self.field.focus = False

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        if Field.focused is self.field and self.model.suggestions and key in ("up", "down"):
            count = len(self.model.suggestions)
            self._at = (self._at + (1 if key == "down" else -1)) % count
            self._fill_list()
            return True
        if Field.focused is self.field:
            if key == "down" and len(self.grid.ids_shown):
                self.field.focus = False
                return self.grid.on_key("down", modifiers)
            return False
        return super().on_key(key, modifiers)

    def on_back(self) -> bool:
        if super().on_back():
            return True
        if self.model.suggestions:
            self.model.suggestions = []
            self._changed()
            return True
        if not self.model.empty:
            self.field.text = ""
            self.model.clear()
            return True
        return False

    # what is shown

    def _changed(self) -> None:
        model = self.model
        if self.field.text != model.typed:
            self.field.text = model.typed
        self.asked = not model.empty
        self._fill_chips()
        self._fill_list()
        self.start.opacity = 0 if self.asked else 1
        if self._shown is not model.results or model.results is None:
            self._show_results()
        self._say()

    def _show_results(self) -> None:
        results = self.model.results
        again = self._shown is not None and results is not None
        self._shown = results
        if results is None:
            # While a first answer is on its way there is nothing to show; an older answer stays until then.
            self.grid.show(np.empty(0, np.int64), [], stay=False)
            return
        sections = by_strength(len(results.ids), results.strong, self.model.ranked)
        same = again and np.array_equal(results.ids, self.grid.ids_shown)
        self.grid.show(results.ids, sections, stay=same)

    def _say(self) -> None:
        model, results = self.model, self.model.results
        self.line = t("search.working") if model.working and results is None else ""
        notice = self.grid.notice
        if model.trouble:
            notice.show("warning", t("search.cannot"), model.trouble)
        elif results is not None and not len(results.ids):
            notice.show("search", t("search.none.title"), t("search.none.text"))
        else:
            notice.show()
        if results is not None and len(results.ids):
            strong, weak = results.strong, len(results.ids) - results.strong
            self.line = n("search.found", strong)
            if weak and model.ranked:
                self.line = t("search.found.weak", strong=self.line, weak=weak)

    def _fill_chips(self) -> None:
        if not self._differs("chips", self.model.conditions):
            return
        self.chips.clear_widgets()
        for condition in self.model.conditions:
            shown = Chip(text=condition.text, mark="close", on=True, icon=ICON_OF[condition.kind])
            shown.bind(on_release=lambda _, condition=condition: self.model.remove(condition))
            self.chips.add_widget(shown)
        for text, icon, call in (
            ("chip.label", "tag", self._pick_label),
            ("chip.dates", "calendar", self._pick_dates),
            ("chip.folder", "folder", self._pick_folder),
            ("chip.without", "minus", self._pick_without),
        ):
            offered = Chip(text=t(text), icon=icon)
            offered.bind(on_release=lambda _, call=call: call())
            self.chips.add_widget(offered)

    def _fill_list(self) -> None:
        suggestions = self.model.suggestions if self.field.focus else []
        self._at = min(self._at, len(suggestions) - 1)
        if not self._differs("completions", (suggestions, self._at)):
            return
        self.completions.clear_widgets()
        for place, suggestion in enumerate(suggestions[:6]):
            icon = "tag" if suggestion.kind == "label" else "clock"
            row = SuggestionRow(text=suggestion.text, icon=icon, on=place == self._at)
            row.bind(on_release=lambda _, suggestion=suggestion: self._take(suggestion))
            self.completions.add_widget(row)

    def _fill_start(self) -> None:
        """What can be asked before anything is: past searches, and labels that photos have."""
        self.app.session.ask(
            lambda gallery: (past_searches(gallery.store, SHOWN_PAST), gallery.albums()[:SHOWN_LABELS]),
            self._start_is,
            lambda _: self._start_is(([], [])),
            "search start",
        )

    def _start_is(self, answer: tuple[list[str], list[Album]]) -> None:
        past, labels = answer
        if not self._differs("start", answer):
            return
        column = self.ids.start_column
        column.clear_widgets()
        for cover in self._covers:
            cover.clear()
        column.add_widget(Factory.Heading(text=t("search.start.title")))
        column.add_widget(Factory.SecondaryLabel(text=t("search.start.text"), font_size=theme.body))
        if past:
            column.add_widget(Factory.Caption(text=t("search.past")))
            column.add_widget(self._flow(past))
            forget = TextButton(text=t("search.forget"), kind="plain")
            forget.bind(on_release=lambda _: self._forget())
            column.add_widget(forget)
        if labels:
            column.add_widget(Factory.Caption(text=t("search.labels")))
            column.add_widget(self._cover_flow(labels))

    def _flow(self, past: list[str]) -> Widget:
        flow = Factory.Flow()
        for words in past:
            chip = Chip(text=words, icon="clock")
            chip.bind(on_release=lambda _, words=words: self.model.take(Suggestion(words, "search")))
            flow.add_widget(chip)
        return flow

    def _cover_flow(self, albums: list[Album]) -> Widget:
        flow = Factory.Flow()
        while len(self._covers) < len(albums):
            self._covers.append(AlbumCard(self.app.pictures, lambda album: self.model.add_label(album.label)))
        for cover, album in zip(self._covers, albums, strict=False):
            if cover.parent is not None:
                cover.parent.remove_widget(cover)
            cover.set(album)
            flow.add_widget(cover)
        flow.bind(width=lambda _, width: self._fit_covers(width, flow.spacing[0]))
        self._fit_covers(flow.width, flow.spacing[0])
        return flow

    def _fit_covers(self, width: float, gap: float) -> None:
        """Make covers as large as fills their rows to the right edge."""
        columns = max(2, int((width + gap) // (dp(COVER) + gap)))
        side = max(1, int((width - gap * (columns - 1)) / columns))
        for cover in self._covers:
            cover.size = side, side + dp(CAPTION)

    def _forget(self) -> None:
        self.app.session.ask(
            lambda gallery: forget_searches(gallery.store), lambda _: self._fill_start(), self.app.trouble
        )

    # conditions

    def _pick_label(self) -> None:
        self.app.actions.pick_label(t("pick.label"), self.model.add_label, free=False)

    def _pick_folder(self) -> None:
        def choose(folders: Any) -> None:
            choices = [(folder.path, folder.path, str(folder.photos)) for folder in folders]
            pick = layers.PickDialog(
                self.model.add_folder, choices, "folder", title=t("pick.folder"), hint=t("pick.filter"), widest=560
            )
            pick.open(self.app.shell)

        self.app.session.ask(lambda gallery: list_folders(gallery.store), choose, self.app.trouble)

    def _pick_without(self) -> None:
        choices = [(label, label, "") for label in self.app.session.labels]
        layers.PickDialog(
            self.model.without, choices, "minus", True, title=t("pick.without"), hint=t("pick.without.hint")
        ).open(self.app.shell)

    def _pick_dates(self) -> None:
        DatesDialog(self.model.between).open(self.app.shell)


ICON_OF = {"label": "tag", "dates": "calendar", "folder": "folder", "without": "minus", "like": "similar"}


class DatesDialog(layers.Dialog):
    """Two days, or one of the usual ranges."""

    first = ObjectProperty(None)
    last = ObjectProperty(None)
    wrong = ObjectProperty(None)
    ranges = ObjectProperty(None)

    def __init__(self, picked: Callable[[date | None, date | None], None], **kwargs: Any) -> None:
        self._picked = picked
        super().__init__(title=t("dates.title"), **kwargs)
        self.move_to_body("ranges", "fields", "wrong")
        for name, first, last in usual_ranges(date.today()):
            chip = Chip(text=name)
            chip.bind(on_release=lambda _, days=(first, last): self._done(*days))
            self.ranges.add_widget(chip)
        self.add_action(t("action.cancel"), lambda: None)
        self.add_action(t("action.ok"), self.apply, "filled", closes=False)

    def apply(self) -> None:
        """Take the two days, if they are days."""
        try:
            first, last = parse_day(self.first.text), parse_day(self.last.text, end=True)
        except ValueError:
            self.wrong.text = t("dates.wrong")
            return
        self._done(first, last)

    def _done(self, first: date | None, last: date | None) -> None:
        self.close()
        self._picked(first, last)


load_layout(__file__)

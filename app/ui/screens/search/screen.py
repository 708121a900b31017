"""Search in words, live, with conditions as chips."""

from typing import Any

import numpy as np
from kivy.properties import BooleanProperty, ObjectProperty, StringProperty

from app.library.gallery import Results, Suggestion
from app.ui.grid.sections import by_strength
from app.ui.host import Host
from app.ui.kit.shell import later
from app.ui.kit.strings import n, t
from app.ui.kit.widgets import Field, load_layout
from app.ui.screens.grid_screen import GridScreen
from app.ui.screens.search.completions import Completions
from app.ui.screens.search.filter_bar import FilterBar
from app.ui.screens.search.model import SearchModel
from app.ui.screens.search.start_page import StartPage


class SearchScreen(GridScreen):
    """The search: a field with completions, conditions, and the results or a start page."""

    field: Field = ObjectProperty(None)
    filters: FilterBar = ObjectProperty(None)
    start: StartPage = ObjectProperty(None)
    completions: Completions = ObjectProperty(None)
    line = StringProperty("")
    asked = BooleanProperty(False)

    def __init__(self, app: Host, **kwargs: Any) -> None:
        self.model = SearchModel(app.session, later, self._changed)
        self._shown: Results | None = None
        super().__init__(app, **kwargs)
        self.filters.attach(app, self.model)
        self.start.attach(app, self.model)
        app.session.changed += self.model.again
        app.session.tags_changed += self.start.refresh

    def on_pre_enter(self, *_: Any) -> None:
        super().on_pre_enter()
        self._changed()
        self.start.refresh()

    # what the user does

    def focus_field(self) -> None:
        """Put the cursor into the field."""
        self.field.focus = True

    def submit(self) -> None:
        """Enter: follow the suggestion that is marked, else search at once."""
        marked = self.completions.marked
        if marked is not None:
            self.take(marked)
            return
        self.model.submit()
        self.model.suggestions.clear()
        self._changed()
        self.field.focus = False

    def take(self, suggestion: Suggestion) -> None:
        """Follow a suggestion."""
        self.model.take(suggestion)
        self.field.focus = False

    def clear(self) -> None:
        """Ask nothing; the cursor stays in the field."""
        self.field.text = ""
        self.model.clear()
        self.field.focus = True

    def on_key(self, key: str, modifiers: set[str]) -> bool:
        if Field.focused is not self.field:
            return super().on_key(key, modifiers)
        if self.model.suggestions.found and key in ("up", "down"):
            self._show_completions()
            self.completions.move(1 if key == "down" else -1)
            return True
        if key == "down" and len(self.grid.ids_shown):
            self.field.focus = False
            return self.grid.keyboard.press("down", modifiers)
        return False

    def on_back(self) -> bool:
        if super().on_back():
            return True
        if self.model.suggestions.found:
            self.model.suggestions.clear()
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
        self.filters.show()
        self._show_completions()
        self.start.opacity = 0 if self.asked else 1
        if self._shown is not model.results or model.results is None:
            self._show_results()
        self._show_line()

    def _show_completions(self) -> None:
        self.completions.show(self.model.suggestions.found if self.field.focus else [])

    def _show_results(self) -> None:
        results = self.model.results
        again = self._shown is not None and results is not None
        self._shown = results
        if results is None:
            # While the first answer is on its way there is nothing to show; an older answer stays until then.
            self.grid.show(np.empty(0, np.int64), [], stay=False)
            return
        sections = by_strength(len(results.ids), results.strong, self.model.ranked)
        same = again and np.array_equal(results.ids, self.grid.ids_shown)
        self.grid.show(results.ids, sections, stay=same)

    def _show_line(self) -> None:
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


load_layout(__file__)

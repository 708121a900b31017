"""What is searched for, and when: live while someone types, and the newest query wins."""

from collections.abc import Callable
from dataclasses import replace

from app.library.gallery import Query, Results, Suggestion, Term
from app.library.search.query import split_typed
from app.library.store.searches import remember_search
from app.ui.screens.search.conditions import add_label
from app.ui.screens.search.suggestions import Suggestions
from app.ui.session import Session
from mobileclip.errors import PocketclipError

PAUSE = 0.22
"""Seconds without a key after which a search starts."""

REMEMBERED_AFTER = 1.5
"""Seconds that results must stay before the text counts as a past search."""

Later = Callable[[Callable[[], None], float], Callable[[], None]]
"""Runs a callable after some seconds in the thread of the screen; returns what cancels it."""


class SearchModel:
    """The state of the search screen.

    Attributes:
        query: the conditions, without what is typed; see `full`.
        typed: the field's text.
        suggestions: completions of it.
        results: of the newest query that was answered; None before the first.
        ranked: whether they are ordered by how well they match, not by date.
        working: whether a query is on its way.
        trouble: why there are no results, in one line.
    """

    def __init__(self, session: Session, later: Later, changed: Callable[[], None]) -> None:
        self._session, self._later, self._changed = session, later, changed
        self.query = Query()
        self.typed = ""
        self.suggestions = Suggestions(session, changed)
        self.results: Results | None = None
        self.ranked = False
        self.working = False
        self.trouble = ""
        self._cancel: Callable[[], None] = lambda: None
        self._cancel_memory: Callable[[], None] = lambda: None

    @property
    def full(self) -> Query:
        """The query with what is typed."""
        text, without = split_typed(self.typed)
        typed = (Term(text),) if text else ()
        return replace(self.query, terms=typed + self.query.terms, without=self.query.without + without)

    @property
    def empty(self) -> bool:
        """Whether nothing is asked."""
        return self.full == Query()

    def type(self, text: str) -> None:
        """Another text is in the field."""
        if text == self.typed:
            return
        self.typed = text
        self.suggestions.type(text)
        self._soon(PAUSE)

    def submit(self) -> None:
        """Search at once, as after Enter."""
        self._soon(0)
        self._remember()

    def set(self, query: Query) -> None:
        """Ask something else altogether, with an empty field."""
        self.typed = ""
        self.suggestions.clear()
        self.refine(query)

    def refine(self, query: Query) -> None:
        """Ask with other conditions; the text in the field stays."""
        self.query = query
        self._soon(0)

    def clear(self) -> None:
        """Ask nothing."""
        self.set(Query())

    def take(self, suggestion: Suggestion) -> None:
        """Follow a suggestion: a label becomes a condition, a past search the text."""
        self.suggestions.clear()
        if suggestion.kind == "label":
            self.typed = ""
            self.refine(add_label(self.query, suggestion.text))
        else:
            self.typed = suggestion.text
            self._soon(0)

    def again(self) -> None:
        """Repeat the search, for the library has changed."""
        if not self.empty:
            self._search()

    def _soon(self, pause: float) -> None:
        self._cancel()
        self._cancel_memory()
        if self.empty:
            self._session.drop("search")
            self.results, self.working, self.trouble = None, False, ""
        elif pause:
            self._cancel = self._later(self._search, pause)
        else:
            self._search()
        self._changed()

    def _search(self) -> None:
        query = self.full
        if query == Query():
            return
        self.working = True
        self._changed()
        self._session.ask(
            lambda gallery: gallery.search(query), lambda results: self._found(query, results), self._failed, "search"
        )

    def _found(self, query: Query, results: Results) -> None:
        self.results, self.working, self.trouble = results, False, ""
        self.ranked = bool(query.terms or query.without)
        self._cancel_memory = self._later(self._remember, REMEMBERED_AFTER)
        self._changed()

    def _failed(self, error: PocketclipError) -> None:
        self.results, self.working, self.trouble = None, False, str(error)
        self._changed()

    def _remember(self) -> None:
        words = self.typed.strip()
        if len(words) > 2 and not self.trouble:
            self._session.chore(lambda gallery: remember_search(gallery.store, words), lambda _: None, lambda _: None)

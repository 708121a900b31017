"""What is searched for, and when: live as one types, the newest query wins."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta

from app.library.gallery import Query, Results, Suggestion, Term
from app.library.search.query import split_typed
from app.library.store.searches import remember_search
from app.ui.kit.strings import MONTHS, t
from app.ui.session import Session
from mobileclip.errors import PocketclipError

PAUSE = 0.22
"""Seconds without a key after which a search starts."""

KEPT_AFTER = 1.5
"""Seconds that results must stand before the words are remembered as a search."""

Later = Callable[[Callable[[], None], float], Callable[[], None]]
"""Runs a callable after some seconds in the thread of the screen; gives back what cancels it."""


@dataclass(frozen=True)
class Condition:
    """One condition of the search, as it is shown.

    Attributes:
        kind: "label", "dates", "folder", "without" or "like".
        value: what `remove` takes away.
        text: for the person.
    """

    kind: str
    value: str
    text: str


class SearchModel:
    """The state of the search screen.

    Attributes:
        query: without what is typed; see `full`.
        typed: the field's text.
        results: of the newest query that was answered; None before the first.
        ranked: whether they are ordered by how well they fit, not by date.
        working: a query is on its way.
        trouble: why there are no results, in a line.
        suggestions: completions of what is typed.
    """

    def __init__(self, session: Session, later: Later, changed: Callable[[], None]) -> None:
        self._session, self._later, self._changed = session, later, changed
        self.query = Query()
        self.typed = ""
        self.results: Results | None = None
        self.ranked = False
        self.working = False
        self.trouble = ""
        self.suggestions: list[Suggestion] = []
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
        """Nothing is asked."""
        return self.full == Query()

    def type(self, text: str) -> None:
        """Another text is in the field."""
        if text == self.typed:
            return
        self.typed = text
        self._suggest()
        self._soon(PAUSE)

    def submit(self) -> None:
        """Search at once, as after Enter."""
        self._soon(0)
        self._remember()

    def set(self, query: Query) -> None:
        """Ask something else altogether, with an empty field."""
        self.query, self.typed = query, ""
        self.suggestions = []
        self._soon(0)

    def clear(self) -> None:
        """Ask nothing."""
        self.set(Query())

    # conditions

    @property
    def conditions(self) -> list[Condition]:
        """All conditions but the words."""
        query, only = self.query, self.query.filter
        conditions = [Condition("like", "", t("chip.like"))] if query.terms else []
        conditions += [Condition("label", label, label) for label in only.labels]
        if only.first or only.last:
            conditions.append(Condition("dates", "", describe_days(only.first, only.last)))
        conditions += [
            Condition("folder", path, path.rstrip("/\\").replace("\\", "/").split("/")[-1] or path)
            for path in only.folders
        ]
        conditions += [Condition("without", word, t("chip.not", word=word)) for word in query.without]
        return conditions

    def remove(self, condition: Condition) -> None:
        """Take a condition away."""
        query, only = self.query, self.query.filter
        if condition.kind == "like":
            query = replace(query, terms=())
        elif condition.kind == "without":
            query = replace(query, without=tuple(word for word in query.without if word != condition.value))
        elif condition.kind == "label":
            only = replace(only, labels=tuple(label for label in only.labels if label != condition.value))
        elif condition.kind == "folder":
            only = replace(only, folders=tuple(path for path in only.folders if path != condition.value))
        else:
            only = replace(only, first=None, last=None)
        self._ask(replace(query, filter=only))

    def add_label(self, label: str) -> None:
        """Only photos with this label, too."""
        only = self.query.filter
        if label not in only.labels:
            self._ask(replace(self.query, filter=replace(only, labels=(*only.labels, label))))

    def add_folder(self, path: str) -> None:
        """Photos of this folder, too."""
        only = self.query.filter
        if path not in only.folders:
            self._ask(replace(self.query, filter=replace(only, folders=(*only.folders, path))))

    def without(self, word: str) -> None:
        """Leave out what looks like this."""
        word = word.strip()
        if word and word not in self.query.without:
            self._ask(replace(self.query, without=(*self.query.without, word)))

    def between(self, first: date | None, last: date | None) -> None:
        """Only photos of these days, inclusive."""
        if first and last and last < first:
            first, last = last, first
        self._ask(replace(self.query, filter=replace(self.query.filter, first=first, last=last)))

    def like(self, photo_id: int) -> None:
        """Photos that look like this one."""
        self.typed = ""
        self._ask(replace(self.query, terms=(Term(photo_id=photo_id),)))

    def take(self, suggestion: Suggestion) -> None:
        """Follow a suggestion: a label becomes a condition, a past search is typed again."""
        self.suggestions = []
        if suggestion.kind == "label":
            self.typed = ""
            self.add_label(suggestion.text)
        else:
            self.typed = suggestion.text
            self._soon(0)

    def _ask(self, query: Query) -> None:
        self.query = query
        self._soon(0)

    # asking

    def again(self) -> None:
        """Search once more, for the library has changed."""
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
        self._cancel_memory = self._later(self._remember, KEPT_AFTER)
        self._changed()

    def _failed(self, error: PocketclipError) -> None:
        self.results, self.working, self.trouble = None, False, str(error)
        self._changed()

    def _remember(self) -> None:
        words = self.typed.strip()
        if len(words) > 2 and not self.trouble:
            self._session.chore(lambda gallery: remember_search(gallery.store, words), lambda _: None, lambda _: None)

    def _suggest(self) -> None:
        text = self.typed.strip()
        if not text:
            self.suggestions = []
            self._session.drop("suggest")
            return
        self._session.ask(lambda gallery: gallery.suggest(text), self._suggested, lambda _: None, "suggest")

    def _suggested(self, suggestions: list[Suggestion]) -> None:
        shown = self.typed.strip().casefold()
        self.suggestions = [s for s in suggestions if s.kind == "label" or s.text.casefold() != shown] if shown else []
        self._changed()


def describe_days(first: date | None, last: date | None) -> str:
    """A range of days in few words."""
    if first and last:
        if first == last:
            return _day(first)
        if (first.month, first.day, last.month, last.day) == (1, 1, 12, 31):
            return str(first.year) if first.year == last.year else f"{first.year} – {last.year}"
        return f"{_day(first)} – {_day(last)}"
    return f"{_day(first)} –" if first else f"– {_day(last)}" if last else ""


def _day(value: date) -> str:
    return f"{value.day} {MONTHS[value.month - 1][:3]} {value.year}"


def usual_ranges(today: date) -> list[tuple[str, date, date]]:
    """Ranges that are often wanted, with their names."""
    return [
        (t("dates.week"), today - timedelta(days=6), today),
        (t("dates.month"), today.replace(day=1), today),
        (t("dates.year"), today.replace(month=1, day=1), today),
        (t("dates.last_year"), date(today.year - 1, 1, 1), date(today.year - 1, 12, 31)),
    ]

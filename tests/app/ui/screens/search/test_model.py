"""The state of a search without a window: what is asked when, and which answers count."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.library.gallery import Query, Results, Suggestion, Term
from app.library.store.connection import Store
from app.library.store.searches import past_searches
from app.ui.screens.search.conditions import add_label
from app.ui.screens.search.model import PAUSE, REMEMBERED_AFTER, SearchModel
from mobileclip.errors import PocketclipError


class Session:
    """Records questions; a test answers them."""

    def __init__(self) -> None:
        self.asked: dict[str, list[tuple[Any, ...]]] = {}
        self.chores: list[Callable[[Any], Any]] = []

    def ask(self, call: Any, then: Any, failed: Any, lane: str = "") -> None:
        self.asked.setdefault(lane, []).append((call, then, failed))

    def chore(self, call: Any, then: Any, failed: Any, lane: str = "") -> None:
        self.chores.append(call)

    def drop(self, lane: str) -> None:
        self.asked.pop(lane, None)

    def query(self) -> Query:
        """The newest query, as the library would get it."""
        gallery = SimpleNamespace(search=lambda query: query)
        return self.asked["search"][-1][0](gallery)


class Clock:
    """Runs what is due when a test says so."""

    def __init__(self) -> None:
        self.due: dict[int, tuple[Callable[[], None], float]] = {}
        self._numbers = 0

    def later(self, call: Callable[[], None], seconds: float) -> Callable[[], None]:
        self._numbers += 1
        number = self._numbers
        self.due[number] = call, seconds
        return lambda: self.due.pop(number, None) and None

    def run(self, seconds: float) -> None:
        for number, (call, due) in list(self.due.items()):
            if due <= seconds:
                del self.due[number]
                call()


@pytest.fixture
def parts() -> Any:
    session, clock, changes = Session(), Clock(), list[int]()
    model = SearchModel(session, clock.later, lambda: changes.append(1))  # type: ignore[arg-type]
    return SimpleNamespace(session=session, clock=clock, changes=changes, model=model)


def results(*ids: int) -> Results:
    return Results(np.array(ids, np.int64), np.zeros(len(ids), np.float32), len(ids))


def test_typing_searches_after_a_pause_and_only_for_the_last_text(parts: Any) -> None:
    for text in ("r", "re", "red"):
        parts.model.type(text)
    assert "search" not in parts.session.asked and len(parts.clock.due) == 1
    parts.clock.run(PAUSE)
    assert len(parts.session.asked["search"]) == 1 and parts.session.query() == Query((Term("red"),))
    assert parts.model.working
    parts.session.asked["search"][0][1](results(1, 2))
    assert not parts.model.working and parts.model.ranked and parts.model.results.ids.tolist() == [1, 2]


def test_conditions_join_what_is_typed_at_once(parts: Any) -> None:
    parts.model.type("red -dark")
    parts.model.refine(add_label(parts.model.query, "dog"))
    query = parts.session.query()
    assert (query.terms, query.without, query.filter.labels) == ((Term("red"),), ("dark",), ("dog",))
    parts.model.type("")
    parts.clock.run(PAUSE)
    assert parts.session.query() == add_label(Query(), "dog")
    parts.session.asked["search"][-1][1](results(5))
    assert not parts.model.ranked, "filters alone rank nothing"


def test_an_empty_query_asks_nothing_and_shows_nothing(parts: Any) -> None:
    parts.model.set(Query((Term(photo_id=7),)))
    parts.session.asked["search"][-1][1](results(8))
    parts.model.clear()
    assert parts.model.empty and parts.model.results is None and "search" not in parts.session.asked
    parts.model.again()
    assert "search" not in parts.session.asked


def test_an_error_is_shown_until_the_next_answer(parts: Any) -> None:
    parts.model.type("red")
    parts.model.submit()
    parts.session.asked["search"][-1][2](PocketclipError("no model"))
    assert parts.model.trouble == "no model" and not parts.model.working
    parts.model.again()
    parts.session.asked["search"][-1][1](results())
    assert parts.model.trouble == ""


def test_a_search_is_remembered_when_its_results_stay(parts: Any, tmp_path: Path) -> None:
    parts.model.type("red")
    parts.clock.run(PAUSE)
    parts.session.asked["search"][-1][1](results(1))
    parts.model.type("red car")
    parts.clock.run(PAUSE)
    assert parts.session.chores == []
    parts.session.asked["search"][-1][1](results(1))
    parts.clock.run(REMEMBERED_AFTER)
    with Store(tmp_path / "index.db", create=True) as store:
        parts.session.chores[0](SimpleNamespace(store=store))
        assert past_searches(store, 5) == ["red car"]


def test_suggestions_complete_the_text_and_following_one_clears_them(parts: Any) -> None:
    model = parts.model
    model.type(" Re")
    answer = parts.session.asked["suggest"][-1][1]
    answer([Suggestion("red", "label"), Suggestion("re", "search"), Suggestion("red car", "search")])
    assert [s.text for s in model.suggestions.found] == ["red", "red car"], "the text itself completes nothing"
    model.take(model.suggestions.found[1])
    assert model.typed == "red car" and model.suggestions.found == [] and "suggest" not in parts.session.asked
    model.take(Suggestion("red", "label"))
    assert model.typed == "" and parts.session.query().filter.labels == ("red",)
    model.type("")
    assert model.suggestions.found == []

"""Conditions are added and removed one by one, and nothing else of the query changes."""

from datetime import date
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from app.library.gallery import Filter, Query, Term
from app.ui.screens.search import conditions
from app.ui.screens.search.conditions import add_folder, add_label, between, conditions_of, leave_out

names = st.text(alphabet="ab/ ", min_size=1, max_size=3)
days = st.none() | st.dates(date(2020, 1, 1), date(2022, 12, 31))
changes = st.one_of(
    st.tuples(st.sampled_from([add_label, add_folder, leave_out]), st.tuples(names)),
    st.tuples(st.just(between), st.tuples(days, days)),
)
queries = st.builds(
    lambda changes, like: reduce(
        lambda query, change: change[0](query, *change[1]), changes, Query((Term(photo_id=3),) if like else ())
    ),
    st.lists(changes, max_size=8),
    st.booleans(),
)


@given(queries)
def test_each_condition_can_be_removed_and_leaves_the_others(query: Query) -> None:
    shown = conditions_of(query)
    for condition in shown:
        rest = conditions.remove(query, condition)
        assert conditions_of(rest) == [other for other in shown if other != condition]
    for condition in shown:
        query = conditions.remove(query, condition)
    assert query == Query()


@given(queries, changes)
def test_a_change_made_twice_counts_once(query: Query, change: tuple) -> None:
    make, values = change
    once = make(query, *values)
    assert make(once, *values) == once
    assert set(conditions_of(query)) - set(conditions_of(once)) <= {
        c for c in conditions_of(query) if c.kind == "dates"
    }


@given(days, days)
def test_days_come_in_order(first: date | None, last: date | None) -> None:
    only = between(Query(filter=Filter(labels=("dog",))), first, last).filter
    assert only.labels == ("dog",) and {only.first, only.last} == {first, last}
    assert only.first is None or only.last is None or only.first <= only.last
    assert only == between(Query(filter=Filter(labels=("dog",))), only.first, only.last).filter


def test_a_blank_text_leaves_nothing_out() -> None:
    assert leave_out(Query(), "  ") == Query()
    assert leave_out(Query(), " snow ") == Query(without=("snow",))


def test_what_chips_say() -> None:
    query = Query((Term(photo_id=3),), ("snow",), Filter(("dog",), ("/photos/Rome/", "/"), date(2024, 1, 1)))
    assert [(chip.kind, chip.value, chip.text) for chip in conditions_of(query)] == [
        ("like", "", "Like this photo"),
        ("label", "dog", "dog"),
        ("dates", "", "1 Jan 2024 –"),
        ("folder", "/photos/Rome/", "Rome"),
        ("folder", "/", "/"),
        ("without", "snow", "not snow"),
    ]

"""Queries as users write them: terms with weights, photos, words with a minus, and dates."""

from datetime import date
from pathlib import Path

import pytest

from app.library.search.query import Term, parse_day, parse_term, split_typed


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("cat", Term("cat")),
        ("2:cat", Term("cat", 2.0)),
        ("0.5:a red car", Term("a red car", 0.5)),
        ("note: cat", Term("note: cat")),
        ("~cat", Term("~cat")),
        ("~no-such-user/cat", Term("~no-such-user/cat")),
    ],
)
def test_a_text_may_have_a_weight(text: str, term: Term) -> None:
    assert parse_term(text) == term
    assert parse_term(text, -1.0) == Term(term.text, -term.weight)


@pytest.mark.parametrize("text", ["", "  ", "2:", "0:cat", "10000:cat", "./no-such.jpg", "cat.jpg", "~nobody/cat.jpg"])
def test_what_cannot_be_understood_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"query is empty|weight must|no photo"):
        parse_term(text)


def test_a_word_is_a_path_only_if_it_looks_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "cat.jpg"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_term("cat") == Term("cat")
    assert parse_term("cat.jpg") == Term("cat.jpg", is_photo=True)
    assert parse_term("2:./cat", -1.0) == Term("./cat", -2.0, is_photo=True)
    assert parse_term("~/cat.jpg") == Term(str(tmp_path / "cat.jpg"), is_photo=True)


@pytest.mark.parametrize(
    ("typed", "text", "without"),
    [
        ("beach -people", "beach", ("people",)),
        ("-snow mountain −ski", "mountain", ("snow", "ski")),
        ("black-and-white", "black-and-white", ()),
        ("beach - sand", "beach - sand", ()),
        ("-", "", ()),
        ("  ", "", ()),
        ("--", "", ()),
    ],
)
def test_a_minus_leaves_out(typed: str, text: str, without: tuple[str, ...]) -> None:
    assert split_typed(typed) == (text, without)


def test_days_months_and_years() -> None:
    assert parse_day(" 2024-02-29 ") == date(2024, 2, 29) and parse_day("") is None
    assert (parse_day("2024"), parse_day("2024", end=True)) == (date(2024, 1, 1), date(2024, 12, 31))
    assert (parse_day("2024-02"), parse_day("2024-02", end=True)) == (date(2024, 2, 1), date(2024, 2, 29))
    for wrong in ("2024-13-01", "2023-02-29", "0", "yesterday", "1-2-3-4", "2024-", "20240501"):
        for end in (False, True):
            with pytest.raises(ValueError, match="isn't a date"):
                parse_day(wrong, end=end)

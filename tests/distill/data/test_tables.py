"""Tables are read as rows, or refused in one line that names the file and the line."""

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.config import TextSource
from distill.data.sources import read_texts
from distill.data.tables import DataError, parse_list, read_table

NAMES = ("t.csv", "t.tsv", "t.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "t.csv",
            "file,caption\na.jpg,one\nf.jpg,a dog, a cat\n",
            'line 3: 3 cells, but the header has 2; .*"one, two"',
        ),
        ("t.csv", 'file,caption\n"a\nb.jpg",x\n\nc.jpg,a, b\n', "line 5: 3 cells"),
        ("t.tsv", "file\tcaption\na.jpg\tone\ttwo\n", "line 2: 3 cells, .* contains a tab"),
        ("t.csv", "file,caption\na.jpg\n", "line 2: 1 cell, but the header has 2"),
        ("t.csv", "file,caption,caption\na,b,c\n", "two columns are named `caption`"),
        ("t.csv", f"file,caption\na.jpg,{'x' * 131_073}\n", "line 2: a cell of more than 131,072 characters"),
        ("t.csv", 'file,caption\na.jpg,"a dog\nb.jpg,a cat\n', "line 2: a quoted text doesn't end"),
        ("t.csv", 'file,caption\na.jpg,"a dog" runs\n', "line 2: a quoted text doesn't end"),
        ("t.csv", "file,caption\na.jpg,x\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("t.jsonl", '{"file": "a"}'.encode("utf-16"), "it is UTF-16"),
        ("t.csv", b"file,caption\na.jpg,caf\xe9\n", "line 2: cannot be read"),
        ("t.jsonl", b"[" * 100_000, "line 1: not a JSON object"),
        ("t.jsonl", '{"file": "a", "caption": "b"}\n{"file": "a"}\n', "line 2: needs the columns `file` and `caption`"),
        ("t.jsonl", "3\n", "line 1: not a JSON object"),
    ],
)
def test_a_malformed_table_is_refused_in_one_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said) as caught:
        list(read_table(path, needs=("file", "caption")))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_lines_in_utf16_are_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("dog\ncat\n", "utf-16")
    with pytest.raises(DataError, match=r"words.txt: cannot be read \(it is UTF-16"):
        read_texts(TextSource("w", "lines", "words.txt"), tmp_path)


@pytest.mark.parametrize("name", ["nul\0byte.csv", "x" * 5000 + ".csv", "."])
def test_names_that_are_no_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_table(tmp_path / name))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.text(st.sampled_from('a,"\t\n\r\0{}[]:é\ufeff1'), max_size=80).map(str.encode),
    st.dictionaries(TEXTS, st.one_of(st.none(), st.floats(), st.integers(), TEXTS, st.lists(TEXTS))).map(
        lambda fields: str(fields).replace("'", '"').encode()
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.sampled_from(NAMES), content=CONTENTS, needs=st.lists(st.sampled_from("abc"), unique=True))
def test_any_bytes_give_rows_or_a_data_error(tmp_path: Path, name: str, content: bytes, needs: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        rows = list(read_table(tmp_path / name, needs))
    except DataError as error:
        assert "\n" not in str(error)
        return
    for row in rows:
        assert row.keys() >= set(needs)
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in row.items())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1), delimiter=st.sampled_from(",\t"))
def test_what_the_csv_module_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]], delimiter: str) -> None:
    path = tmp_path / ("t.tsv" if delimiter == "\t" else "t.csv")
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([("a", "b"), *rows])
    assert [(row["a"], row["b"]) for row in read_table(path)] == rows


@given(st.text())
def test_a_cell_is_a_list_of_texts(cell: str) -> None:
    found = parse_list(cell)
    assert all(text and text == text.strip() for text in found)
    if not cell.startswith("["):
        assert found == ([cell.strip()] if cell.strip() else [])

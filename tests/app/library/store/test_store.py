"""The index file: it returns what was stored, and refuses files that are not an index."""

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.library.errors import LibraryError
from app.library.files.scan import Found
from app.library.index.record import record_failure, record_photo
from app.library.labels.tagging import tagged_photos
from app.library.store.connection import Store
from app.library.store.failures import count_failures, list_failures
from app.library.store.photos import count_held_contents, count_photos, paths_of
from app.library.store.roots import add_root, list_roots
from app.library.store.schema import VERSION
from app.library.store.stored_paths import below, within
from app.library.store.tags import put_tags
from app.library.store.vectors import add_model, count_vectors, put_vector, vector_blocks
from mobileclip.zeroshot import LabelSet

names = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name and b"/" not in name)
settled = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def unit(seed: int, dim: int = 8) -> np.ndarray:
    row = np.random.default_rng(seed).normal(size=dim)
    return (row / np.linalg.norm(row)).astype(np.float32)


def add(store: Store, path: str, content: bytes, root_id: int = 1) -> int:
    return record_photo(store, Found(path, 1, 1), root_id, content)


@settled
@given(st.lists(names, unique=True, max_size=8))
def test_paths_are_bytes_and_come_back_as_they_were(tmp_path: Path, found: list[bytes]) -> None:
    with Store(tmp_path / "paths.db", create=True) as store:
        with store.transaction():
            store.sql.execute("DELETE FROM photos")
            root = add_root(store, "/photos")
            model = add_model(store, "f", "fake", 8)
            for number, name in enumerate(found):
                content = add(store, os.fsdecode(b"/photos/" + name), bytes([number]) * 32, root)
                put_vector(store, content, model, unit(number))
        paths = [os.fsencode(path) for path, _ in tagged_photos(store, model, LabelSet([]))]
        assert paths == sorted(b"/photos/" + name for name in found)
        assert list_roots(store)[0].photos == len(found)


@settled
@given(names, st.lists(names, max_size=3))
def test_what_lies_below_a_folder_is_what_within_says(folder: bytes, parts: list[bytes]) -> None:
    path = b"/".join([b"/a", folder, *parts])
    for candidate in (b"/a/" + folder, b"/a", b"/a/" + folder + b"0"):
        low, high = below(os.fsdecode(candidate))
        assert (low <= path < high) == (within(path, candidate) and path != candidate)


@settled
@given(st.lists(st.tuples(st.sampled_from(["put", "drop", "fail"]), st.integers(0, 4), st.integers(0, 3)), max_size=25))
def test_any_history_leaves_what_a_dict_would(tmp_path: Path, history: list[tuple[str, int, int]]) -> None:
    known: dict[str, int] = {}
    failed: dict[str, int] = {}
    path = tmp_path / "history.db"
    path.unlink(missing_ok=True)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with Store(path, create=True) as store:
        with store.transaction():
            root = add_root(store, "/p")
        stamps = {store.stamp()}
        for step, (action, name, content) in enumerate(history):
            photo = f"/p/{name}.jpg"
            with store.transaction():
                if action == "put":
                    record_photo(store, Found(photo, step, step), root, bytes([content]) * 32)
                    known[photo] = content
                    failed.pop(photo, None)
                elif action == "fail":
                    record_failure(store, Found(photo, step, step), root, "truncated", "")
                    known.pop(photo, None)
                    failed[photo] = failed.get(photo, 0) + 1
                else:
                    store.sql.execute("DELETE FROM photos WHERE path = ?", (os.fsencode(photo),))
                    known.pop(photo, None)
            if action == "put":
                assert store.stamp() not in stamps
            stamps.add(store.stamp())
        assert count_photos(store) == len(known)
        assert count_held_contents(store) == len(set(known.values()))
        assert {failure.path: failure.attempts for failure in list_failures(store)} == failed
        assert store.sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store.sql.execute("PRAGMA foreign_key_check").fetchall() == []


@settled
@given(st.integers(0, 2**32), st.integers(4, 768))
def test_rounding_to_float16_hardly_moves_a_cosine(seed: int, dim: int) -> None:
    photo, text = unit(seed, dim), unit(seed + 1, dim)
    kept = photo.astype("<f2").astype(np.float32)
    assert abs(float(kept @ text) / float(np.linalg.norm(kept)) - float(photo @ text)) < 5e-4


def test_two_copies_share_one_vector(store: Store) -> None:
    with store.transaction():
        root, model = add_root(store, "/p"), add_model(store, "f", "fake", 8)
        first = add(store, "/p/a.jpg", b"x" * 32, root)
        assert add(store, "/p/b.jpg", b"x" * 32, root) == first
        put_vector(store, first, model, unit(1))
        put_vector(store, first, model, unit(2))
    ((ids, rows),) = vector_blocks(store, model, 8)
    assert ids.tolist() == [first]
    np.testing.assert_allclose(rows[0], unit(1), atol=1e-3)
    assert paths_of(store, first) == ["/p/a.jpg", "/p/b.jpg"]


def test_blocks_stream_all_vectors_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.library.store.vectors.BLOCK_ROWS", 3)
    with store.transaction():
        root, model = add_root(store, "/p"), add_model(store, "f", "fake", 8)
        for number in range(8):
            put_vector(store, add(store, f"/p/{number}.jpg", bytes([number]) * 32, root), model, unit(number))
    blocks = list(vector_blocks(store, model, 8))
    assert [len(ids) for ids, _ in blocks] == [3, 3, 2]
    np.testing.assert_allclose(np.concatenate([rows for _, rows in blocks]), [unit(n) for n in range(8)], atol=1e-3)


@pytest.mark.parametrize("vector", [np.zeros(8), np.full(8, np.nan), np.full(8, 5.0)])
def test_what_is_no_unit_vector_is_refused(store: Store, vector: np.ndarray) -> None:
    with store.transaction():
        root, model = add_root(store, "/p"), add_model(store, "f", "fake", 8)
        content = add(store, "/p/a.jpg", b"x" * 32, root)
    with pytest.raises(LibraryError, match="unit vector"), store.transaction():
        put_vector(store, content, model, vector.astype(np.float32))
    assert count_vectors(store, model) == 0


def test_what_a_person_decided_outlives_the_model(store: Store) -> None:
    with store.transaction():
        content = add(store, "/p/a.jpg", b"x" * 32, add_root(store, "/p"))
        store.sql.execute("INSERT INTO tags VALUES (?, 'cat', 1.0, 'you')", (content,))
        put_tags(store, content, [("cat", 0.6), ("dog", 0.7)], "labels-1")
        put_tags(store, content, [("fox", 0.8)], "labels-2")
    tags = store.sql.execute("SELECT label, score, source FROM tags ORDER BY label").fetchall()
    assert tags == [("cat", 1.0, "you"), ("fox", 0.8, "model")]


def test_an_outer_root_takes_in_the_inner_ones(store: Store) -> None:
    with store.transaction():
        inner = add_root(store, "/p/q")
        add(store, "/p/q/a.jpg", b"x" * 32, inner)
        record_failure(store, Found("/p/q/b.jpg", 1, 1), inner, "truncated", "")
        outer = add_root(store, "/p")
        assert add_root(store, "/p/q/deeper") == outer
        assert add_root(store, "/pq") != outer
    assert [(root.path, root.photos) for root in list_roots(store)] == [("/p", 1), ("/pq", 0)]
    assert len(list_failures(store)) == 1


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction():
        add(store, "/p/a.jpg", b"x" * 32, add_root(store, "/p"))
        raise ZeroDivisionError
    assert count_photos(store) == 0 and not store.sql.in_transaction


def test_reasons_are_one_line_of_text(store: Store) -> None:
    with store.transaction():
        record_failure(store, Found("/p/a\udcff.jpg", 1, 1), add_root(store, "/p"), "truncated", "two\nlines \udcff")
    (failure,) = list_failures(store)
    assert failure.path == "/p/a\udcff.jpg" and failure.detail == "two lines \\udcff"


def test_a_newer_index_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    Store(path, create=True).sql.close()
    with sqlite3.connect(path) as sql:
        sql.execute(f"PRAGMA user_version = {VERSION + 1}")
    sql.close()
    before = path.read_bytes()
    with pytest.raises(LibraryError, match="newer pocketclip"):
        Store(path)
    assert path.read_bytes() == before


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with sqlite3.connect(path) as sql:
        sql.execute("CREATE TABLE theirs (x)")
    sql.close()
    with pytest.raises(LibraryError, match="not a pocketclip index"):
        Store(path, create=True)
    with sqlite3.connect(path) as sql:
        assert sql.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    sql.close()


def test_garbage_is_explained_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    path.write_bytes(b"no database at all, " * 400)
    with pytest.raises(LibraryError, match="not a pocketclip index") as caught:
        Store(path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LibraryError, match="cannot make the index folder"):
        Store(tmp_path / "file" / "index.db", create=True)


def test_a_full_disk_is_explained_and_keeps_what_was_there(store: Store, tmp_path: Path) -> None:
    with store.transaction():
        root = add_root(store, "/p")
        add(store, "/p/a.jpg", b"a" * 32, root)
    pages = store.sql.execute("PRAGMA page_count").fetchone()[0]
    with pytest.raises(LibraryError, match="disk is full"), Store(store.path) as crowded:
        crowded.sql.execute(f"PRAGMA max_page_count = {pages}")
        with crowded.transaction():
            for number in range(5000):
                record_failure(crowded, Found(f"/p/{number}.jpg", 1, 1), root, "truncated", "x" * 200)
    assert count_photos(store) == 1 and count_failures(store) == 0

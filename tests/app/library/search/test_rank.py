"""Search: the matrix on disk is only a copy, the ranking is exact, and strong means something."""

import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.library.errors import LibraryError, NothingIndexedError
from app.library.labels.tagging import label_fingerprint, refresh, tagged_photos
from app.library.search.query import Query, Term
from app.library.search.rank import Results, best_rows, query_vector, strong_from
from app.library.search.timeline import timeline
from app.library.store.connection import Store
from app.library.store.contents import count_by_label_set
from app.library.store.filter import Filter
from app.library.store.matrix import Matrix, cache_path, load_matrix
from app.library.store.photos import list_photos
from app.library.store.vectors import add_model, id_of_model
from mobileclip.errors import PhotoError
from tests.app.library.conftest import FakeModel, ask, find, names


def paths(store: Store, found: Results) -> list[str]:
    return [photo.path for photo in list_photos(store, found.ids)]


def test_best_first_and_never_more_than_asked(library, model) -> None:
    found = ask(library, model, "bright", top=3)
    assert len(found.ids) == 3 and found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    everything = ask(library, model, "bright", top=100)
    assert len(everything.ids) == 8 and everything.ids[:3].tolist() == found.ids.tolist()
    assert everything.strong == len(ask(library, model, "bright", top=max(1, everything.strong)).ids)


def test_scores_are_cosines_with_each_photo(library, model) -> None:
    found = ask(library, model, "bright")
    for path, score in zip(paths(library, found), found.scores.tolist(), strict=True):
        cosine = float(model.encode_images([path])[0] @ model.encode_texts(["bright"])[0])
        assert score == pytest.approx(cosine, abs=1e-3)


def test_a_photo_as_query_finds_the_others(photos, run, model, store) -> None:
    photo = str(photos / "first" / "rocket.jpg")
    shutil.copy(photo, photos / "copy.jpg")
    run(photos)
    found = find(store, model, Query((Term(photo, is_photo=True),)))
    assert len(found.ids) == 7 and photo not in paths(store, found)


def test_copies_are_all_shown(photos, run, model, store) -> None:
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(photos / "first" / "rocket.jpg", photos / name)
    run(photos)
    found = ask(store, model, "bright")
    scores = dict(zip(names(store, found.ids), found.scores.tolist(), strict=True))
    assert len(found.ids) == 10 and scores["a.jpg"] == scores["b.jpg"]


def test_only_below_a_folder(photos, run, model, store) -> None:
    run(photos)
    shutil.copy(photos / "first" / "flower.jpg", photos / "second" / "flower.jpg")
    run(photos)
    found = ask(store, model, "bright", filter=Filter(folders=(str(photos / "first"),)))
    assert len(found.ids) == 4 and all(path.startswith(str(photos / "first") + "/") for path in paths(store, found))
    assert len(ask(store, model, "bright", filter=Filter(folders=("/nowhere",))).ids) == 0


def test_weights_and_signs(store, model) -> None:
    nothing = Matrix(np.empty(0, np.int64), np.empty((0, model.dim), np.float32))
    one, two = model.encode_texts(["one", "two"])
    mixed = query_vector(store, model, nothing, [Term("one", 2.0), Term("two", -0.5)])
    expected = 2 * one - 0.5 * two
    np.testing.assert_allclose(mixed, expected / np.linalg.norm(expected), atol=1e-6)
    with pytest.raises(LibraryError, match="cancel"):
        query_vector(store, model, nothing, [Term("one"), Term("one", -1.0)])


def test_an_unreadable_query_photo_is_named(tmp_path, library, model) -> None:
    with pytest.raises(PhotoError, match=r"gone\.jpg"):
        find(library, model, Query((Term(str(tmp_path / "gone.jpg"), is_photo=True),)))


def test_nothing_indexed_and_another_model(photos, run, model, other_model, store) -> None:
    with pytest.raises(NothingIndexedError, match="nothing is indexed"):
        ask(store, model, "x")
    run(photos)
    with pytest.raises(NothingIndexedError, match="another model"):
        ask(store, other_model, "x")


def test_filters_narrow_but_do_not_change_what_is_strong(library: Store, model: FakeModel, photos: Path) -> None:
    all_of_them = ask(library, model, "bright")
    everything = dict(zip(all_of_them.ids.tolist(), all_of_them.scores.tolist(), strict=True))
    found = ask(library, model, "bright", filter=Filter(folders=(str(photos / "first"),)))
    inside = [photo_id for photo_id in everything if photo_id in set(found.ids.tolist())]
    assert found.ids.tolist() == inside and 0 < len(inside) < len(everything)
    np.testing.assert_allclose(found.scores, [everything[photo_id] for photo_id in inside], atol=1e-6)
    assert len(ask(library, model, "bright", filter=Filter(last=date(1990, 1, 1))).ids) == 0


def test_filters_alone_are_a_timeline(library: Store, model: FakeModel) -> None:
    for only in (Filter(), Filter(labels=("dark",))):
        found = ask(library, model, filter=only, top=1)
        assert found.ids.tolist() == timeline(library, only).ids.tolist() and found.strong == len(found.ids)
    assert 0 < len(timeline(library, Filter(labels=("dark",))).ids) < 8


def test_excluded_words_are_not_to_be_seen(library: Store, model: FakeModel) -> None:
    found = ask(library, model, "bright")
    unwanted = ask(library, model, "dark")
    strong = set(unwanted.ids[: unwanted.strong].tolist()) | set(
        timeline(library, Filter(labels=("dark",))).ids.tolist()
    )
    left = ask(library, model, "bright", without=("dark",))
    assert left.ids.tolist() == [photo_id for photo_id in found.ids if photo_id not in strong]
    assert 0 < len(left.ids) < len(found.ids)
    alone = ask(library, model, without=("dark", " "))
    assert alone.ids.tolist() == [photo_id for photo_id in timeline(library).ids if photo_id not in strong]


def test_more_like_this_photo_leaves_itself_and_its_copies_out(
    library: Store, model: FakeModel, run, photos: Path
) -> None:
    shutil.copy(next(photos.rglob("rocket.jpg")), photos / "copy.jpg")
    run(photos)
    ids = {Path(photo.path).name: photo.id for photo in list_photos(library, timeline(library).ids)}
    found = ask(library, model, like=ids["rocket.jpg"])
    assert "rocket.jpg" not in names(library, found.ids) and "copy.jpg" not in names(library, found.ids)
    by_path = find(library, model, Query((Term(str(next(photos.rglob("rocket.jpg"))), is_photo=True),)))
    assert found.ids.tolist() == by_path.ids.tolist()
    np.testing.assert_allclose(found.scores, by_path.scores, atol=2e-3)
    with_words = ask(library, model, "bright", like=ids["rocket.jpg"])
    assert set(with_words.ids) == set(found.ids) and with_words.ids.tolist() != found.ids.tolist()
    with pytest.raises(LibraryError, match="not in the index"):
        ask(library, model, like=10**9)


def test_an_empty_index_says_so(store: Store, model: FakeModel) -> None:
    assert len(ask(store, model).ids) == 0
    with pytest.raises(NothingIndexedError):
        ask(store, model, "bright")


@settings(deadline=None)
@given(
    arrays(np.float32, st.integers(0, 40), elements=st.integers(-3, 3).map(np.float32)),
    st.integers(1, 45),
    st.sets(st.integers(0, 80)),
    st.sets(st.integers(0, 80)),
    st.booleans(),
)
def test_best_rows_is_a_sort(scores, top, chosen, without, everything) -> None:
    ids = np.arange(len(scores), dtype=np.int64) * 2
    allowed = None if everything else np.array(sorted(chosen), np.int64)
    usable = [row for row in range(len(scores)) if ids[row] not in without and (everything or int(ids[row]) in chosen)]
    expected = sorted(usable, key=lambda row: -scores[row])[:top]
    rows = best_rows(scores, allowed, np.array(sorted(without), np.int64), ids, top)
    assert [scores[row] for row in rows] == [scores[row] for row in expected]
    assert set(rows) <= set(usable) and len(set(rows)) == len(rows)
    for score in set(scores[rows].tolist()):
        equal = [row for row in rows if scores[row] == score]
        assert equal == sorted(equal), "equal scores stay in the order of their rows"


def test_equal_scores_stay_in_the_order_of_their_rows_in_a_large_library() -> None:
    """argpartition shuffles them only when there are many."""
    scores = np.random.default_rng(0).integers(0, 4, 5000).astype(np.float32)
    nothing, ids = np.empty(0, np.int64), np.arange(5000)
    for top in (10, 700, 2500):
        rows = best_rows(scores, None, nothing, ids, top)
        for score in set(scores[rows].tolist()):
            equal = [row for row in rows if scores[row] == score]
            assert equal == sorted(equal)


def test_strong_matches_exceed_the_rest() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0.05, 0.03, 5000).astype(np.float32)
    border = strong_from(noise, [0.15, 0.2, 0.25, 0.3])
    assert 0.05 + 2.5 * 0.03 < border <= 0.3
    assert (noise >= border).mean() < 0.01


def test_strong_never_lies_below_where_labels_are_present() -> None:
    still = np.full(100, 0.01, np.float32)
    assert strong_from(still, [0.2, 0.2, 0.2]) == pytest.approx(0.2)


def test_a_library_that_shows_it_everywhere_is_strong_everywhere() -> None:
    dogs = np.random.default_rng(0).normal(0.4, 0.05, 200).astype(np.float32)
    assert (dogs >= strong_from(dogs, [0.15, 0.2, 0.25])).mean() > 0.9


def test_a_photo_query_is_judged_by_the_library_alone() -> None:
    scores = np.random.default_rng(0).normal(0.6, 0.05, 500).astype(np.float32)
    assert strong_from(scores, None) > 0.7


def test_a_model_without_labels_is_judged_by_the_library_alone() -> None:
    scores = np.random.default_rng(0).normal(0.2, 0.02, 500).astype(np.float32)
    assert strong_from(scores, []) == strong_from(scores, None) > 0.24


def damage(path: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    if kind == "cut":
        data = data[: len(data) // 2]
    elif kind == "empty":
        data = bytearray()
    elif kind == "header":
        data[20] ^= 1
    elif kind == "magic":
        data[0] ^= 1
    else:
        data[4100 if kind == "vector" else -1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["cut", "empty", "header", "magic", "vector", "id"])
def test_a_damaged_cache_is_made_again(photos, run, model, store, kind) -> None:
    run(photos)
    path = cache_path(store, model.fingerprint)
    before = path.read_bytes()
    matrix = load_matrix(store, model.fingerprint)
    rows, ids = matrix.rows.copy(), matrix.ids.copy()
    del matrix
    damage(path, kind)
    again = load_matrix(store, model.fingerprint)
    np.testing.assert_array_equal(again.rows, rows)
    np.testing.assert_array_equal(again.ids, ids)
    assert path.read_bytes() == before


def test_the_cache_is_mapped_and_reused(photos, run, model, store) -> None:
    run(photos)
    path = cache_path(store, model.fingerprint)
    stamp = path.stat().st_mtime_ns, path.stat().st_ino
    matrix = load_matrix(store, model.fingerprint)
    assert not matrix.rows.flags.owndata and not matrix.rows.flags.writeable
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == stamp
    np.testing.assert_allclose(np.linalg.norm(matrix.rows, axis=1), 1, atol=1e-6)


def test_the_cache_follows_every_change(photos, run, model, store) -> None:
    run(photos)
    (photos / "first" / "rocket.jpg").unlink()
    run(photos)
    assert len(load_matrix(store, model.fingerprint).ids) == 7
    with store.transaction():
        store.sql.execute("DELETE FROM photos WHERE id = (SELECT min(id) FROM photos)")
    assert len(load_matrix(store, model.fingerprint).ids) == 6


def test_the_cache_of_another_index_is_not_believed(photos, run, model, store, tmp_path) -> None:
    run(photos)
    with Store(tmp_path / "other" / "index.db", create=True) as other:
        with other.transaction():
            add_model(other, model.fingerprint, model.name, model.dim)
        shutil.copy(cache_path(store, model.fingerprint), cache_path(other, model.fingerprint))
        assert len(load_matrix(other, model.fingerprint).ids) == 0


def test_search_needs_no_free_space(photos, run, model, store, monkeypatch) -> None:
    run(photos)
    before = ask(store, model, "bright")
    cache_path(store, model.fingerprint).unlink()

    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.library.store.matrix.atomic_write", full)
    after = ask(store, model, "bright")
    assert (after.ids.tolist(), after.scores.tolist()) == (before.ids.tolist(), before.scores.tolist())
    assert not cache_path(store, model.fingerprint).exists()


def test_a_failed_write_leaves_no_part_behind(photos, run, model, store, monkeypatch) -> None:
    run(photos)
    cache_path(store, model.fingerprint).unlink()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mobileclip.files.os.fsync", full)
    assert len(load_matrix(store, model.fingerprint).ids) == 8
    assert not list(store.path.parent.glob("*.part"))


def test_new_labels_need_no_photo(photos, run, model, other_model, store) -> None:
    run(photos)
    before = dict(tagged_photos(store, id_of_model(store, model.fingerprint), model.labels))
    shutil.rmtree(photos)
    assert refresh(store, model) == 0
    model.labels, model.label_vectors = other_model.labels, -other_model.label_vectors
    assert refresh(store, model) == 8
    after = dict(tagged_photos(store, id_of_model(store, model.fingerprint), model.labels))
    assert before.keys() == after.keys() and before != after
    assert set(count_by_label_set(store)) == {label_fingerprint(model)}

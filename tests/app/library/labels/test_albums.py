"""Albums, custom labels, the review queue and suggestions."""

from pathlib import Path

import numpy as np
import pytest

from app.library.errors import LibraryError
from app.library.labels import albums, review
from app.library.labels.photo_tags import correct
from app.library.labels.rules import fit, rules_of, save_custom_label
from app.library.labels.tagging import refresh
from app.library.search.suggestions import suggest
from app.library.search.timeline import timeline
from app.library.store.connection import Store
from app.library.store.custom_labels import CustomLabel, list_custom_labels
from app.library.store.filter import Filter
from app.library.store.matrix import load_matrix
from app.library.store.photos import list_photos
from app.library.store.searches import past_searches, remember_search
from mobileclip.zeroshot import LabelSet
from tests.app.library.conftest import FakeModel, ask, names


def test_albums_have_a_cover_and_a_count(library: Store, model: FakeModel) -> None:
    found = albums.albums(library)
    assert [album.count for album in found] == sorted((album.count for album in found), reverse=True)
    for album in found:
        ids = timeline(library, Filter(labels=(album.label,))).ids.tolist()
        assert album.count == len(ids) and album.cover.id in ids and not album.own
    least = int(timeline(library, Filter(labels=("dark",))).ids[-1])
    correct(library, least, "dark", True)
    correct(library, least, "only here", True)
    covers = {album.label: album.cover.id for album in albums.albums(library)}
    assert covers["only here"] == least
    correct(library, least, "only here", None)
    assert "only here" not in {album.label for album in albums.albums(library)}


def test_a_custom_label_follows_its_slider_and_stays_put(library: Store, model: FakeModel) -> None:
    matrix = load_matrix(library, model.fingerprint)
    counts = []
    for sensitivity in np.linspace(0, 1, 11):
        rule = fit(model, matrix, CustomLabel("x", ("bright",), float(sensitivity)))
        counts.append(int((matrix.rows @ rule.vector >= rule.threshold).sum()))
    assert counts == sorted(counts) and counts[0] < counts[-1] < 8
    middle = fit(model, matrix, CustomLabel("x", ("bright",), 0.5))
    found = ask(library, model, "bright")
    assert int((matrix.rows @ middle.vector >= middle.threshold).sum()) == found.strong

    save_custom_label(library, model, CustomLabel("sunny days", ("bright", "sunny"), 1.0))
    refresh(library, model)
    (album,) = [album for album in albums.albums(library) if album.label == "sunny days"]
    assert album.own and list_custom_labels(library) == [CustomLabel("sunny days", ("bright", "sunny"), 1.0)]
    threshold = rules_of(library, model).labels["sunny days"].threshold
    library.sql.execute("DELETE FROM photos WHERE id = ?", (album.cover.id,))
    assert rules_of(library, model).labels["sunny days"].threshold == threshold


def test_new_photos_get_own_labels_too_and_another_model_is_fitted(
    library: Store, model: FakeModel, other_model: FakeModel, run, photos: Path
) -> None:
    save_custom_label(library, model, CustomLabel("mine", ("bright",), 1.0))
    refresh(library, model)
    tagged = set(timeline(library, Filter(labels=("mine",))).ids.tolist())
    assert tagged
    brightest = list_photos(library, ask(library, model, "bright").ids[:1])[0].path
    from PIL import Image

    Image.open(brightest).convert("RGB").resize((300, 300)).save(photos / "new.png")
    run(photos)
    assert "new.png" in names(library, timeline(library, Filter(labels=("mine",))).ids)
    run(photos, model=other_model)
    refresh(library, other_model)
    fitted = library.sql.execute("SELECT count(*) FROM own_fits").fetchone()
    assert fitted == (2,) and len(timeline(library, Filter(labels=("mine",))).ids)


def test_a_label_made_while_indexing_reaches_what_is_read_meanwhile(
    run, store: Store, model: FakeModel, photos: Path
) -> None:
    held = photos / "second"
    run(photos / "first")
    calls = []

    def meddle(progress) -> None:
        if progress.stage == "index" and progress.done and not calls:
            calls.append(progress)
            save_custom_label(store, model, CustomLabel("late", ("bright",), 1.0))
            refresh(store, model)
            for photo in list_photos(store, timeline(store).ids)[:1]:
                correct(store, photo.id, "dark", False)

    from app.library.index.run import Options, index_folders

    index_folders(store, model, [str(held)], Options(batch_size=1, decoders=1), progress=meddle)
    assert calls
    rules = rules_of(store, model)
    rows = load_matrix(store, model.fingerprint)
    for name in ("late", "dark"):
        expected = set(rows.ids[rules.decide_one(name, rows.rows)[0]].tolist())
        rejected = {c for (c,) in store.sql.execute("SELECT c.id FROM corrections k JOIN contents c ON c.hash = k.hash"
                                                    " WHERE k.label = ?", (name,))}  # fmt: skip
        tagged = {content for (content,) in store.sql.execute("SELECT content_id FROM tags WHERE label = ?", (name,))}
        assert tagged == expected - rejected, name


def test_a_bad_custom_label_is_refused_and_a_deleted_one_is_gone(library: Store, model: FakeModel) -> None:
    from app.library.labels.rules import delete_custom_label

    bad = (CustomLabel(" ", ("x",), 0.5), CustomLabel("x", (" ",), 0.5), CustomLabel("bright", ("x",), 0.5))
    opposites = CustomLabel("x", ("bright", "dark"), 0.5)  # in this model
    for label in (*bad, opposites):
        with pytest.raises(LibraryError):
            save_custom_label(library, model, label)
    assert list_custom_labels(library) == []
    save_custom_label(library, model, CustomLabel("mine", ("bright",), 7.0))
    assert list_custom_labels(library)[0].sensitivity == 1.0
    refresh(library, model)
    correct(library, int(timeline(library).ids[0]), "mine", True)
    delete_custom_label(library, "mine")
    refresh(library, model)
    for table, column in (("tags", "label"), ("corrections", "label"), ("decided", "label"), ("own_fits", "name")):
        assert library.sql.execute(f"SELECT count(*) FROM {table} WHERE {column} = 'mine'").fetchone() == (0,)
    delete_custom_label(library, "bright")
    assert timeline(library, Filter(labels=("bright",))).ids.size


def test_doubts_are_the_nearest_to_even_and_never_asked_twice(library: Store, model: FakeModel) -> None:
    model.labels = LabelSet([*model.labels])
    rules, matrix = rules_of(library, model), load_matrix(library, model.fingerprint)
    found = review.doubts(library, rules, matrix, 50)
    expected = {}
    for name in ("bright", "dark"):
        _, scores = rules.decide_one(name, matrix.rows)
        expected |= {(int(c), name): float(s) for c, s in zip(matrix.ids, scores, strict=True) if 0.27 < s < 0.73}
    assert {(doubt.photo.content_id, doubt.label) for doubt in found} == set(expected)
    for doubt in found:
        assert doubt.score == pytest.approx(expected[doubt.photo.content_id, doubt.label], abs=1e-4)
        assert doubt.given == (doubt.score >= 0.5)
    distances = [abs(doubt.score - 0.5) for doubt in found]
    assert distances == sorted(distances) and found, "no photo is in doubt here"
    correct(library, found[0].photo.id, found[0].label, True)
    again = review.doubts(library, rules, matrix, 50)
    assert (found[0].photo.id, found[0].label) not in {(doubt.photo.id, doubt.label) for doubt in again}
    assert len(review.doubts(library, rules, matrix, 1)) <= 1


def test_suggestions_begin_with_what_was_typed(store: Store) -> None:
    for words in ("dog on a beach", "red car", "Dog  park", "dog on a beach"):
        remember_search(store, words)
    remember_search(store, "   ")
    past = past_searches(store, 10)
    assert past == ["dog on a beach", "Dog park", "red car"]
    found = suggest(["hot dog", "dog", "cat", "dogwood"], past, "dog", 10)
    assert [(hint.text, hint.kind) for hint in found] == [
        ("dogwood", "label"),
        ("dog on a beach", "search"),
        ("Dog park", "search"),
        ("hot dog", "label"),
    ]
    assert [hint.text for hint in suggest([], past, " ", 2)] == past[:2]
    for number in range(250):
        remember_search(store, f"search {number}")
    assert len(past_searches(store, 1000)) == 200

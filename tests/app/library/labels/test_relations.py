"""Labels that exclude or imply each other, or are search only, in a library: as decided at once, so one by one."""

from dataclasses import replace

import pytest

from app.library.labels import review
from app.library.labels.photo_tags import correct
from app.library.labels.rules import rules_of
from app.library.labels.tagging import refresh
from app.library.search.timeline import timeline
from app.library.store.connection import Store
from app.library.store.matrix import load_matrix
from mobileclip.zeroshot import Label, LabelSet
from tests.app.library.conftest import FakeModel


def give(model: FakeModel, labels: LabelSet) -> None:
    model.labels = labels
    model.label_vectors = model.encode_texts([label.name for label in labels])


def tagged(library: Store) -> set[tuple[int, str]]:
    return set(library.sql.execute("SELECT content_id, label FROM tags WHERE source = 'model'").fetchall())


def expected(library: Store, model: FakeModel) -> set[tuple[int, str]]:
    matrix = load_matrix(library, model.fingerprint)
    decided = rules_of(library, model).decide(matrix.rows)
    found = {(int(c), name) for c, tags in zip(matrix.ids, decided, strict=True) for name, _ in tags}
    corrected = set(
        library.sql.execute("SELECT c.id, k.label FROM corrections k JOIN contents c ON c.hash = k.hash").fetchall()
    )
    return found - corrected


@pytest.fixture
def related(library: Store, model: FakeModel) -> LabelSet:
    names = ("bright", "dark", "red", "odd")
    labels = [
        Label(name, "light", (name,), threshold, 20.0)
        for name, threshold in zip(names, (-0.2, -0.2, 0.0, 9.0), strict=True)
    ]
    labels[2] = replace(labels[2], implies=("odd",))
    made = LabelSet(labels, [("bright", "dark")])
    give(model, made)
    refresh(library, model)
    return made


def test_a_photo_gets_one_of_two_that_exclude_each_other(library: Store, model: FakeModel, related: LabelSet) -> None:
    found = tagged(library)
    assert found == expected(library, model)
    contents = {content for content, _ in found}
    assert contents and all(not {(one, "bright"), (one, "dark")} <= found for one in contents)
    assert {one for one, name in found if name == "odd"} == {one for one, name in found if name == "red"}


def test_a_correction_moves_related_labels_too(library: Store, model: FakeModel, related: LabelSet) -> None:
    for photo in timeline(library).ids[:4].tolist():
        correct(library, int(photo), "dark", False)
        correct(library, int(photo), "red", False)
        refresh(library, model)
        assert tagged(library) == expected(library, model)


def test_a_label_that_becomes_search_only_leaves_all_photos(
    library: Store, model: FakeModel, related: LabelSet
) -> None:
    assert any(name == "bright" for _, name in tagged(library))
    give(model, LabelSet([replace(label, search_only=label.name == "bright") for label in related]))
    refresh(library, model)
    assert tagged(library) == expected(library, model)
    assert not any(name == "bright" for _, name in tagged(library))


def test_doubts_are_where_a_label_begins(library: Store, model: FakeModel) -> None:
    labels = [
        Label("bright", "light", ("bright",), 0.0, 4.0, least=0.8),
        Label("dark", "light", ("dark",), 0, 4.0, search_only=True),
    ]
    give(model, LabelSet(labels))
    refresh(library, model)
    matrix = load_matrix(library, model.fingerprint)
    doubts = review.doubts(library, rules_of(library, model), matrix, 50)
    assert {doubt.label for doubt in doubts} <= {"bright"}
    for doubt in doubts:
        assert doubt.given == (doubt.score >= 0.8) and abs(doubt.score - 0.8) < 0.2

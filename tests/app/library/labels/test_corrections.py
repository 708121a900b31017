"""What a person decides wins permanently, moves a threshold by a documented rule, and can be exported for training."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.library.errors import LibraryError
from app.library.labels import training_pairs as pairs
from app.library.labels.photo_tags import PhotoTag, correct, tags_of
from app.library.labels.rules import MOST_LOGITS, refit, rules_of, save_custom_label
from app.library.labels.tagging import refresh
from app.library.search.timeline import timeline
from app.library.store.connection import Store
from app.library.store.corrections import Correction, list_corrections
from app.library.store.custom_labels import CustomLabel
from app.library.store.photos import list_photos
from mobileclip.zeroshot import Label
from tests.app.library.conftest import FakeModel


def ids(store: Store) -> dict[str, int]:
    return {Path(photo.path).name: photo.id for photo in list_photos(store, timeline(store).ids)}


def labels(store: Store, photo_id: int) -> dict[str, str]:
    return {tag.label: tag.source for tag in tags_of(store, photo_id) if tag.verdict is not False}


def every_tag(store: Store) -> dict[tuple[int, str, str], float]:
    rows = store.sql.execute("SELECT content_id, label, source, score FROM tags").fetchall()
    return {row[:3]: row[3] for row in rows}


def given_by_model(store: Store, model: FakeModel) -> tuple[int, str]:
    refresh(store, model)
    for photo_id in ids(store).values():
        for label, source in labels(store, photo_id).items():
            if source == "model":
                return photo_id, label
    raise AssertionError("the model gave no tag at all")


def test_a_rejected_tag_never_comes_back(photos, run, model, store, other_model) -> None:
    run(photos)
    photo_id, label = given_by_model(store, model)
    correct(store, photo_id, label, False)
    for again in (model, other_model, model):
        run(photos, model=again, retry=True)
        refresh(store, again)
        assert label not in labels(store, photo_id)
    assert PhotoTag(label, 0.0, "you", False) in tags_of(store, photo_id)


def test_an_accepted_tag_stays_whatever_the_model_says(photos, run, model, store, other_model) -> None:
    run(photos)
    photo_id = next(iter(ids(store).values()))
    correct(store, photo_id, "  grandma's   house ", True)
    run(photos, model=other_model)
    refresh(store, other_model)
    assert labels(store, photo_id)["grandma's house"] == "you"
    assert tags_of(store, photo_id)[0] == PhotoTag("grandma's house", 1.0, "you", True)


def test_decisions_follow_the_content_through_moves_copies_and_forgetting(photos, run, model, store) -> None:
    run(photos)
    photo_id, label = given_by_model(store, model)
    (photo,) = list_photos(store, [photo_id])
    correct(store, photo_id, label, False)
    correct(store, photo_id, "mine", True)

    moved = photos / "third" / "renamed.jpg"
    moved.parent.mkdir()
    shutil.move(photo.path, moved)
    shutil.copy(moved, photos / "copy.jpg")
    run(photos)
    for name in ("renamed.jpg", "copy.jpg"):
        held = labels(store, ids(store)[name])
        assert held["mine"] == "you" and label not in held

    store.sql.execute("DELETE FROM photos")
    store.sql.execute("DELETE FROM contents")
    run(photos)
    held = labels(store, ids(store)["renamed.jpg"])
    assert held["mine"] == "you" and label not in held


def test_undo_brings_the_model_s_tag_back(photos, run, model, store) -> None:
    run(photos)
    photo_id, label = given_by_model(store, model)
    before = [(tag.label, tag.source, round(tag.score, 6)) for tag in tags_of(store, photo_id)]
    correct(store, photo_id, label, False)
    refresh(store, model)
    correct(store, photo_id, label, None)
    refresh(store, model)
    assert [(tag.label, tag.source, round(tag.score, 6)) for tag in tags_of(store, photo_id)] == before
    assert store.sql.execute("SELECT count(*) FROM decided").fetchone() == (0,)


def test_a_decision_on_nothing_is_refused(photos, run, store) -> None:
    run(photos)
    with pytest.raises(LibraryError, match="needs a name"):
        correct(store, 1, "  ", True)
    with pytest.raises(LibraryError, match="not in the index"):
        correct(store, 999, "dog", True)


def test_corrections_move_the_label_on_other_photos_too(photos, run, model, store) -> None:
    run(photos)
    refresh(store, model)
    rules, name = rules_of(store, model), "dark"
    by_photo = {photo: {tag.label: tag.score for tag in tags_of(store, photo)} for photo in ids(store).values()}
    given_to = sorted((tags[name], photo) for photo, tags in by_photo.items() if name in tags)
    assert len(given_to) >= 3, "these photos are too bright for this test"
    for _, photo in given_to[1:]:
        correct(store, photo, name, False)
    refresh(store, model)
    # Nobody decided on the faintest one, but what looks more like the label was wrong.
    assert name not in labels(store, given_to[0][1])
    assert rules_of(store, model).labels[name].threshold > rules.labels[name].threshold


def test_tags_after_a_refit_are_those_of_deciding_everything_again(photos, run, model, store) -> None:
    run(photos)
    refresh(store, model)
    for number, photo_id in enumerate(ids(store).values()):
        correct(store, photo_id, ("bright", "dark")[number % 2], number % 3 == 0)
        refresh(store, model)
        kept = every_tag(store)
        store.sql.execute("UPDATE contents SET tagged_by = NULL")
        refresh(store, model)
        again = every_tag(store)
        assert kept.keys() == again.keys() and kept
        assert all(abs(kept[tag] - again[tag]) < 0.005 for tag in kept)


LABEL = Label("dog", "pets", ("a dog",), 0.3, 20.0, 12)
decisions = st.lists(st.tuples(st.floats(-1, 1), st.booleans()), max_size=12)
settled = settings(max_examples=80, deadline=None)


def moved(pairs_: list[tuple[float, bool]]) -> float:
    cosines, verdicts = np.array([c for c, _ in pairs_]), np.array([v for _, v in pairs_], dtype=bool)
    return (refit(LABEL, cosines, verdicts).threshold - LABEL.threshold) * LABEL.slope


@settled
@given(decisions)
def test_the_refit_is_the_minimum_that_its_description_names(pairs_: list[tuple[float, bool]]) -> None:
    grid = np.linspace(-MOST_LOGITS, MOST_LOGITS, 4001)
    loss = grid**2 / 2
    for cosine, verdict in pairs_:
        logit = LABEL.slope * (cosine - LABEL.threshold)
        loss = loss + np.logaddexp(0, -(1 if verdict else -1) * (logit - grid))
    assert moved(pairs_) == pytest.approx(grid[loss.argmin()], abs=0.003)


@settled
@given(decisions, st.floats(-1, 1), st.randoms())
def test_one_more_word_never_moves_it_the_wrong_way(pairs_, cosine: float, random) -> None:
    before = moved(pairs_)
    assert abs(before) <= MOST_LOGITS
    assert moved([*pairs_, (cosine, False)]) >= before - 1e-9
    assert moved([*pairs_, (cosine, True)]) <= before + 1e-9
    shuffled = list(pairs_)
    random.shuffle(shuffled)
    assert moved(shuffled) == pytest.approx(before, abs=1e-6)


def test_no_corrections_no_move_and_many_are_bounded() -> None:
    assert moved([]) == pytest.approx(0, abs=1e-9)
    assert moved([(0.9, False)] * 1000) == pytest.approx(MOST_LOGITS, abs=1e-6)
    assert moved([(-0.9, True)] * 1000) == pytest.approx(-MOST_LOGITS, abs=1e-6)


def test_one_rejection_of_a_photo_at_60_percent_takes_the_label_from_its_like() -> None:
    cosine = LABEL.threshold + np.log(0.6 / 0.4) / LABEL.slope
    assert moved([(cosine, False)]) > np.log(0.6 / 0.4)


def test_what_is_exported_is_what_the_trainer_reads(photos, run, model, store, tmp_path: Path) -> None:
    sources = pytest.importorskip("distill.data.sources")
    from distill.config import PhotoSource

    run(photos)
    save_custom_label(store, model, CustomLabel("Oma", ("an old woman", "a grandmother"), 0.5))
    names = ids(store)
    correct(store, names["chelsea.png"], "cat", True)
    correct(store, names["chelsea.png"], "pet|animal", True)
    correct(store, names["chelsea.png"], "dog", False)
    correct(store, names["astronaut.png"], "Oma", True)
    correct(store, names["coffee.png"], "tea", False)
    phrases = {"Oma": "an old woman"}
    for suffix in pairs.SUFFIXES:
        out = photos / f"mine{suffix}"
        assert pairs.export(list_corrections(store), phrases, out) == pairs.Exported(2, 1, 0, 0)
        source = PhotoSource("mine", "labels", out.name, templates=("a photo of {}",))
        samples = {sample.photo.path.name: sample for sample in sources.list_photos(source, photos).photos}
        assert set(samples) == {"chelsea.png", "astronaut.png"}
        assert samples["chelsea.png"].texts == ("a photo of cat and pet animal",)
        assert samples["astronaut.png"].texts == ("a photo of an old woman",)
        assert all(sample.photo.path.is_file() for sample in samples.values())
    rows = [json.loads(line) for line in (photos / "mine.jsonl").read_text().splitlines()]
    assert {row["file"]: row["rejected"] for row in rows}["first/chelsea.png" if (photos / "first/chelsea.png").exists()
                                                          else "second/chelsea.png"] == "dog"  # fmt: skip
    elsewhere = tmp_path / "elsewhere.csv"
    pairs.export(list_corrections(store), {}, elsewhere)
    with elsewhere.open(newline="") as stream:
        assert all(os.path.lexists(tmp_path / row["file"]) for row in csv.DictReader(stream))


def test_names_that_are_no_text_leave_as_json_only(tmp_path: Path) -> None:
    odd = os.fsdecode(b"/photos/\xff.jpg")
    found = [Correction((odd,), "ab", "dog", True, 0.0), Correction((), "cd", "dog", True, 0.0)]
    assert pairs.export(found, {}, tmp_path / "a.csv") == pairs.Exported(0, 0, 1, 1)
    assert pairs.export(found, {}, tmp_path / "a.jsonl") == pairs.Exported(1, 0, 1, 0)
    (line,) = (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert os.fsencode(json.loads(line)["file"]) == b"/photos/\xff.jpg"


def test_an_export_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"end in \.jsonl"):
        pairs.export([], {}, tmp_path / "a.txt")
    with pytest.raises(LibraryError, match="cannot be written"):
        pairs.export([], {}, tmp_path / "no" / "a.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(LibraryError, match="cannot be written"):
        pairs.export([], {}, tmp_path / "folder.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]

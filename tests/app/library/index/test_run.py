"""Indexing: only what is new is read, failures are recorded, and photos are removed only where we could look."""

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.library.errors import IndexBusyError, LibraryError
from app.library.files.content import content_hash
from app.library.index.decode import ahead
from app.library.index.lock import IndexLock
from app.library.labels.photo_tags import correct
from app.library.labels.tagging import tagged_photos
from app.library.search.timeline import timeline
from app.library.store import contents
from app.library.store.connection import Store
from app.library.store.contents import id_of_content
from app.library.store.failures import list_failures
from app.library.store.photos import count_photos, list_photos
from app.library.store.roots import list_roots
from app.library.store.vectors import id_of_model, list_models, vector_blocks
from mobileclip.errors import EngineError, PhotoError


def vector_of(store: Store, path: Path, model: object) -> np.ndarray:
    content = id_of_content(store, content_hash(str(path)))
    model_id = id_of_model(store, model.fingerprint)
    for ids, rows in vector_blocks(store, model_id, model.dim):
        if content in ids:
            return rows[ids.tolist().index(content)]
    raise KeyError(path)


def test_a_second_run_reads_nothing(photos, run, model, store) -> None:
    first = run(photos)
    assert (first.found, first.embedded, first.failed) == (8, 8, 0)
    again = run(photos)
    assert (again.found, again.embedded, again.unchanged, again.removed) == (8, 0, 8, 0)
    assert model.seen == 8
    assert count_photos(store) == 8


def test_vectors_and_tags_are_those_of_each_photo_alone(photos, run, model, store) -> None:
    run(photos)
    for path in photos.rglob("*.*"):
        np.testing.assert_allclose(vector_of(store, path, model), model.encode_images([path])[0], atol=1e-3)
    tags = dict(tagged_photos(store, id_of_model(store, model.fingerprint), model.labels))
    assert [tag.label for tag in tags[str(photos / "second" / "moon.png")]] in (["bright"], ["dark"], [])
    assert len(tags) == 8


def test_a_bad_photo_does_not_shift_its_neighbors(photos, run, model, store) -> None:
    whole = photos / "first" / "rocket.jpg"
    data = next(photos.rglob("china.jpg")).read_bytes()
    for number, photo in enumerate(sorted(photos.rglob("*.*"))):
        photo.with_name(f"{photo.stem}-bad{number}.jpg").write_bytes(data[: 1000 + number])
    report = run(photos, batch_size=4)
    assert (report.embedded, report.failed) == (8, 8)
    assert {failure.reason for failure in report.failures} <= {"truncated", "not an image", "decode error"}
    for path in photos.rglob("*.*"):
        if "-bad" not in path.name:
            np.testing.assert_allclose(vector_of(store, path, model), model.encode_images([path])[0], atol=1e-3)
    assert whole.exists()


def test_a_failure_is_tried_again_only_when_asked_or_changed(photos, run, store) -> None:
    bad = photos / "bad.jpg"
    bad.write_text("not a photo")
    assert run(photos).failed == 1
    again = run(photos)
    assert (again.failed, again.failed_before, again.unchanged) == (0, 1, 8)
    assert run(photos, retry=True).failed == 1
    assert list_failures(store)[0].attempts == 2
    shutil.copy(photos / "first" / "rocket.jpg", bad)
    mended = run(photos)
    assert (mended.reused, mended.failed, mended.failed_before) == (1, 0, 0)
    assert list_failures(store) == []


def test_a_permission_that_was_given_later_needs_no_retry(photos, run, monkeypatch) -> None:
    real = os.open

    def denied(name, flags, *rest, **more):
        if str(name).endswith("rocket.jpg"):
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr("app.library.files.content.os.open", denied)
        report = run(photos)
        assert [failure.reason for failure in report.failures] == ["no permission"]
    assert run(photos).embedded == 1


def test_a_photo_that_broke_is_no_longer_found(photos, run, store) -> None:
    run(photos)
    photo = photos / "first" / "rocket.jpg"
    photo.write_bytes(photo.read_bytes()[:2000])
    report = run(photos)
    assert (report.failed, count_photos(store)) == (1, 7)


def test_changed_moved_copied_and_deleted(photos, run, model, store) -> None:
    run(photos)
    (photos / "moved").mkdir()
    (photos / "first" / "rocket.jpg").rename(photos / "moved" / "renamed.jpg")
    shutil.copy(photos / "second" / "moon.png", photos / "copy of moon.png")
    next(photos.rglob("coffee.png")).unlink()
    changed = next(photos.rglob("china.jpg"))
    Image.new("RGB", (64, 64), "red").save(changed)
    report = run(photos)
    assert (report.found, report.embedded, report.reused, report.removed) == (8, 1, 2, 2)
    assert model.seen == 9
    np.testing.assert_allclose(vector_of(store, changed, model), model.encode_images([changed])[0], atol=1e-3)
    assert run(photos).unchanged == 8


def test_touched_but_equal_files_are_not_decoded(photos, run, model) -> None:
    run(photos)
    for path in photos.rglob("*.*"):
        os.utime(path, (1, 1))
    report = run(photos)
    assert (report.reused, report.embedded, model.seen) == (8, 0, 8)


def test_a_move_between_folders_indexed_one_after_the_other_keeps_the_vector(photos, run, model) -> None:
    first, second = photos / "first", photos / "second"
    run(first, second)
    (first / "rocket.jpg").rename(second / "rocket.jpg")
    assert run(first).removed == 1
    assert run(second).reused == 1
    assert model.seen == 8


def test_contents_without_a_photo_are_forgotten_after_a_month(photos, run, store, monkeypatch) -> None:
    run(photos)
    (photos / "first" / "rocket.jpg").unlink()
    run(photos)
    count = "SELECT count(*) FROM contents"
    assert store.sql.execute(count).fetchone() == (8,)
    now, day = time.time(), 24 * 3600
    monkeypatch.setattr(contents.time, "time", lambda: now + 29 * day)
    run(photos)
    assert store.sql.execute(count).fetchone() == (8,)
    monkeypatch.setattr(contents.time, "time", lambda: now + 31 * day)
    run(photos)
    assert store.sql.execute(count).fetchone() == (7,)


def test_contents_that_a_person_labeled_are_never_forgotten(photos, run, store, monkeypatch) -> None:
    run(photos)
    labeled, unlabeled = photos / "first" / "rocket.jpg", photos / "second" / "moon.png"
    (photo_id,) = (photo.id for photo in list_photos(store, timeline(store).ids) if photo.path == str(labeled))
    correct(store, photo_id, "mine", True)
    kept, forgotten = content_hash(str(labeled)), content_hash(str(unlabeled))
    labeled.unlink()
    unlabeled.unlink()
    run(photos)
    now = time.time()
    monkeypatch.setattr(contents.time, "time", lambda: now + 365 * 24 * 3600)
    run(photos)
    assert id_of_content(store, kept) is not None
    assert id_of_content(store, forgotten) is None


def test_stopping_in_the_middle_of_a_scan_removes_nothing(photos, run, store, monkeypatch) -> None:
    run(photos)
    monkeypatch.setattr("app.library.index.changes._PAGE", 2)
    report = run(photos, stop=lambda: True)
    assert report.interrupted and report.removed == 0
    assert count_photos(store) == 8


def test_a_vanished_root_purges_nothing(photos, run, store, tmp_path) -> None:
    run(photos)
    photos.rename(tmp_path / "unplugged")
    report = run(photos)
    assert report.removed == 0 and [path for path, _ in report.unread] == [str(photos)]
    assert count_photos(store) == 8
    (tmp_path / "unplugged").rename(photos)
    assert run(photos).unchanged == 8


def test_a_root_that_turned_up_empty_is_taken_for_unmounted(photos, run, store, tmp_path) -> None:
    run(photos)
    photos.rename(tmp_path / "unplugged")
    photos.mkdir()
    report = run(photos)
    assert (report.removed, report.spared) == (0, [str(photos)])
    assert run(photos, allow_empty=True).removed == 8
    assert count_photos(store) == 0


def test_a_folder_that_cannot_be_read_keeps_what_is_below_it(photos, run, store, monkeypatch) -> None:
    run(photos)
    (photos / "second").joinpath("astronaut.png").unlink()
    real = os.scandir

    def denied(path):
        if path.endswith("/second"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr("app.library.files.scan.os.scandir", denied)
        (photos / "first" / "rocket.jpg").unlink()
        report = run(photos)
    assert report.unread == [(str(photos / "second"), "Permission denied")]
    assert report.removed == 1
    assert run(photos).removed == 1


def test_a_link_whose_drive_is_gone_keeps_what_is_below_it(photos, run, tmp_path) -> None:
    drive = tmp_path / "drive"
    (photos / "first").rename(drive)
    (photos / "linked").symlink_to(drive)
    run(photos)
    drive.rename(tmp_path / "unplugged")
    report = run(photos)
    assert (report.removed, report.unread) == (0, [(str(photos / "linked"), "broken link")])


def test_a_link_with_the_name_of_a_photo_whose_drive_is_gone_keeps_what_is_below_it(photos, run, tmp_path) -> None:
    drive = tmp_path / "drive"
    (photos / "first").rename(drive)
    (photos / "holiday.jpg").symlink_to(drive)
    assert run(photos).found == 8
    drive.rename(tmp_path / "unplugged")
    assert run(photos).removed == 0


def test_odd_things_are_recorded_once(photos, run, store) -> None:
    os.mkfifo(photos / "pipe.jpg")
    (photos / "gone.jpg").symlink_to(photos / "nowhere")
    assert run(photos).failed == 2
    assert run(photos).failed == 0
    assert {failure.reason for failure in list_failures(store)} == {"not a file", "broken link"}
    (photos / "pipe.jpg").unlink()
    run(photos)
    assert [failure.reason for failure in list_failures(store)] == ["broken link"]


def test_models_never_mix(photos, run, model, other_model, store) -> None:
    run(photos)
    report = run(photos, model=other_model)
    assert (report.embedded, other_model.seen) == (8, 8)
    assert [known.vectors for known in list_models(store)] == [8, 8]
    assert run(photos).unchanged == 8


def test_inner_and_outer_roots_are_walked_once(photos, run, store) -> None:
    run(photos / "first")
    report = run(photos, photos / "first")
    assert (report.found, report.unchanged) == (8, 4)
    assert [root.path for root in list_roots(store)] == [str(photos)]


def test_stopping_keeps_what_is_done_and_purges_nothing(photos, run, store, model) -> None:
    run(photos)
    for number in range(20):
        Image.new("RGB", (40, 40), (number, 90, 200)).save(photos / f"{number}.png")
    (photos / "first" / "rocket.jpg").unlink()
    seen = model.seen
    report = run(photos, batch_size=2, stop=lambda: model.seen > seen + 2)
    assert report.interrupted and report.removed == 0
    assert 0 < report.embedded < 20
    done = report.embedded
    rest = run(photos)
    assert (rest.embedded, rest.removed, rest.interrupted) == (20 - done, 1, False)


def test_a_broken_engine_ends_the_run_and_keeps_earlier_batches(photos, run, model, store, monkeypatch) -> None:
    real = model.encode_pixels

    def breaks(pixels):
        if model.seen >= 3:
            raise EngineError("the engine gave up")
        return real(pixels)

    monkeypatch.setattr(model, "encode_pixels", breaks)
    with pytest.raises(EngineError):
        run(photos)
    assert count_photos(store) == 3 and not store.sql.in_transaction


def test_a_photo_that_changes_while_it_is_read_is_not_stored(photos, run, monkeypatch) -> None:
    from app.library.index import decode

    real = decode.open_photo

    def slow(path, **options):
        image = real(path, **options)
        if str(path).endswith("rocket.jpg"):
            os.utime(path, (5, 5))
        return image

    with monkeypatch.context() as patch:
        patch.setattr(decode, "open_photo", slow)
        report = run(photos)
    assert [failure.reason for failure in report.failures] == ["changed while being read"]
    assert run(photos).embedded == 1


def test_a_bug_in_a_decoder_costs_one_photo(photos, run, monkeypatch) -> None:
    from app.library.index import decode

    real = decode.open_photo

    def buggy(path, **options):
        if str(path).endswith("rocket.jpg"):
            raise RuntimeError("boom")
        if str(path).endswith("moon.png"):
            raise MemoryError
        return real(path, **options)

    monkeypatch.setattr(decode, "open_photo", buggy)
    report = run(photos)
    assert report.embedded == 6
    assert {failure.reason for failure in report.failures} == {"decode error", "too large"}


def test_the_index_may_not_lie_in_the_folder_of_photos(photos, model) -> None:
    from app.library.index.run import index_folders

    with Store(photos / "index.db", create=True) as store, pytest.raises(LibraryError, match="never write"):
        index_folders(store, model, [str(photos)])


def test_our_own_folder_below_a_root_is_passed_over(tmp_path, photos, run, store) -> None:
    shutil.copy(photos / "first" / "rocket.jpg", store.path.with_name("thumbnail.jpg"))
    assert run(tmp_path).found == 8


def test_only_one_process_indexes(photos, run, store) -> None:
    with IndexLock(store.path.with_name("index.lock")), pytest.raises(IndexBusyError, match=str(os.getpid())):
        run(photos)
    assert run(photos).embedded == 8


def test_nothing_is_written_among_the_photos(photos, run) -> None:
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("*")}
    run(photos)
    assert {path: path.stat().st_mtime_ns for path in photos.rglob("*")} == before


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: os.mkfifo(path), "not a file"),
        (lambda path: None, "missing"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_what_cannot_be_hashed_says_why_and_never_hangs(tmp_path, make, reason) -> None:
    make(tmp_path / "x.jpg")
    with pytest.raises(PhotoError) as caught:
        content_hash(str(tmp_path / "x.jpg"))
    assert caught.value.reason == reason


def test_ahead_keeps_order_and_its_bound() -> None:
    from concurrent.futures import ThreadPoolExecutor

    taken, lock, most = [0], threading.Lock(), [0]
    given = iter(range(50))

    def items():
        for item in given:
            with lock:
                taken[0] += 1
            yield item

    with ThreadPoolExecutor(3) as pool:
        for done, result in enumerate(ahead(pool, lambda item: item * 2, items(), 5)):
            assert result == done * 2
            most[0] = max(most[0], taken[0] - done)
    assert most[0] <= 5

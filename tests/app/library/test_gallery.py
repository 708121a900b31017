"""The one object that screens talk to: its answers, its errors in one line, and indexing in a thread next to it."""

import functools
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.library.errors import LibraryError
from app.library.gallery import Filter, Gallery, Query, Term
from app.library.index import folders
from app.library.index.job import IndexJob
from app.library.index.lock import IndexLock
from app.library.index.run import Options
from app.library.pictures.thumbnails import Thumbnails
from app.library.storage import measure_storage
from app.library.store.custom_labels import list_custom_labels
from app.library.store.failures import list_failures
from app.library.store.patterns import list_patterns
from app.library.store.photos import list_folders
from app.library.store.roots import list_roots
from app.library.store.searches import forget_searches, past_searches, remember_search
from app.library.store.tags import given_labels
from mobileclip.bundle import Head
from mobileclip.errors import BundleError, PhotoError
from mobileclip.localize import LocalizeError
from tests.app.library.conftest import FakeModel


class LocalModel(FakeModel):
    """A model whose vectors are projected means of a 4 × 4 map of colors, and that can therefore localize."""

    engine = "fake"

    def __init__(self, *, local: bool = True) -> None:
        self.head = Head(np.random.default_rng(3).normal(size=(13, 3)).astype(np.float32), np.full(13, 0.1, np.float32))
        super().__init__("local")
        self.manifest = SimpleNamespace(license="none")
        if not local:
            self.head = None

    def encode_features(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = pixels.reshape(len(pixels), 3, 4, 8, 4, 8).mean(axis=(3, 5)) + np.float32(1.5)
        sums = maps.mean(axis=(2, 3)) @ self.head.weight.T + self.head.bias
        return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32), maps

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return self.encode_features(pixels)[0] if self.head else super().encode_pixels(pixels)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "home" / "index.db"


def opened(index: Path, model) -> Gallery:
    return Gallery(index, Thumbnails(index.parent / "cache" / "thumbnails"), lambda: model)


def indexed(index: Path, model, photos: Path) -> Gallery:
    gallery = opened(index, model)
    job = IndexJob(index, lambda: model, [str(photos)], Options(decoders=1), gallery.thumbnails)
    job.start()
    assert job.join(300) and job.state.stage == "done", job.state.error
    return gallery


def test_a_whole_afternoon(index: Path, photos: Path) -> None:
    model = LocalModel()
    with indexed(index, model, photos) as gallery:
        assert gallery.counts().photos == 8 and [root.photos for root in list_roots(gallery.store)] == [8]
        ids = gallery.timeline().ids
        rows = gallery.photos(ids)
        assert len(rows) == 8 and all(row.width and row.height for row in rows)
        assert gallery.thumbnails.picture(rows[0].key, rows[0].path).width
        found = gallery.search(Query((Term("bright"),)), 5)
        assert len(found.ids) == 5 and len(gallery.similar(int(ids[0]), 3).ids) == 3
        preview = gallery.preview(["bright"], 1.0, 2)
        assert gallery.save_label("sunny", ["bright", " "], 1.0) == preview.count > 0
        assert len(preview.ids) == min(2, preview.count)
        assert "sunny" in gallery.labels() and gallery.suggest("su")[0].text == "sunny"
        album = next(album for album in gallery.albums() if album.label == "sunny")
        tags = gallery.correct(album.cover.id, "sunny", False)
        assert [tag.label for tag in tags if tag.verdict is False] == ["sunny"]
        assert album.cover.id not in gallery.timeline(Filter(labels=("sunny",))).ids
        undone = gallery.correct(album.cover.id, "sunny", None)
        assert [(tag.label, tag.source, tag.verdict) for tag in undone if tag.label == "sunny"] == [
            ("sunny", "model", None)
        ]
        gallery.correct(album.cover.id, "sunny", False)
        gallery.refresh_tags()
        assert gallery.correct(album.cover.id, "new one", True)[0].label == "new one"
        assert "new one" in gallery.labels()
        where = gallery.where(album.cover.id, "sunny")
        assert where.heat.dtype == np.float32 and where.heat.min() >= 0 and where.heat.max() <= 1
        assert where.present == (where.score >= 0.3) or where.boxes == ()
        assert gallery.where(album.cover.id, "anything else").heat.shape == where.heat.shape
        details = gallery.details(album.cover.id)
        assert (details.width, details.height) == (album.cover.width, album.cover.height)
        assert gallery.model_about().can_localize and measure_storage(gallery.store, gallery.thumbnails).thumbnails > 0
        assert list_folders(gallery.store)[0].photos == 4 and list_failures(gallery.store) == []
        remember_search(gallery.store, "a walk")
        assert past_searches(gallery.store, 20) == ["a walk"]
        forget_searches(gallery.store)
        assert past_searches(gallery.store, 20) == []
        gallery.delete_label("sunny")
        assert "sunny" not in gallery.labels()


@pytest.mark.parametrize("keep", [True, False])
def test_forgetting_everything_leaves_photos_and_if_asked_decisions(index: Path, photos: Path, keep: bool) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    model = LocalModel()
    with indexed(index, model, photos) as gallery:
        photo = gallery.photos(gallery.timeline().ids)[0]
        gallery.correct(photo.id, "holiday", True)
        gallery.save_label("sunny", ["bright"])
        folders.exclude(gallery.store, "nothing*")
        secret = os.fsencode(photo.path)
        with IndexLock(index.with_name("index.lock")), pytest.raises(LibraryError, match="wait for it"):
            gallery.forget_everything(keep_decisions=keep)
        gallery.forget_everything(keep_decisions=keep)
        left = measure_storage(gallery.store, gallery.thumbnails)
        assert gallery.counts().photos == 0 and left.thumbnails == left.vectors == 0
        assert [label.name for label in list_custom_labels(gallery.store)] == (["sunny"] if keep else [])
        assert list_patterns(gallery.store) == (["nothing*"] if keep else [])
        for path in index.parent.rglob("*"):
            assert not path.is_file() or secret not in path.read_bytes(), path
        assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
    with indexed(index, model, photos) as gallery:
        assert len(gallery.timeline(Filter(labels=("holiday",))).ids) == (1 if keep else 0)


def test_a_decision_is_kept_where_no_model_loads(index: Path, photos: Path, model: FakeModel) -> None:
    indexed(index, model, photos).close()

    def missing() -> FakeModel:
        raise BundleError("no model bundle")

    with Gallery(index, Thumbnails(index.parent / "t"), missing) as gallery:
        photo = gallery.photos(gallery.timeline().ids)[0]
        assert gallery.correct(photo.id, "mine", True)[0].label == "mine"
        assert gallery.albums() and gallery.search(Query()).ids.size == 8
        for call in (
            gallery.labels,
            gallery.refresh_tags,
            gallery.model_about,
            lambda: gallery.search(Query((Term("x"),))),
        ):
            with pytest.raises(BundleError, match="no model bundle"):
                call()


def test_the_next_album_shows_what_corrections_taught(index: Path, photos: Path, model: FakeModel) -> None:
    with indexed(index, model, photos) as gallery:
        dark = gallery.photos(gallery.timeline(Filter(labels=("dark",))).ids)
        scores = {photo.id: next(tag.score for tag in gallery.tags(photo.id) if tag.label == "dark") for photo in dark}
        faintest, *others = sorted(scores, key=scores.__getitem__)
        assert others
        for photo_id in others:
            gallery.correct(photo_id, "dark", False)
        assert [tag.label for tag in gallery.tags(faintest) if tag.verdict is None].count("dark") == 1
        assert "dark" not in {album.label for album in gallery.albums()}
        assert "dark" not in {tag.label for tag in gallery.tags(faintest)}


def test_a_model_that_cannot_say_where_says_so(index: Path, photos: Path) -> None:
    with indexed(index, LocalModel(local=False), photos) as gallery:
        assert not gallery.model_about().can_localize
        with pytest.raises(LocalizeError, match="cannot show where"):
            gallery.where(int(gallery.timeline().ids[0]), "bright")


def test_what_is_gone_is_one_line(index: Path, photos: Path) -> None:
    with indexed(index, LocalModel(), photos) as gallery:
        photo = gallery.photos(gallery.timeline().ids)[0]
        Path(photo.path).unlink()
        for call in (lambda: gallery.details(photo.id), lambda: gallery.where(photo.id, "bright")):
            with pytest.raises(PhotoError, match="missing"):
                call()
        for call in (lambda: gallery.details(999), lambda: gallery.correct(999, "x", True)):
            with pytest.raises(LibraryError, match="not in the index any more"):
                call()


def test_a_damaged_index_is_one_line(index: Path, model: FakeModel) -> None:
    index.parent.mkdir()
    index.write_bytes(b"no index at all" * 100)
    with pytest.raises(LibraryError, match="is not a pocketclip index"):
        opened(index, model)
    job = IndexJob(index, lambda: model, ["/"])
    job.start()
    assert job.join(300) and job.state.stage == "failed" and "is not a pocketclip index" in job.state.error


def test_every_sqlite_error_is_one_line(index: Path, model: FakeModel) -> None:
    gallery = opened(index, model)
    gallery.store.sql.execute("DROP TABLE tags")
    for call in (
        gallery.albums,
        gallery.counts,
        lambda: gallery.tags(1),
        lambda: gallery.timeline(Filter(("x",))),
        lambda: given_labels(gallery.store),
    ):
        with pytest.raises(LibraryError, match="cannot be used: no such table"):
            call()
    gallery.close()
    with pytest.raises(LibraryError):
        gallery.counts()


def test_a_folder_that_cannot_be_made_is_one_line(index: Path, model: FakeModel) -> None:
    index.parent.write_text("in the way")
    with pytest.raises(LibraryError, match="cannot make the index folder"):
        opened(index, model)


def test_the_matrix_is_read_again_only_after_a_change(index: Path, photos: Path, model: FakeModel) -> None:
    with indexed(index, model, photos) as gallery:
        first = gallery.matrix()
        assert gallery.matrix() is first
        gallery.correct(int(gallery.timeline().ids[0]), "x", True)
        assert gallery.matrix() is first
        folders.forget_root(gallery.store, str(photos))
        assert len(gallery.matrix().ids) == 0


def test_a_job_tells_how_far_it_is_and_stops_when_asked(
    index: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, gate = LocalModel(), threading.Event()
    plain = model.encode_pixels

    def slow(pixels: np.ndarray) -> np.ndarray:
        assert gate.wait(300)
        return plain(pixels)

    monkeypatch.setattr(model, "encode_pixels", slow)
    job = IndexJob(index, lambda: model, [str(photos)], Options(batch_size=1, decoders=1))
    assert not job.state.running and job.join(0)
    job.start()
    wait_until(lambda: job.state.stage == "index")
    assert job.state.running and (job.state.done, job.state.total) == (0, 8) and not job.join(0.05)
    with opened(index, model) as gallery:  # readers never wait
        assert gallery.counts().photos == 0
        second = IndexJob(index, lambda: model, [str(photos)])
        second.start()
        assert second.join(300) and second.state.stage == "failed" and "another pocketclip" in second.state.error
        job.stop()
        gate.set()
        assert job.join(300) and job.state.stage == "done" and job.state.report is not None
        assert job.state.report.interrupted and 0 < gallery.counts().photos < 8
        again = IndexJob(index, lambda: model, [])  # no folders: the known ones
        again.start()
        assert again.join(300) and again.state.stage == "done" and gallery.counts().photos == 8


def test_a_job_without_folders_or_model_fails_in_one_line(index: Path, photos: Path, model: FakeModel) -> None:
    def missing() -> FakeModel:
        raise BundleError("no model bundle")

    def odd() -> FakeModel:
        raise RuntimeError("odd")

    cases = [
        (lambda: model, [], "no folder"),
        (missing, [str(photos)], "no model"),
        (odd, [str(photos)], "RuntimeError"),
    ]
    for load, named, words in cases:
        job = IndexJob(index, load, named)
        job.start()
        assert job.join(300) and job.state.stage == "failed" and words in job.state.error and not job.state.running
    job = IndexJob(photos / "index.db", lambda: model, [str(photos)])
    job.start()
    assert job.join(300) and "never write" in job.state.error and not (photos / "index.db").exists()


def test_thumbnails_made_while_indexing_are_those_made_later(
    index: Path, photos_with_dates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FakeModel()
    plain = model.encode_pixels
    monkeypatch.setattr(model, "recipe", replace(model.recipe, size=160))  # decoded large enough for a thumbnail
    monkeypatch.setattr(model, "encode_pixels", lambda pixels: plain(pixels[:, :, ::5, ::5]))
    with indexed(index, model, photos_with_dates) as gallery:
        for photo in gallery.photos(gallery.timeline().ids):
            path = gallery.thumbnails.find(photo.key)
            assert path is not None, photo.path
            made = gallery.thumbnails.picture(photo.key, photo.path)
            path.unlink()
            later = gallery.thumbnails.picture(photo.key, photo.path)
            assert (made.width, made.height) == (later.width, later.height)
            one, other = (np.frombuffer(picture.rgb, np.uint8).astype(float) for picture in (made, later))
            assert np.abs(one - other).mean() < 5


def test_two_galleries_share_one_index_across_threads(index: Path, photos: Path, model: FakeModel) -> None:
    load = functools.cache(lambda: model)
    main = indexed(index, model, photos)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with Gallery(index, main.thumbnails, load) as worker:
                for photo_id in worker.timeline().ids.tolist():
                    worker.correct(photo_id, "seen", True)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        assert main.counts().photos == 8
        remember_search(main.store, "while the other writes")
    thread.join()
    assert not errors and len(main.timeline(Filter(labels=("seen",))).ids) == 8
    with pytest.raises(LibraryError, match="thread"):
        failed: list[BaseException] = []

        def wrong() -> None:
            try:
                main.store.sql.execute("SELECT 1")
            except LibraryError as error:
                failed.append(error)

        other = threading.Thread(target=wrong)
        other.start()
        other.join()
        raise failed[0]
    main.close()


def wait_until(condition, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)

"""Thumbnails: upright, made once, complete after any crash, within their limit; decoded newest request first."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.library.files.content import content_hash
from app.library.pictures.pool import PicturePool
from app.library.pictures.thumbnails import Picture, Thumbnails
from mobileclip.errors import PhotoError
from tests.app.library.conftest import real_photos

KEY = "ab" * 32


def key(photo: str | Path) -> str:
    return content_hash(str(photo)).hex()


@pytest.fixture
def cache(tmp_path: Path) -> Thumbnails:
    return Thumbnails(tmp_path / "thumbnails")


def noise(path: Path, width: int, height: int, seed: int = 0, **options: object) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def array(picture: Picture) -> np.ndarray:
    return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)


@pytest.mark.parametrize("photo", real_photos(), ids=lambda photo: photo.stem)
def test_a_thumbnail_looks_like_its_photo(cache: Thumbnails, photo: Path) -> None:
    picture = cache.picture(key(photo), str(photo))
    original = Image.open(photo).convert("RGB")
    assert min(picture.width, picture.height) == min(256, *original.size)
    assert picture.width / picture.height == pytest.approx(original.width / original.height, rel=0.01)
    expected = np.asarray(original.resize((picture.width, picture.height), Image.Resampling.BOX), np.float32)
    assert np.abs(array(picture) - expected).mean() < 6


def test_orientation_is_applied_once(cache: Thumbnails, tmp_path: Path) -> None:
    upright = Image.new("RGB", (600, 400), "black")
    upright.paste("white", (0, 0, 300, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "a.jpg", exif=exif)
    name = key(tmp_path / "a.jpg")
    for picture in (cache.picture(name, str(tmp_path / "a.jpg")), cache.picture(name, "now from disk")):
        assert (picture.width, picture.height) == (256, 384)
        assert array(picture)[:150].mean() > 230 and array(picture)[-150:].mean() < 25
    assert Image.open(cache.find(name)).getexif().get(0x0112, 1) == 1


def test_a_panorama_shows_its_middle_and_a_small_photo_is_not_blown_up(cache: Thumbnails, tmp_path: Path) -> None:
    wide = Image.new("RGB", (6000, 300), "black")
    wide.paste("white", (2550, 0, 3450, 300))
    wide.save(tmp_path / "wide.png")
    picture = cache.picture(KEY, str(tmp_path / "wide.png"))
    assert (picture.width, picture.height) == (768, 256) and array(picture).mean() > 250
    picture = cache.picture(KEY, noise(tmp_path / "small.png", 20, 10))
    assert (picture.width, picture.height) == (20, 10)
    Image.new("RGB", (1, 2000)).save(tmp_path / "line.png")
    assert cache.picture(KEY, str(tmp_path / "line.png")).width == 1


def test_made_once_and_found_again_without_the_photo(cache: Thumbnails, tmp_path: Path) -> None:
    photo = noise(tmp_path / "a.png", 300, 300)
    name = key(photo)
    assert cache.find(name) is None and not cache.folder.exists()
    cache.picture(name, photo)
    Path(photo).unlink()
    path = cache.folder / name[:2] / f"{name}.jpg"
    assert cache.find(name) == path and cache.bytes() == path.stat().st_size
    assert cache.picture(name, photo).width == 256
    with pytest.raises(PhotoError, match="missing"):
        cache.picture(KEY, photo)
    cache.clear()
    assert cache.find(name) is None and cache.bytes() == 0


def test_a_file_that_has_changed_since_it_was_indexed_is_shown_but_not_kept(cache: Thumbnails, tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (300, 300), color) for color in ("black", "white"))
    for name in ("a.png", "copy.png"):
        first.save(tmp_path / name)
    indexed_as = key(tmp_path / "a.png")
    second.save(tmp_path / "a.png")
    assert array(cache.picture(indexed_as, str(tmp_path / "a.png"))).mean() > 250
    assert array(cache.picture(indexed_as, str(tmp_path / "copy.png"))).mean() < 5


@pytest.mark.parametrize("bad", ["../" + KEY, "", "AB" * 32, "x" * 64, KEY + "/a"])
def test_only_hashes_are_keys(cache: Thumbnails, bad: str) -> None:
    with pytest.raises(ValueError, match="hash in hex"):
        cache.find(bad)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"no picture"])
def test_a_damaged_thumbnail_is_made_again(cache: Thumbnails, tmp_path: Path, content: bytes) -> None:
    photo = noise(tmp_path / "a.png", 300, 300)
    cache.picture(key(photo), photo)
    path = cache.find(key(photo))
    path.write_bytes(content)
    assert cache.picture(key(photo), photo).width == 256
    assert path.stat().st_size > len(content)


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Thumbnails(tmp_path / "file" / "thumbnails")
    photo = noise(tmp_path / "a.png", 300, 300)
    assert cache.picture(key(photo), photo).width == 256 and cache.find(key(photo)) is None
    assert cache.bytes() == 0


def test_a_kill_while_writing_leaves_no_half_thumbnail(
    cache: Thumbnails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    photo = noise(tmp_path / "a.png", 300, 300)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        cache.picture(key(photo), photo)
    assert cache.find(key(photo)) is None and cache.bytes() == 0


def test_the_least_recently_seen_go_first(tmp_path: Path) -> None:
    image = Image.open(noise(tmp_path / "a.png", 300, 300))
    size = Thumbnails(tmp_path / "one").keep(KEY, image).stat().st_size
    keys = [f"{number:064x}" for number in range(11)]
    cache = Thumbnails(tmp_path / "thumbnails", limit=round(10.5 * size))
    long_ago = time.time() - 10 * 24 * 3600
    for number in range(10):
        os.utime(cache.keep(keys[number], image), (long_ago + number, long_ago + number))
    assert cache.find(keys[0]) is not None  # seen again: now it is the newest
    stray = cache.folder / "00" / "dead.part"
    stray.write_bytes(b"x")
    os.utime(stray, (long_ago, long_ago))
    (cache.folder / "note.txt").write_text("not ours")
    cache.keep(keys[10], image)
    kept = [number for number in range(11) if cache.find(keys[number])]
    assert kept == [0, *range(3, 11)] and cache.bytes() <= 0.9 * cache.limit
    assert not stray.exists() and (cache.folder / "note.txt").exists()


def test_many_threads_may_make_the_same_one(cache: Thumbnails, tmp_path: Path) -> None:
    photo = noise(tmp_path / "a.png", 400, 300)
    name = key(photo)
    found: list[Picture] = []
    threads = [threading.Thread(target=lambda: found.append(cache.picture(name, photo))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(picture.width, picture.height) for picture in found} == {(341, 256)} and len(found) == 8
    assert [path.name for path in cache.folder.rglob("*.*")] == [f"{name}.jpg"]


class Slow(Thumbnails):
    """A cache whose pictures wait for a gate, and that records requests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.asked: list[str] = []

    def picture(self, key: str, photo: str) -> Picture:
        self.asked.append(key)
        self.begun.set()
        assert self.gate.wait(300)
        if photo == "bad":
            raise PhotoError(photo, "truncated")
        if photo == "bug":
            raise RuntimeError("a decoder's own")
        return Picture(1, 1, key.encode())


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    return Slow(tmp_path)


def started(pool: PicturePool, slow: Slow) -> list[object]:
    """Keep the pool's only thread busy with a first request, so that all others wait."""
    answers: list[object] = []
    pool.thumbnail("first", "", answers.append)
    assert slow.begun.wait(300)
    return answers


def test_the_newest_wish_comes_first_and_the_oldest_falls_off(slow: Slow) -> None:
    pool = PicturePool(slow, threads=1, waiting=3)
    first = started(pool, slow)
    answers: dict[int, object] = {}
    for number in range(5):
        pool.thumbnail(str(number), "", lambda answer, number=number: answers.__setitem__(number, answer))
    assert answers == {0: None, 1: None}  # told at once, so that a tile may ask again
    slow.gate.set()
    wait_until(lambda: len(answers) == 5 and len(first) == 1)
    assert slow.asked == ["first", "4", "3", "2"]
    assert [answers[number].rgb for number in (2, 3, 4)] == [b"2", b"3", b"4"]
    pool.close()


def test_a_cancelled_wish_is_neither_decoded_nor_answered(slow: Slow) -> None:
    pool = PicturePool(slow, threads=1)
    first = started(pool, slow)
    answers: list[object] = []
    kept = pool.thumbnail("kept", "", answers.append)
    pool.thumbnail("gone", "", answers.append).cancel()
    pool.thumbnail("kept", "", answers.append).cancel()  # one of two that wait for the same picture
    slow.gate.set()
    wait_until(lambda: len(first) == 1 and not kept.wanted)
    assert slow.asked == ["first", "kept"] and [answer.rgb for answer in answers] == [b"kept"]
    pool.close()


def test_one_decoding_answers_all_who_wait_for_it(slow: Slow) -> None:
    pool = PicturePool(slow, threads=1)
    first = started(pool, slow)
    pool.thumbnail("first", "", first.append)  # asked for while it is being decoded
    slow.gate.set()
    wait_until(lambda: len(first) == 2)
    assert slow.asked == ["first"]
    pool.close()


def test_a_bad_photo_costs_its_own_tile(slow: Slow) -> None:
    slow.gate.set()
    pool = PicturePool(slow, threads=1)
    answers: list[object] = []
    for photo in ("bad", "bug", "good"):
        pool.thumbnail(photo, photo, answers.append)
    wait_until(lambda: len(answers) == 3)
    errors = {answer.reason for answer in answers if isinstance(answer, PhotoError)}
    assert errors == {"truncated", "decode error"} and len(answers) == 3
    pool.close()


def test_closing_answers_what_waits_and_ends_the_threads(slow: Slow) -> None:
    pool = PicturePool(slow, threads=2)
    before = threading.active_count()
    first = started(pool, slow)
    answers: list[object] = []
    pool.thumbnail("a", "", lambda _: None)
    pool.thumbnail("b", "", answers.append)
    pool.thumbnail("c", "", answers.append)
    threading.Timer(0.1, slow.gate.set).start()
    pool.close()
    pool.close()
    assert len(first) == 1 and answers.count(None) >= 1 and len(answers) == 2
    pool.thumbnail("late", "", answers.append)
    assert answers[-1] is None
    wait_until(lambda: threading.active_count() <= before - 2)


def test_a_whole_photo_is_reduced_to_the_window(tmp_path: Path) -> None:
    pool = PicturePool(Thumbnails(tmp_path / "cache"))
    answers: list[object] = []
    exif = Image.Exif()
    exif[0x0112] = 8
    pool.view(noise(tmp_path / "a.jpg", 900, 300, exif=exif), 200, answers.append)
    pool.view(noise(tmp_path / "b.png", 90, 30), 200, answers.append)
    pool.view(str(tmp_path / "none.jpg"), 200, answers.append)
    wait_until(lambda: len(answers) == 3)
    pool.close()
    sizes = {(answer.width, answer.height) for answer in answers if isinstance(answer, Picture)}
    assert sizes == {(67, 200), (90, 30)}
    assert [answer.reason for answer in answers if isinstance(answer, PhotoError)] == ["missing"]


def wait_until(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)

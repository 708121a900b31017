"""Answers that come late or never: the worker's lanes, and pictures that must not land in the wrong tile."""

import threading
from collections.abc import Callable
from typing import Any

from app.library.pictures.thumbnails import Picture
from app.ui.grid.pictures import MADE_PER_FRAME, Pictures
from app.ui.worker import Worker
from mobileclip.errors import PhotoError, PocketclipError

PATIENCE = 300.0


class Subject:
    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.closed = False

    def close(self) -> None:
        assert threading.get_ident() == self.thread
        self.closed = True


class Screen:
    """A fake of the screen's thread: deliveries run when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.arrived = threading.Condition()

    def deliver(self, call: Callable[[], None]) -> None:
        with self.arrived:
            self.calls.append(call)
            self.arrived.notify()

    def run(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.calls) >= count, PATIENCE)
            calls, self.calls = self.calls, []
        for call in calls:
            call()


def fail(error: PocketclipError) -> None:
    raise AssertionError(error)


def test_the_newest_question_of_a_lane_wins() -> None:
    screen, answers = Screen(), []
    begun, gate = threading.Event(), threading.Event()
    worker = Worker(Subject, screen.deliver)
    worker.ask(lambda _: begun.set() or gate.wait(PATIENCE), lambda _: answers.append("first"), fail, "search")
    assert begun.wait(PATIENCE)
    for word in ("b", "be", "bea"):
        worker.ask(lambda _, word=word: word, answers.append, fail, "search")
    worker.ask(lambda _: "other", answers.append, fail)
    gate.set()
    screen.run(3)
    assert answers == ["bea", "other"]
    assert worker.close(PATIENCE)


def test_an_answer_that_is_overtaken_on_its_way_is_dropped() -> None:
    screen, answers = Screen(), []
    worker = Worker(Subject, screen.deliver)
    worker.ask(lambda _: 1, answers.append, fail, "search")
    with screen.arrived:
        assert screen.arrived.wait_for(lambda: screen.calls, PATIENCE)
    worker.ask(lambda _: 2, answers.append, fail, "search")
    screen.run(2)
    assert answers == [2]
    worker.ask(lambda _: 3, answers.append, fail, "search")
    with screen.arrived:
        assert screen.arrived.wait_for(lambda: screen.calls, PATIENCE)
    worker.drop("search")
    screen.run(1)
    assert answers == [2]
    worker.close()


def test_everything_runs_in_one_thread_and_errors_are_told() -> None:
    screen, answers, opened = Screen(), [], []

    def open_subject() -> Subject:
        if not opened:
            opened.append(None)
            raise PocketclipError("not yet")
        opened.append(Subject())
        return opened[-1]

    def broken(_: Subject) -> None:
        raise PocketclipError("no such thing")

    worker = Worker(open_subject, screen.deliver)
    for call in (lambda s: s.thread, lambda s: s.thread, broken, lambda s: threading.get_ident()):
        worker.ask(call, answers.append, lambda error: answers.append(str(error)))
    screen.run(4)
    assert answers[0] == "not yet" and answers[2] == "no such thing"
    assert answers[1] == answers[3] == opened[1].thread != threading.get_ident()
    assert worker.close(PATIENCE) and opened[1].closed and len(opened) == 2
    worker.ask(lambda _: 1, answers.append, fail)
    assert len(answers) == 4


class Pool:
    """Answers when the test wants."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[Any], None]]] = []
        self.canceled: list[str] = []

    def thumbnail(self, key: str, photo: str, done: Callable[[Any], None]) -> Any:
        self.asked.append((key, done))
        pool = self

        class Ticket:
            def cancel(self) -> None:
                pool.canceled.append(key)

        return Ticket()

    def answer(self, key: str, result: Any) -> None:
        for asked, done in self.asked:
            if asked == key:
                done(result)


class Tile:
    def __init__(self) -> None:
        self.shown: list[tuple[str, object, str]] = []

    def show(self, key: str, texture: object, reason: str) -> None:
        self.shown.append((key, texture, reason))


def picture(side: int = 2) -> Picture:
    return Picture(side, side, bytes(3 * side * side))


def test_a_late_picture_does_not_land_in_a_tile_that_turned_to_another() -> None:
    pool, tile, other = Pool(), Tile(), Tile()
    pictures: Pictures[str] = Pictures(pool, lambda _: "texture")  # type: ignore[arg-type]
    pictures.want(tile, "a", "a.jpg")
    pictures.want(other, "a", "a.jpg")
    pictures.want(tile, "b", "b.jpg")
    assert [key for key, _ in pool.asked] == ["a", "b"]
    pool.answer("a", picture())
    pictures.pump()
    assert tile.shown == [] and other.shown == [("a", "texture", "")]
    pool.answer("b", PhotoError("b.jpg", "missing"))
    pictures.pump()
    assert tile.shown == [("b", None, "missing")] and pictures.waiting == 0


def test_what_nobody_wants_any_more_is_cancelled_and_what_is_kept_comes_at_once() -> None:
    pool, tile = Pool(), Tile()
    pictures: Pictures[str] = Pictures(pool, lambda _: "texture")  # type: ignore[arg-type]
    pictures.want(tile, "a", "a.jpg")
    pictures.release(tile)
    assert pool.canceled == ["a"] and pictures.waiting == 0
    pictures.want(tile, "b", "b.jpg")
    pool.answer("b", picture())
    pictures.pump()
    pictures.want(tile, "b", "b.jpg")
    assert [key for key, *_ in tile.shown] == ["b", "b"] and len(pool.asked) == 2


def test_a_wish_that_fell_off_the_queue_is_made_again() -> None:
    pool, tile = Pool(), Tile()
    pictures: Pictures[str] = Pictures(pool, lambda _: "texture")  # type: ignore[arg-type]
    pictures.want(tile, "a", "a.jpg")
    pool.answer("a", None)
    pictures.pump()
    assert [key for key, _ in pool.asked] == ["a", "a"] and tile.shown == []


def test_memory_is_bounded_and_a_frame_uploads_only_a_few() -> None:
    pool, made = Pool(), []
    pictures: Pictures[int] = Pictures(pool, lambda p: made.append(p) or len(made), kept=10 * 300)  # type: ignore[arg-type]
    tiles = [Tile() for _ in range(40)]
    for number, tile in enumerate(tiles):
        pictures.want(tile, str(number), "x.jpg")
        pool.answer(str(number), picture(10))
    pictures.pump()
    assert len(made) == MADE_PER_FRAME
    for _ in range(10):
        pictures.pump()
    assert len(made) == 40 and pictures.bytes <= 3000 and all(tile.shown for tile in tiles)
    pictures.forget()
    assert pictures.bytes == 0

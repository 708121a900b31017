"""A thread that asks the library, so that the screen never waits for it."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mobileclip.errors import PocketclipError


class Closable(Protocol):
    """What a worker opens in its thread and closes there."""

    def close(self) -> None:
        """Release everything."""
        ...


S = TypeVar("S", bound=Closable)
T = TypeVar("T")
Deliver = Callable[[Callable[[], None]], None]
Failed = Callable[[PocketclipError], None]


@dataclass(frozen=True)
class _Question(Generic[S]):
    lane: str
    number: int
    call: Callable[[S], Callable[[], None]]
    failed: Failed


class Worker(Generic[S]):
    """Runs questions in order, in one thread that owns what they are put to.

    Questions of one lane replace each other: of those that wait only the newest is run, and an answer is dropped if a
    newer question was asked meanwhile. Questions without a lane are all run and all answered.

    Args:
        open_subject: opens what the questions are put to, in the thread; while it fails, each question tries again.
        deliver: runs a callable in the thread of the screen; must not wait for it.
        name: of the thread.
    """

    def __init__(self, open_subject: Callable[[], S], deliver: Deliver, name: str = "library") -> None:
        self._open, self._deliver = open_subject, deliver
        self._waiting: deque[_Question[S]] = deque()
        self._newest: dict[str, int] = {}
        self._numbers = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, call: Callable[[S], T], then: Callable[[T], None], failed: Failed, lane: str = "") -> None:
        """Ask a question: `then` or `failed` is delivered, or neither if the lane has a newer question by then."""

        def answered(subject: S) -> Callable[[], None]:
            answer = call(subject)
            return lambda: then(answer)

        with self._changed:
            if self._closed:
                return
            self._numbers += 1
            if lane:
                self._waiting = deque(question for question in self._waiting if question.lane != lane)
                self._newest[lane] = self._numbers
            self._waiting.append(_Question(lane, self._numbers, answered, failed))
            self._changed.notify()

    def drop(self, lane: str) -> None:
        """Drop what waits in a lane, and the answer to what runs."""
        with self._changed:
            self._numbers += 1
            self._newest[lane] = self._numbers
            self._waiting = deque(question for question in self._waiting if question.lane != lane)

    def close(self, timeout: float = 5.0) -> bool:
        """Drop what waits, finish what runs, and close the subject; whether that was done in time."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        subject: S | None = None
        try:
            while (question := self._next()) is not None:
                try:
                    subject = subject if subject is not None else self._open()
                    answer = question.call(subject)
                except PocketclipError as error:
                    self._answer(question, lambda q=question, e=error: q.failed(e))  # type: ignore[misc]
                else:
                    self._answer(question, answer)
        finally:
            if subject is not None:
                subject.close()

    def _next(self) -> _Question[S] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.popleft()

    def _answer(self, question: _Question[S], answer: Callable[[], None]) -> None:
        def unless_outdated() -> None:
            # Checked here, in the thread of the screen, because a newer question may have been asked meanwhile.
            if not self._closed and (not question.lane or self._newest[question.lane] == question.number):
                answer()

        self._deliver(unless_outdated)

"""Decode pictures for a screen in other threads: the newest request first, and never many waiting.

Someone who scrolls fast wants what is on the screen now and not what has passed. So requests wait on a short stack: the
latest is served first, and the one that has waited longest is dropped when the stack is full.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Thread

from PIL import Image

from app.library.pictures.thumbnails import Picture, Thumbnails
from mobileclip.errors import PhotoError, one_line
from mobileclip.photos import open_photo, read_header

Done = Callable[[Picture | PhotoError | None], None]
"""Takes the picture, or an error, or None if the request was dropped and may be repeated.

It is called in a thread of the pool, or, for a dropped request, in the thread of a later request; so it must be quick
and touch no widget."""

_Name = tuple[str, str, int]


class Ticket:
    """A request for a picture, which can be canceled."""

    def __init__(self, done: Done) -> None:
        self._done: Done | None = done

    def cancel(self) -> None:
        """Cancel the request. A call that has begun in another thread may still finish; none begins later."""
        self._done = None

    @property
    def wanted(self) -> bool:
        """Whether the request was neither canceled nor answered."""
        return self._done is not None

    def _answer(self, answer: Picture | PhotoError | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(answer)


@dataclass
class _Work:
    make: Callable[[], Picture]
    photo: str
    tickets: list[Ticket] = field(default_factory=list)


class PicturePool:
    """A few threads that decode; all methods may be called from any thread."""

    def __init__(self, thumbnails: Thumbnails, *, threads: int = 2, waiting: int = 128) -> None:
        """Start the threads.

        Args:
            thumbnails: the cache of small pictures.
            threads: how many decode at a time.
            waiting: how many requests may wait; one more drops the one that has waited longest.
        """
        self._thumbnails = thumbnails
        self._waiting = waiting
        self._stack: OrderedDict[_Name, _Work] = OrderedDict()  # the newest last
        self._running: dict[_Name, _Work] = {}
        self._changed = Condition()
        self._closed = False
        self._threads = [
            Thread(target=self._serve, name=f"pictures-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def thumbnail(self, key: str, photo: str, done: Done) -> Ticket:
        """Ask for the thumbnail of the content `key`, made from the file `photo` if there is none yet."""
        return self._ask(("thumbnail", key, 0), photo, lambda: self._thumbnails.picture(key, photo), done)

    def view(self, photo: str, longest: int, done: Done) -> Ticket:
        """Ask for a whole photo, upright, reduced to at most `longest` pixels per side."""
        return self._ask(("view", photo, longest), photo, lambda: _view(photo, longest), done)

    def close(self) -> None:
        """Drop waiting requests, finish what is being decoded, and end the threads; a second call does nothing."""
        with self._changed:
            self._closed = True
            dropped = list(self._stack.values())
            self._stack.clear()
            self._changed.notify_all()
        _drop(dropped)
        for thread in self._threads:
            thread.join()

    def _ask(self, name: _Name, photo: str, make: Callable[[], Picture], done: Done) -> Ticket:
        ticket = Ticket(done)
        dropped = []
        with self._changed:
            if self._closed:
                dropped.append(_Work(make, photo, [ticket]))
            elif name in self._running:
                self._running[name].tickets.append(ticket)
            else:
                self._stack.setdefault(name, _Work(make, photo)).tickets.append(ticket)
                self._stack.move_to_end(name)
                if len(self._stack) > self._waiting:
                    dropped.append(self._stack.popitem(last=False)[1])
                self._changed.notify()
        _drop(dropped)
        return ticket

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._stack and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                name, work = self._stack.popitem()
                if not any(ticket.wanted for ticket in work.tickets):
                    continue
                self._running[name] = work
            answer = _try(work)
            with self._changed:
                del self._running[name]
                tickets = list(work.tickets)
            for ticket in tickets:
                ticket._answer(answer)


def _drop(dropped: list[_Work]) -> None:
    for work in dropped:
        for ticket in work.tickets:
            ticket._answer(None)


def _try(work: _Work) -> Picture | PhotoError:
    try:
        return work.make()
    except PhotoError as error:
        return error
    except MemoryError:
        return PhotoError(work.photo, "too large", "not enough memory to decode it")
    except Exception as error:  # a decoder's bug must cost one tile, never the thread
        return PhotoError(work.photo, "decode error", f"{type(error).__name__}: {one_line(error)}")


def _view(photo: str, longest: int) -> Picture:
    header = read_header(photo)
    # As many pixels as the reduced photo will have along its shorter side, so that a JPEG is decoded no larger.
    shorter = longest * min(header.width, header.height) / max(header.width, header.height, 1)
    image = open_photo(photo, min_side=max(1, math.ceil(shorter)))
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return Picture.of(image)

"""Brings decoded pictures to the tiles that want them, and never to the wrong one.

The pool decodes in its own threads and calls back there. Only `pump`, which runs in the thread of the screen, makes
textures and hands them out, after it has compared keys.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from app.library.pictures.pool import PicturePool
from app.library.pictures.thumbnails import Picture
from mobileclip.errors import PhotoError
from mobileclip.lru import LruCache

T = TypeVar("T")

MADE_PER_FRAME = 8
"""Textures that one frame may upload; with more, scrolling would stutter."""


class Owner(Protocol):
    """Something that shows one picture."""

    def show(self, key: str, texture: object | None, reason: str) -> None:
        """Take the picture with this key; without a texture, the reason why there is none."""
        ...


class _Request:
    def __init__(self, photo: str) -> None:
        self.photo = photo
        self.owners: dict[int, Owner] = {}
        self.cancel: Callable[[], None] | None = None


class Pictures(Generic[T]):
    """Thumbnails as textures; keeps those used last.

    Args:
        pool: decodes.
        upload: makes a texture; called in the thread of the screen.
        kept: bytes of pixels to keep.
    """

    def __init__(self, pool: PicturePool, upload: Callable[[Picture], T], kept: int = 64 * 2**20) -> None:
        self._pool, self._upload = pool, upload
        self._textures: LruCache[str, tuple[T, int]] = LruCache(kept, lambda kept: kept[1])
        self._requests: dict[str, _Request] = {}
        self._keys: dict[int, str] = {}
        self._arrived: deque[tuple[str, Picture | PhotoError | None]] = deque()

    @property
    def bytes(self) -> int:
        """Bytes of pixels that are kept as textures now."""
        return self._textures.used

    @property
    def waiting(self) -> int:
        """Pictures that were asked for and haven't arrived."""
        return len(self._requests)

    def want(self, owner: Owner, key: str, photo: str) -> None:
        """Show a picture in `owner`, now or later, instead of what it wanted before."""
        self.release(owner)
        kept = self._textures.get(key)
        if kept is not None:
            owner.show(key, kept[0], "")
            return
        self._keys[id(owner)] = key
        request = self._requests.setdefault(key, _Request(photo))
        request.owners[id(owner)] = owner
        if request.cancel is None:
            self._ask(key, request)

    def release(self, owner: Owner) -> None:
        """The owner wants nothing any more."""
        key = self._keys.pop(id(owner), None)
        request = self._requests.get(key) if key is not None else None
        if key is None or request is None:
            return
        request.owners.pop(id(owner), None)
        if not request.owners:
            del self._requests[key]
            if request.cancel is not None:
                request.cancel()

    def pump(self) -> None:
        """Hand out what has arrived; call it once a frame.

        What nobody wants any more is dropped at once. The pool decodes faster than a frame uploads, so the pixels of
        thousands of photos would pile up here during a fast scroll.
        """
        made = 0
        while self._arrived and made < MADE_PER_FRAME:
            key, result = self._arrived.popleft()
            if key not in self._requests:
                continue
            if result is None:  # dropped from a full queue: ask again
                self._ask(key, self._requests[key])
            else:
                self._hand_out(key, result)
                made += 1

    def forget(self) -> None:
        """Drop all textures."""
        self._textures.clear()

    def _ask(self, key: str, request: _Request) -> None:
        ticket = self._pool.thumbnail(key, request.photo, lambda result: self._arrived.append((key, result)))
        request.cancel = ticket.cancel

    def _hand_out(self, key: str, result: Picture | PhotoError) -> None:
        request = self._requests.pop(key, None)
        texture, reason = None, ""
        if isinstance(result, PhotoError):
            reason = result.reason
        else:
            texture = self._upload(result)
            self._textures.put(key, (texture, len(result.rgb)))
        for owner in request.owners.values() if request else ():
            # The owner may show another photo by now.
            if self._keys.get(id(owner)) == key:
                del self._keys[id(owner)]
                owner.show(key, texture, reason)

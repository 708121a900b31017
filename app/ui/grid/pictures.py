"""Decoded pictures on their way to the tiles that want them: asked for in time, never shown in the wrong place.

The pool decodes in its own threads and calls back there; only `pump`, which runs in the thread of the screen, makes
textures and hands them out, and it compares keys before it does.
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
"""Textures that one frame may upload; more would be felt while scrolling."""


class Owner(Protocol):
    """Something that shows one picture."""

    def show(self, key: str, texture: object | None, reason: str) -> None:
        """The picture with this key; without a texture, why there is none."""
        ...


class _Wanted:
    def __init__(self, photo: str) -> None:
        self.photo = photo
        self.owners: dict[int, Owner] = {}
        self.cancel: Callable[[], None] | None = None


class Pictures(Generic[T]):
    """Thumbnails as textures, the last ones used kept.

    Args:
        pool: decodes.
        upload: makes a texture; called in the thread of the screen.
        kept: bytes of pixels that may stay.
    """

    def __init__(self, pool: PicturePool, upload: Callable[[Picture], T], kept: int = 64 * 2**20) -> None:
        self._pool, self._upload = pool, upload
        self._textures: LruCache[str, tuple[T, int]] = LruCache(kept, lambda kept: kept[1])
        self._wanted: dict[str, _Wanted] = {}
        self._keys: dict[int, str] = {}
        self._arrived: deque[tuple[str, Picture | PhotoError | None]] = deque()

    @property
    def bytes(self) -> int:
        """Pixels kept as textures now."""
        return self._textures.used

    @property
    def waiting(self) -> int:
        """Pictures that are asked for and not there yet."""
        return len(self._wanted)

    def want(self, owner: Owner, key: str, photo: str) -> None:
        """Show a picture in `owner`, now or later; whatever it wanted before is given up."""
        self.release(owner)
        kept = self._textures.get(key)
        if kept is not None:
            owner.show(key, kept[0], "")
            return
        self._keys[id(owner)] = key
        wanted = self._wanted.setdefault(key, _Wanted(photo))
        wanted.owners[id(owner)] = owner
        if wanted.cancel is None:
            self._ask(key, wanted)

    def release(self, owner: Owner) -> None:
        """The owner wants nothing any more."""
        key = self._keys.pop(id(owner), None)
        wanted = self._wanted.get(key) if key is not None else None
        if key is None or wanted is None:
            return
        wanted.owners.pop(id(owner), None)
        if not wanted.owners:
            del self._wanted[key]
            if wanted.cancel is not None:
                wanted.cancel()

    def pump(self) -> None:
        """Hand out what has arrived; call it once a frame.

        What nobody looks for any more is dropped at once: the pool decodes faster than a frame uploads, so that a flick
        through thousands of photos would pile up their pixels here.
        """
        made = 0
        while self._arrived and made < MADE_PER_FRAME:
            key, result = self._arrived.popleft()
            if key not in self._wanted:
                continue
            if result is None:  # dropped from a full queue: ask again
                self._ask(key, self._wanted[key])
            else:
                self._hand_out(key, result)
                made += 1

    def forget(self) -> None:
        """Drop all textures."""
        self._textures.clear()

    def _ask(self, key: str, wanted: _Wanted) -> None:
        ticket = self._pool.thumbnail(key, wanted.photo, lambda result: self._arrived.append((key, result)))
        wanted.cancel = ticket.cancel

    def _hand_out(self, key: str, result: Picture | PhotoError) -> None:
        wanted = self._wanted.pop(key, None)
        texture, reason = None, ""
        if isinstance(result, PhotoError):
            reason = result.reason
        else:
            texture = self._upload(result)
            self._textures.put(key, (texture, len(result.rgb)))
        for owner in wanted.owners.values() if wanted else ():
            # The owner may have turned to another photo since.
            if self._keys.get(id(owner)) == key:
                del self._keys[id(owner)]
                owner.show(key, texture, reason)

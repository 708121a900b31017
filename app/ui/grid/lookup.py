"""What the library knows about the photos of a grid, read a screenful at a time."""

from collections.abc import Callable, Sequence

from app.library.gallery import Photo
from mobileclip.lru import LruCache

PhotosOf = Callable[[Sequence[int]], list[Photo]]
"""Reads photos by their ids, without those that have left the library."""

KEPT = 8192
"""Photos to keep: more than two screens of the smallest photos in a 4K window."""


class PhotoLookup:
    """Reads photos by their ids and keeps those used last."""

    def __init__(self, photos_of: PhotosOf) -> None:
        self._photos_of = photos_of
        self._known: LruCache[int, Photo] = LruCache(KEPT)

    def __call__(self, ids: Sequence[int]) -> dict[int, Photo]:
        """The photos by their ids, without those that have left the library."""
        found = {photo_id: photo for photo_id in ids if (photo := self._known.get(photo_id)) is not None}
        missing = [photo_id for photo_id in ids if photo_id not in found]
        for photo in self._photos_of(missing) if missing else ():
            found[photo.id] = photo
            self._known.put(photo.id, photo)
        return found

    def forget(self) -> None:
        """Read all photos again, for the library has changed."""
        self._known.clear()

"""Small pictures of photos on disk, so that a screen never decodes a whole photo to show a tile.

One JPEG for each content, upright, its shorter side of 256 pixels (what a square tile shows), sharded by the content's
hash. It is a cache: a missing or damaged file is made again, and nothing else is ever lost. A kill at any moment leaves
complete files and at worst a partial file, which is removed when the cache is next trimmed.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from PIL import Image

from app.library.files.content import content_hash
from mobileclip.errors import PhotoError
from mobileclip.files import PathLike, atomic_write
from mobileclip.photos import open_photo

SIZE = 256
LIMIT = 512 * 2**20

_KEY = re.compile(r"[0-9a-f]{8,128}")
_SUFFIX, _PART = ".jpg", ".part"
_QUALITY = 82
# The thumbnail of a panorama shows its middle: tiles are square.
_LONGEST_SIDES = 3
# Trimming goes down to this share of the limit, so that it is not due again at once.
_TRIMMED_TO = 0.9
# How often use is noted on disk: to drop what has not been used for long, hours are exact enough.
_USE_NOTED_SECONDS = 6 * 3600.0
_STRAY_SECONDS = 3600.0


@dataclass(frozen=True)
class Picture:
    """Pixels for a screen: `rgb` holds 3 bytes per pixel, rows from the top, without padding."""

    width: int
    height: int
    rgb: bytes

    @classmethod
    def of(cls, image: Image.Image) -> "Picture":
        """The pixels of an RGB picture."""
        return cls(image.width, image.height, image.tobytes())


class Thumbnails:
    """The cache in `folder`. All calls may come from any thread, and from several processes."""

    def __init__(self, folder: PathLike, limit: int = LIMIT, size: int = SIZE) -> None:
        """Prepare a cache; nothing is written to disk before the first thumbnail.

        Args:
            folder: of the cache, used for nothing else.
            limit: bytes on disk; above it, the least recently used thumbnails are removed.
            size: pixels of the shorter side.
        """
        self.folder, self.limit, self.size = Path(folder), limit, size
        self._lock = Lock()
        self._bytes: int | None = None  # on disk; counted when first needed

    def find(self, key: str) -> Path | None:
        """The file of the content with this hash (hex), or None; a found one counts as used."""
        path = self._path(key)
        try:
            status = path.stat()
        except OSError:
            return None
        if time.time() - status.st_mtime > _USE_NOTED_SECONDS:
            with suppress(OSError):
                os.utime(path)
        return path

    def keep(self, key: str, image: Image.Image) -> Path:
        """Store the thumbnail of an upright RGB picture of at least its size.

        Raises:
            OSError: the cache cannot be written.
        """
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, sync=False) as part:
            self.reduce(image).save(part, "JPEG", quality=_QUALITY)
            written = part.stat().st_size
        self._count(written)
        return path

    def reduce(self, image: Image.Image) -> Image.Image:
        """The thumbnail of an upright RGB picture: shorter side of `size`, the middle of what is very long."""
        width, height = image.size
        scale = min(1.0, self.size / min(width, height))
        longest = _LONGEST_SIDES * min(width, height)
        left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
        box = (left, top, width - left, height - top)
        target = (max(1, round((box[2] - left) * scale)), max(1, round((box[3] - top) * scale)))
        return image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)

    def picture(self, key: str, photo: str) -> Picture:
        """The thumbnail's pixels, from disk or made from the file `photo` now.

        A new thumbnail is kept only if that file still has the content `key`; otherwise another file with the old
        content would show this picture. If the cache can't be written, the thumbnail is made each time.

        Raises:
            PhotoError: the photo cannot be read.
        """
        path = self.find(key)
        if path is not None:
            try:
                return Picture.of(open_photo(path))
            except PhotoError:  # cut short by a crash of the machine, or by another program
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        image = open_photo(photo, min_side=self.size)
        if content_hash(photo).hex() == key:
            with suppress(OSError):
                self.keep(key, image)
        return Picture.of(self.reduce(image))

    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(size for _, size, _ in self._files())

    def clear(self) -> None:
        """Remove every thumbnail; photos are not touched."""
        for path, _, _ in self._files():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        with self._lock:
            self._bytes = 0

    def trim(self) -> None:
        """Remove the least recently used thumbnails until there is room again, and partial files that a crash left."""
        files = sorted(self._files(), key=lambda file: file[2])
        total = sum(size for _, size, _ in files)
        for path, size, used in files:
            stray = path.suffix == _PART and time.time() - used > _STRAY_SECONDS
            if stray or total > _TRIMMED_TO * self.limit:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                    total -= size
        with self._lock:
            self._bytes = total

    def _count(self, written: int) -> None:
        with self._lock:
            if self._bytes is None:
                self._bytes = self.bytes()
            else:
                self._bytes += written
            full = self._bytes > self.limit
        if full:
            self.trim()

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"a thumbnail's key is a hash in hex, not {key!r}")
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """(path, bytes, last use in Unix seconds) of every file of the cache, and of nothing else."""
        try:
            shards = [entry.path for entry in os.scandir(self.folder) if re.fullmatch("[0-9a-f]{2}", entry.name)]
        except OSError:
            return
        for shard in shards:
            try:
                entries = list(os.scandir(shard))
            except OSError:
                continue
            for entry in entries:
                if entry.name.endswith((_SUFFIX, _PART)):
                    with suppress(OSError):
                        status = entry.stat()
                        yield Path(entry.path), status.st_size, status.st_mtime

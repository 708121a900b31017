"""From a file to its content hash and its pixels, a few photos ahead of the model."""

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.library.scan import Found
from mobileclip.errors import PhotoError
from mobileclip.model import DECODE_MARGIN
from mobileclip.photos import open_photo
from mobileclip.preprocess import PixelRecipe

Pixels = NDArray[np.float32]
A = TypeVar("A")
B = TypeVar("B")

HASH_BYTES = 32
_CHUNK = 1 << 20

# These lie outside the file or pass with time, and finding out costs an open() and no decoding: always try
# again.
PASSING_REASONS = (
    "missing",
    "no permission",
    "cannot be read",
    "changed while being read",
    "needs pillow-heif",
)


def content_hash(path: str) -> bytes:
    """Hash a whole file: BLAKE2b, 32 bytes.

    Whole, because the first megabyte of two uncompressed scans can be the same; BLAKE2b, because it is quick
    on phones without hash instructions.

    Raises:
        PhotoError: the file cannot be read, or is empty.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    # Without O_NONBLOCK, a pipe that took the photo's place since the scan would hang us here.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError(path, "not a file")
            if status.st_size == 0:
                raise PhotoError(path, "empty file")
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise PhotoError(path, "missing", error.strerror or "") from None
    except PermissionError as error:
        raise PhotoError(path, "no permission", error.strerror or "") from None
    except OSError as error:
        raise PhotoError(path, "cannot be read", error.strerror or "") from None
    return digest.digest()


def read_pixels(found: Found, recipe: PixelRecipe) -> Pixels:
    """Decode a photo into what the image tower takes: float32 (3, s, s).

    Raises:
        PhotoError: it cannot be decoded, or is no longer the file that was scanned and hashed.
    """
    pixels = recipe(open_photo(found.path, min_side=DECODE_MARGIN * recipe.size))
    if not unchanged(found):
        raise PhotoError(found.path, "changed while being read")
    return pixels


def unchanged(found: Found) -> bool:
    """Whether the file still has the size and modification time that the scan saw."""
    try:
        status = Path(found.path).stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (found.size, found.mtime_ns)


def guarded(work: Callable[[], A], path: str) -> A | PhotoError:
    """Do `work` on one photo and hand a failure back as a value, which leaves the photos beside it alone."""
    try:
        return work()
    except PhotoError as error:
        return error
    except MemoryError:
        return PhotoError(path, "too large", "not enough memory to decode it")
    except Exception as error:  # a decoder's bug must cost one photo, never the run
        return PhotoError(path, "decode error", f"{type(error).__name__}: {error}")


def ahead(pool: ThreadPoolExecutor, work: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """Map `work` over `items` in order, at most `depth` of them under way or waiting; lazy at both ends."""
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()

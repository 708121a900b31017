"""From a file to its pixels, a few photos ahead of the model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.library.files.scan import Found
from app.library.pictures.thumbnails import Thumbnails
from mobileclip.encoder import DECODE_MARGIN
from mobileclip.errors import PhotoError, one_line
from mobileclip.photos import open_photo
from mobileclip.preprocess import PixelRecipe

Pixels = NDArray[np.float32]
A = TypeVar("A")
B = TypeVar("B")

# These causes are outside the file or pass with time, and checking them costs an open() but no decoding: always try
# again.
PASSING_REASONS = (
    "missing",
    "no permission",
    "cannot be read",
    "changed while being read",
    "needs pillow-heif",
)


def read_photo(found: Found, recipe: PixelRecipe, thumbnails: Thumbnails | None = None, key: str = "") -> Pixels:
    """Decode a photo into what the image tower takes, float32 (3, s, s), and keep its thumbnail under `key`.

    Raises:
        PhotoError: it cannot be decoded, or is no longer the file that was scanned and hashed.
    """
    image = open_photo(found.path, min_side=DECODE_MARGIN * recipe.size)
    if not unchanged(found):
        raise PhotoError(found.path, "changed while being read")
    if thumbnails is not None and min(image.size) >= thumbnails.size:
        # The index does not depend on the cache.
        with suppress(OSError):
            thumbnails.keep(key, image)
    return recipe(image)


def unchanged(found: Found) -> bool:
    """Whether the file still has the size and modification time that the scan saw."""
    try:
        status = Path(found.path).stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (found.size, found.mtime_ns)


def guarded(work: Callable[[], A], path: str) -> A | PhotoError:
    """Do `work` on one photo and return a failure as a value, so that it does not affect other photos."""
    try:
        return work()
    except PhotoError as error:
        return error
    except MemoryError:
        return PhotoError(path, "too large", "not enough memory to decode it")
    except Exception as error:  # a decoder's bug must cost one photo, never the run
        return PhotoError(path, "decode error", f"{type(error).__name__}: {one_line(error)}")


def ahead(pool: ThreadPoolExecutor, work: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """Map `work` over `items` in order, at most `depth` of them under way or waiting; lazy at both ends."""
    waiting: deque[Future[B]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()

"""Walk a folder of photos: which photos there are, and which places could not be read.

The walk reports two different things: "this photo is here" and "this place could not be read". Only with both can the
index tell a deleted photo from an unplugged drive.
"""

# A million paths, and not all of them valid text: plain strings keep every byte and cost little.
# ruff: noqa: PTH100, PTH116, PTH118, PTH122

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass

from mobileclip.files import PHOTO_SUFFIXES

# Folders in which systems and NAS boxes keep bins and thumbnails; compared in lower case.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "#recycle", "$recycle.bin", "recycler", "system volume information", "lost+found", "__macosx"}
)
_HIDDEN_BUT_NEVER_PHOTOS = (
    ".trash",
    ".thumbnails",
    ".thumb",
    ".spotlight-",
    ".fseventsd",
    ".documentrevisions-",
)

BROKEN_LINK = "broken link"

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file with a photo's suffix; `size` in bytes, `mtime_ns` in nanoseconds since 1970."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class NotAPhoto:
    """Something with a photo's suffix that can never be a photo: a pipe, a broken or circular link."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inaccessible:
    """A folder or file that could not be read; nothing at or below it is known to be gone."""

    path: str
    reason: str


def identity(path: str | os.PathLike[str]) -> Identity | None:
    """(device, inode) of what `path` leads to, or None if it can't be read."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def walk(
    root: str,
    *,
    include_hidden: bool = False,
    visited: set[Identity] | None = None,
    excluded: Callable[[str, str], bool] = lambda name, path: False,
) -> Iterator[Found | NotAPhoto | Inaccessible]:
    """Yield all photos below `root`, in the same order on every run, and every place that could not be read.

    Folders are sorted by name. A linked folder is entered after all real ones, each folder once by its
    (device, inode), so that a loop ends and a photo is found under its real path if it has one.
    Hidden entries (a leading dot), bins and thumbnail folders, `._*` files and folders that hold a `.nomedia` file
    are skipped; `root` itself was named by a person and is always walked.

    Args:
        root: absolute path of a folder.
        include_hidden: also enter hidden folders and take hidden files; bins and thumbnails stay out.
        visited: folders to skip, shared between the walks of one run; changed in place.
        excluded: takes a name and the path that ends with it, and returns whether to skip it and all below. It is not
            called for `root`.
    """
    visited = set() if visited is None else visited
    folders: list[str] = [root]
    linked: deque[str] = deque()
    while folders or linked:
        folder = folders.pop() if folders else linked.popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Inaccessible(folder, _why(error))
            continue
        if folder != root and any(entry.name == ".nomedia" for entry in entries):
            continue
        below: list[str] = []
        for entry in entries:
            if _skipped(entry.name, include_hidden) or excluded(entry.name, entry.path):
                continue
            found = _look(entry)
            if isinstance(found, str):
                (linked if entry.is_symlink() else below).append(found)
            elif found is not None:
                yield found
        folders.extend(reversed(below))


def _look(entry: os.DirEntry[str]) -> Found | NotAPhoto | Inaccessible | str | None:
    """What one entry is: a photo, not a photo, a folder to enter (its path), or of no interest."""
    like_photo = os.path.splitext(entry.name)[1].lower() in PHOTO_SUFFIXES
    try:
        if entry.is_dir():
            return entry.path
        if not like_photo and not entry.is_symlink():
            return None
        status = os.stat(entry.path)
    except OSError as error:
        return _unseen(entry, error, like_photo)
    if not like_photo:
        return None
    if not stat.S_ISREG(status.st_mode):
        return NotAPhoto(entry.path, "not a file")
    return Found(entry.path, status.st_size, status.st_mtime_ns)


def _unseen(entry: os.DirEntry[str], error: OSError, like_photo: bool) -> NotAPhoto | Inaccessible | None:
    if _is_link(entry) and not isinstance(error, PermissionError):
        # A link without a photo's name may have led to a folder on a drive that is not plugged in.
        return NotAPhoto(entry.path, BROKEN_LINK) if like_photo else Inaccessible(entry.path, BROKEN_LINK)
    if isinstance(error, FileNotFoundError):
        return None  # deleted since the folder was listed
    return Inaccessible(entry.path, _why(error))


def _is_link(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink()
    except OSError:
        return False


def _skipped(name: str, include_hidden: bool) -> bool:
    lower = name.lower()
    if lower.startswith("._") or lower in SYSTEM_FOLDERS or lower.startswith(_HIDDEN_BUT_NEVER_PHOTOS):
        return True
    return name.startswith(".") and not include_hidden


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def outermost(folders: Set[str] | list[str]) -> list[str]:
    """Absolute, sorted paths of `folders` without those that lie inside another one."""
    kept: list[str] = []
    for path in sorted({os.path.abspath(folder) for folder in folders}):
        if not any(inside(path, other) for other in kept):
            kept.append(path)
    return kept


def inside(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies below it; judged by name, without reading the disk."""
    return path == folder or path.startswith(os.path.join(folder, ""))

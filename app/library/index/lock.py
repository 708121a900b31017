"""One indexing process at a time, by a lock that the system drops when its holder dies."""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from app.library.errors import IndexBusyError, LibraryError

# Windows locks a byte past the text, so that others can still read whose lock it is.
_WINDOWS_BYTE = 1 << 20


class IndexLock:
    """Holds `path` locked inside a `with` block.

    A lock file that merely exists would outlive a killed process; this one is an advisory lock of the
    operating system on an open file, gone with the process however it ends.

    Raises:
        IndexBusyError: another process holds it; the message names its process id.
        LibraryError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            file = self.path.open("a+b")
        except OSError as error:
            raise LibraryError(f"cannot write in the index folder {self.path.parent}: {error.strerror}") from None
        try:
            _lock(file)
        except OSError:
            holder = _holder(file)
            file.close()
            raise IndexBusyError(
                f"another pocketclip{holder} is indexing into {self.path.parent}; wait for it to finish"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    text = file.read(20)
    return f" (process {text.decode()})" if text.isdigit() else ""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(_WINDOWS_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

"""What a file holds, known by its hash."""

import hashlib
import os
import stat

from mobileclip.errors import PhotoError
from mobileclip.files import PathLike

HASH_BYTES = 32
_CHUNK = 1 << 20


def content_hash(path: PathLike) -> bytes:
    """Hash a whole file: BLAKE2b, 32 bytes.

    Whole, because the first megabyte of two uncompressed scans can be the same; BLAKE2b, because it is quick
    on phones without hash instructions.

    Raises:
        PhotoError: the file cannot be read, or is empty.
    """
    name = os.fspath(path)
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    # Without O_NONBLOCK, a pipe that took the photo's place since the scan would hang us here.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(name, "rb", opener=lambda opened, _: os.open(opened, flags)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError(name, "not a file")
            if status.st_size == 0:
                raise PhotoError(name, "empty file")
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise PhotoError(name, "missing", error.strerror or "") from None
    except PermissionError as error:
        raise PhotoError(name, "no permission", error.strerror or "") from None
    except OSError as error:
        raise PhotoError(name, "cannot be read", error.strerror or "") from None
    return digest.digest()

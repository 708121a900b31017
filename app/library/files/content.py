"""What a file holds, told by its hash."""

import hashlib
import os
import stat

from mobileclip.errors import PhotoError

HASH_BYTES = 32
_CHUNK = 1 << 20


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

"""Silence for converters, which print a lot, some of them from native code."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from export.formats import ExportError
from mobileclip.errors import PocketclipError, one_line


@contextmanager
def converting(failure: str) -> Iterator[None]:
    """Run a converter silently, and turn what it raises into an `ExportError`.

    Args:
        failure: how the message begins; what the converter raised follows.

    Raises:
        ExportError: the converter raised an exception of any kind. Errors of this project pass unchanged.
    """
    try:
        with quiet():
            yield
    except PocketclipError:
        raise
    except Exception as error:  # converters raise anything
        raise ExportError(f"{failure}: {one_line(error, 300)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Discard warnings and everything printed on stdout and stderr, by native code too. Exceptions pass.

    The whole process is silent in the meantime, so put only the converter's own call inside.
    """
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        # A file, not the null device: some libraries seek in it.
        with tempfile.TemporaryFile() as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            yield
            for stream in streams:
                stream.flush()
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)

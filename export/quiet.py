"""Converters talk a lot, some of them from native code."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from export.formats import ExportError
from mobileclip.errors import PocketclipError


@contextmanager
def converting(failure: str) -> Iterator[None]:
    """Let a converter work, in silence.

    Args:
        failure: how the line begins that tells what it raised, whatever that was.

    Raises:
        ExportError: in one line.
    """
    try:
        with quiet():
            yield
    except PocketclipError:
        raise
    except Exception as error:  # converters raise anything, and often on many lines
        raise ExportError(f"{failure}: {' '.join(str(error).split())[:300]}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep everything off stdout and stderr, native code's too, and no warning; exceptions pass as ever.

    The whole process is silent meanwhile, so only the converter's own call belongs in here.
    """
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        # A file, not the null device: some libraries ask whether they may seek.
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

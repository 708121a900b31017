"""Lines for a terminal: results on stdout, messages on stderr."""

import json
import sys
from typing import Any

__all__ = ["printable", "say", "show_json", "size"]


def say(text: str, *, quiet: bool = False) -> None:
    """Print a message on stderr, on one line."""
    if not quiet:
        print(printable(text), file=sys.stderr)


def show_json(data: Any) -> None:
    """Print one JSON document; bytes of a path that aren't text become `\\udc80` to `\\udcff`."""
    text = json.dumps(data, ensure_ascii=False, indent=2)
    # A lone surrogate only occurs inside a string, where this escape is valid JSON.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def printable(text: str) -> str:
    """Return `text` on one line, with control characters escaped, which could move the cursor or fake a row."""
    return "".join(_escape(letter) for letter in text) if not text.isprintable() else text


def _escape(letter: str) -> str:
    # Surrogates represent the bytes of a name that isn't valid text; they must be written as they were read.
    if letter.isprintable() or "\udc80" <= letter <= "\udcff" or ord(letter) > 0x2FF:
        return letter
    return letter.encode("unicode_escape").decode()


def size(count: int) -> str:
    """Format a number of bytes for people, such as 1.4 MB, in powers of 1000."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"

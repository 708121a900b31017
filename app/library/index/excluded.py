"""Match files and folders that a person does not want in the library.

A pattern without a slash is compared with the name of every file and folder below an indexed folder; a pattern with a
slash is compared with whole paths. A matching folder is excluded with everything below it. `*`, `?` and `[abc]` work as
in a shell, and case does not matter: `Screenshots`, `*.gif`, `WhatsApp*`, `/home/me/Pictures/Private`.
"""

import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path


class Excluded:
    """Whether an entry of a folder is skipped; called with its name and its path."""

    def __init__(self, patterns: Sequence[str]) -> None:
        wholes = [pattern.rstrip("/\\") for pattern in patterns if _has_slash(pattern)]
        self._name = _any_of([pattern for pattern in patterns if not _has_slash(pattern)])
        self._path = _any_of(wholes)

    def __call__(self, name: str, path: str) -> bool:
        """Whether the entry `name`, which is the end of `path`, matches a pattern."""
        return bool(
            (self._name and self._name.match(name.casefold())) or (self._path and self._path.match(path.casefold()))
        )

    def hides(self, path: str, root: str) -> bool:
        """Whether a photo is excluded, by its own name or by a folder between it and the indexed folder `root`."""
        if not self._name and not self._path:
            return False
        reached = Path(root)
        for name in Path(path).relative_to(root).parts:
            reached /= name
            if self(name, str(reached)):
                return True
        return False


def _has_slash(pattern: str) -> bool:
    return "/" in pattern or os.sep in pattern


def _any_of(patterns: Sequence[str]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(fnmatch.translate(pattern.casefold()) for pattern in patterns))

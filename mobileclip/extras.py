"""What to install when an optional part of pocketclip is missing."""

import shlex
import sys
from pathlib import Path

from mobileclip.errors import PocketclipError

__all__ = ["MissingExtraError", "install_hint"]

_CHECKOUT = Path(__file__).parents[1]


class MissingExtraError(PocketclipError, ImportError):
    """A package of one of pocketclip's extras isn't installed."""

    def __init__(self, what: str, extra: str, package: str | None = None) -> None:
        """Build a message that says what needs which package, and how to install it.

        Args:
            what: the feature, as the subject of "needs".
            extra: the extra that includes the package, or several with commas.
            package: the missing package; None to name only the extra.
        """
        self.extra = extra
        super().__init__(f"{what} needs {package or f'the extra {extra!r}'}: {install_hint(extra)}")


def install_hint(extra: str) -> str:
    """Return a command that installs an extra, ready to paste, in a source checkout or an installed package."""
    python = shlex.quote(sys.executable or "python3")
    # Only a checkout has pyproject.toml next to the package.
    where = f"-e {shlex.quote(f'{_CHECKOUT}[{extra}]')}" if (_CHECKOUT / "pyproject.toml").is_file() else None
    return f"{python} -m pip install {where or shlex.quote(f'pocketclip[{extra}]')}"

"""Errors and warnings that users see. Each message is one line and says what to do."""


class PocketclipError(Exception):
    """Base of all errors that the command line and the app show as one line instead of a traceback."""


class BundleError(PocketclipError):
    """A model bundle that is missing, damaged, altered, or written by a newer version."""


class ConfigError(PocketclipError):
    """A setting that is unknown, of the wrong type or out of range."""


class EngineError(PocketclipError):
    """An inference engine that isn't installed, can't load a tower, or returns wrong known answers."""


class PhotoError(PocketclipError):
    """A photo that can't be read.

    Attributes:
        path: the photo as the caller named it.
        reason: one of a few fixed phrases, such as "truncated", "not an image" or "too large".
        detail: the decoder's message, in one line.
    """

    def __init__(self, path: str, reason: str, detail: str = "") -> None:
        self.path = path
        self.reason = reason
        self.detail = detail
        super().__init__(f"{path}: {reason}" + (f" ({detail})" if detail else ""))


class AcceleratorWarning(UserWarning):
    """The requested accelerator isn't available here, so the CPU runs the model."""


class TextCutWarning(UserWarning):
    """A text was longer than the context length, and its end was dropped."""


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """Format an error's message as one line of at most `limit` characters; its class name if it has no message."""
    return " ".join(str(error).split())[:limit] or type(error).__name__

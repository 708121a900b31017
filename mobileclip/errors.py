"""The errors and warnings a person can meet. Each message is one line and says what to do."""


class PocketclipError(Exception):
    """Base of every error that the command line and the app show as one line instead of a traceback."""


class BundleError(PocketclipError):
    """A model bundle that is missing, damaged, altered, or made by a newer version."""


class ConfigError(PocketclipError):
    """A setting that is unknown, of the wrong type or out of range."""


class EngineError(PocketclipError):
    """An inference engine that is not installed, will not load a tower, or gives wrong known answers."""


class PhotoError(PocketclipError):
    """A photo that cannot be read.

    Attributes:
        path: the photo as it was named by the caller.
        reason: a short, stable class of failure, e.g. "truncated", "not an image", "too large".
        detail: what the decoder said, in one line.
    """

    def __init__(self, path: str, reason: str, detail: str = "") -> None:
        self.path = path
        self.reason = reason
        self.detail = detail
        super().__init__(f"{path}: {reason}" + (f" ({detail})" if detail else ""))


class AcceleratorWarning(UserWarning):
    """The requested accelerator isn't available here, so the CPU runs the model."""


class TextCutWarning(UserWarning):
    """A text was longer than a text tower takes, and its end was left out."""


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """What an error says, on one line of at most `limit` characters; its class name if it says nothing."""
    return " ".join(str(error).split())[:limit] or type(error).__name__

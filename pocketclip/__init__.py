"""Search and tag photos offline with a compact CLIP model.

    import pocketclip

    model = pocketclip.load("pocket")
    model.tag("a.jpg")
    model.rank(["a.jpg", "b.jpg"], "two dogs on a beach")

See `mobileclip` for everything else.
"""

from typing import TYPE_CHECKING, Any

import mobileclip
from mobileclip import list_models, load

if TYPE_CHECKING:
    from mobileclip import Bundle, Model, create_model, load_checkpoint

__all__ = ["Bundle", "Model", "__version__", "create_model", "list_models", "load", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import the rest on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(mobileclip, name)


def __dir__() -> list[str]:
    return sorted(__all__)

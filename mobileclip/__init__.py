"""Image and text towers that share one space of vectors: what phone and workstation must agree on.

    model = mobileclip.load("pocket")
    photos = model.encode_images(["a.jpg", "b.heic"])    # float32 (2, d), unit rows
    words = model.encode_texts(["a red shoe"])           # float32 (1, d), unit rows
    photos @ words.T                                     # cosines

Importing this package loads neither Pillow nor an engine; each comes when first needed.
"""

from typing import TYPE_CHECKING

from mobileclip.errors import BundleError, EngineError, PhotoError, PocketclipError

if TYPE_CHECKING:
    import os

    from mobileclip.model import Model

__all__ = ["BundleError", "EngineError", "PhotoError", "PocketclipError", "load"]


def load(
    name_or_path: "str | os.PathLike[str]" = "pocket", *, engine: str = "onnx", threads: int | None = None
) -> "Model":
    """Open a model bundle and check all of its files; the towers load when first used.

    Args:
        name_or_path: name of an embedded bundle, or path of a bundle's folder or .zip.
        engine: the runtime, one that the bundle has towers for.
        threads: threads for one batch; None leaves it to the engine.

    Raises:
        BundleError: no such bundle, or one that is damaged, altered or too new.
        EngineError: the bundle has no towers for this engine.
    """
    from mobileclip.bundle import Bundle, find_bundle
    from mobileclip.model import Model

    return Model(Bundle(find_bundle(name_or_path)), engine=engine, threads=threads)

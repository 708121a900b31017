"""Image and text towers that share one space of vectors: what phone and workstation must agree on.

    model = mobileclip.load("pocket")
    photos = model.encode_images(["a.jpg", "b.heic"])    # float32 (2, d), unit rows
    words = model.encode_texts(["a red shoe"])           # float32 (1, d), unit rows
    photos @ words.T                                     # cosines

Importing this package loads neither Pillow nor an engine; each comes when first needed. With the `train` extra,
`create_model`, `load_checkpoint` and `reparameterize` are here too; they bring torch.
"""

from typing import TYPE_CHECKING, Any

from mobileclip.errors import BundleError, EngineError, PhotoError, PocketclipError

if TYPE_CHECKING:
    import os

    from mobileclip.checkpoints import load_checkpoint
    from mobileclip.model import Model
    from mobileclip.towers import create_model, reparameterize

__all__ = [
    "BundleError",
    "EngineError",
    "PhotoError",
    "PocketclipError",
    "create_model",
    "load",
    "load_checkpoint",
    "reparameterize",
]

_TORCH_SIDE = {"create_model": "towers", "load_checkpoint": "checkpoints", "reparameterize": "towers"}


def load(
    name_or_path: "str | os.PathLike[str]" = "pocket",
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    accelerator: str = "cpu",
) -> "Model":
    """Open a model bundle and check all of its files; the towers load when first used.

    Args:
        name_or_path: name of an embedded or pulled bundle, or path of a bundle's folder or .zip.
        engine: the runtime, "onnx" or "litert"; None for the first of them that the bundle has towers for.
        precision: "fp32", "int8-weights", …: one that the bundle has for this engine; None for the one it prefers.
        threads: threads for one batch; None leaves it to the engine.
        accelerator: "cpu", "auto" for the best one that works here, or its name ("cuda", "coreml", "directml", …). One
            that does not load, fails, or gives wrong known answers is given up for the CPU.

    Raises:
        BundleError: no such bundle, or one that is damaged, altered or too new.
        EngineError: the bundle has no towers for this engine, or not in this precision.
    """
    from mobileclip.bundle import Bundle, find_bundle
    from mobileclip.model import Model

    bundle = Bundle(find_bundle(name_or_path))
    return Model(bundle, engine=engine, precision=precision, threads=threads, accelerator=accelerator)


def __getattr__(name: str) -> Any:
    """Import the torch side when it is first asked for."""
    import importlib

    if name not in _TORCH_SIDE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_TORCH_SIDE[name]}"), name)

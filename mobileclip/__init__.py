"""Image and text towers with a shared embedding space: the code that phones and workstations share.

    model = mobileclip.load("pocket")
    photos = model.encode_images(["a.jpg", "b.heic"])    # float32 (2, 512), unit rows
    texts = model.encode_texts(["a red shoe", "a dog"])  # float32 (2, 512), unit rows
    photos @ texts.T                                     # cosines
    model.tag("a.jpg")                                   # [Tag(label="shoe", probability=0.93), ...]

Importing this package loads neither Pillow nor an engine nor PyTorch; each is imported on first use. `create_model`,
`load_checkpoint` and `reparameterize`, and `load` for checkpoints, need the `train` extra.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileclip.checkpoint_files import OPENCLIP_CONFIG, WEIGHTS, WEIGHTS_SUFFIXES, find_in_run
from mobileclip.errors import BundleError, EngineError, PhotoError, PocketclipError
from mobileclip.extras import MissingExtraError
from mobileclip.files import PathLike

if TYPE_CHECKING:
    from mobileclip.bundle import Bundle
    from mobileclip.checkpoints import load_checkpoint
    from mobileclip.encoder import Encoder
    from mobileclip.model import Model
    from mobileclip.towers import create_model, reparameterize

__all__ = [
    "Bundle",
    "BundleError",
    "EngineError",
    "Model",
    "PhotoError",
    "PocketclipError",
    "__version__",
    "create_model",
    "list_models",
    "load",
    "load_checkpoint",
    "reparameterize",
]

_ON_FIRST_USE = {
    "Bundle": "mobileclip.bundle",
    "Model": "mobileclip.model",
    "create_model": "mobileclip.towers",
    "load_checkpoint": "mobileclip.checkpoints",
    "reparameterize": "mobileclip.towers",
}


def load(
    name_or_path: PathLike = "pocket",
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    accelerator: str = "cpu",
    config: str | None = None,
) -> "Encoder":
    """Open a bundle, or a checkpoint that PyTorch runs.

    A bundle's files are all verified; its towers load on first use.

    Args:
        name_or_path: name of an embedded or pulled bundle (see `list_models`), the path of a bundle's folder or `.zip`,
            or the path of a checkpoint (see `load_checkpoint`).
        engine: "onnx" or "litert"; None for the first that the bundle has towers for. Bundles only.
        precision: such as "fp32" or "int8-weights"; None for the bundle's default. Bundles only.
        threads: threads for one batch, at least 1; None leaves it to the engine.
        accelerator: "cpu", "auto" for the best that works here, or a name ("cuda", "coreml", "directml", ...). If it
            doesn't load, fails, or returns wrong known answers, the CPU takes over. Bundles only.
        config: name or .toml of a checkpoint's configuration, if the file doesn't carry one.

    Returns:
        A `Model` for a bundle, a `mobileclip.torch_model.TorchModel` for a checkpoint, with the same methods.

    Raises:
        BundleError: no such bundle, or it is damaged, altered or too new.
        EngineError: the bundle has no towers for this engine or precision.
        MissingExtraError: a checkpoint needs the `train` extra.
        PocketclipError: the checkpoint can't be read.
        ValueError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    path = Path(name_or_path)
    is_checkpoint = any((path / name).is_file() for name in (WEIGHTS, OPENCLIP_CONFIG)) or find_in_run(path)
    if is_checkpoint or path.suffix.lower() in WEIGHTS_SUFFIXES:
        opened: Encoder = _torch_side("mobileclip.torch_model", "a checkpoint").load_torch_model(path, config, threads)
        return opened
    from mobileclip.model import open_bundle

    return open_bundle(name_or_path, engine=engine, precision=precision, threads=threads, accelerator=accelerator)


def list_models(pattern: str = "*") -> list[str]:
    """Names that `load` accepts (installed bundles), then those that `create_model` accepts (architectures).

    Args:
        pattern: shell wildcards, such as "mobileclip2-*".
    """
    from fnmatch import fnmatchcase

    from mobileclip.bundle import named_bundles

    configs = sorted(path.stem for path in (Path(__file__).parent / "towers" / "configs").glob("*.toml"))
    return [name for name in dict.fromkeys([*named_bundles(), *configs]) if fnmatchcase(name, pattern)]


def _torch_side(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"mobileclip", "app"}:  # our own module: a bug, not a missing extra
            raise
        raise MissingExtraError(what, "train", error.name) from None


def __getattr__(name: str) -> Any:
    """Import the rest on first use."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("pocketclip")
        except PackageNotFoundError:  # copied into an app rather than installed
            return "unknown"
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_torch_side(_ON_FIRST_USE[name], name), name)


def __dir__() -> list[str]:
    return sorted(__all__)

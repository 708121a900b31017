"""Inference engines, one module each, with one interface: `Tower(data, threads=…)`, called on a batch."""

import importlib
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from mobileclip.errors import AcceleratorWarning, EngineError
from mobileclip.runtimes.fallback import CPU, Fallback
from mobileclip.runtimes.tower import Tower

__all__ = ["ENGINES", "Tower", "load_tower"]

ENGINES: Final = {"onnx": "mobileclip.runtimes.onnx", "litert": "mobileclip.runtimes.litert"}
"""Engine, as in a manifest's `towers` → its module, with `Tower` and `accelerators()`."""


def load_tower(
    engine: str,
    data: bytes,
    *,
    threads: int | None = None,
    accelerator: str = CPU,
    check: Callable[[Tower], None] | None = None,
) -> Tower:
    """Load a tower from a model file.

    Args:
        engine: a key of `ENGINES`.
        data: content of the model file, already verified.
        threads: threads for one batch; None leaves it to the engine.
        accelerator: "cpu", "auto" for the best that the engine has here, or a name. If it fails, the CPU takes over for
            good, see `Fallback`.
        check: raises an `EngineError` for a tower that returns wrong answers.

    Raises:
        EngineError: the engine is unknown or not installed, or it can't load the file.
    """
    if engine not in ENGINES:
        raise EngineError(f"unknown engine {engine!r}; known are {', '.join(ENGINES)}")
    module: Any = importlib.import_module(ENGINES[engine])
    if accelerator != CPU:
        available = module.accelerators()
        names = available if accelerator == "auto" else (accelerator,)
        if accelerator not in ("auto", *available):
            known = ", ".join(available) or "none"
            message = f"{engine} has no accelerator {accelerator!r} here (available: {known}); using the CPU"
            warnings.warn(message, AcceleratorWarning, stacklevel=2)
        return Fallback(names, partial(_load, module, data, threads), check)
    tower = _load(module, data, threads, CPU)
    if check is not None:
        check(tower)
    return tower


def _load(module: Any, data: bytes, threads: int | None, accelerator: str) -> Tower:
    tower: Tower = module.Tower(data, threads=threads, accelerator=accelerator)
    return tower

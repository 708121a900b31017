"""The engines that towers can be converted for, behind one interface. A converter is imported when first used."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from numpy.typing import NDArray

from mobileclip.errors import PocketclipError
from mobileclip.extras import MissingExtraError
from mobileclip.runtimes import Tower

if TYPE_CHECKING:
    from mobileclip.towers import CLIP

Side = Literal["image", "text"]
SIDES: Final[tuple[Side, ...]] = ("image", "text")


class ExportError(PocketclipError):
    """An export that can't be done as requested, such as a tower that an engine can't convert or quantize."""


class Format(Protocol):
    """How towers become files for one engine.

    Attributes:
        engine: the key in a manifest's `towers`.
        precisions: those that it can make, the most exact first; "fp32" is one of them.
        interpreted: whether `open` runs the tower operation by operation, far slower than the engine would. Such towers
            are measured on fewer photos, and their latency isn't measured.
    """

    engine: str
    precisions: tuple[str, ...]
    interpreted: bool

    def convert(self, model: CLIP, side: Side) -> bytes:
        """Convert one tower in float32.

        Args:
            model: reparameterized, in eval mode.
            side: which tower.

        Returns:
            The file; for Core ML a zipped .mlpackage.

        Raises:
            ExportError: the converter can't do it.
        """

    def quantize(self, data: bytes, side: Side, precision: str, calibration: Sequence[NDArray[Any]]) -> bytes:
        """Make a converted tower smaller; "fp32" returns it unchanged.

        Args:
            data: what `convert` returned.
            side: which tower.
            precision: one of `precisions`.
            calibration: inputs like those of real use: float32 pixels (1, 3, s, s) or int32 tokens (1, L). May be
                empty, which some precisions refuse.

        Raises:
            ExportError: the engine lacks the precision, needs calibration, or can't do it.
        """

    def files(self, data: bytes, side: Side, precision: str) -> dict[str, bytes]:
        """The tower's file in a bundle, or the files of its one folder: name → content.

        Files of a folder are named "FOLDER/…"; the manifest then names the folder.
        """

    def cpu_operators(self, data: bytes) -> Counter[str]:
        """Operators of a converted tower that the CPU must run even if a GPU runs the rest, with their numbers.

        Empty if there are none, or if nothing is known about the engine's GPUs.
        """

    def open(self, data: bytes, threads: int | None) -> Tower:
        """Load a tower to run it here, in the engine's runtime or in an interpreter of its program.

        Raises:
            EngineError: it can't be loaded.
        """


FORMATS: Final = {
    "onnx": "export.onnx.convert:ONNX",
    "litert": "export.litert.convert:LITERT",
    "coreml": "export.coreml.convert:COREML",
}
"""Engine → "module:attribute" of its `Format`."""
UINT8: Final = {"onnx": "export.onnx.convert:ONNX_UINT8", "litert": "export.litert.convert:LITERT_UINT8"}
"""The same for image towers that take bytes and do the pixel recipe's arithmetic themselves. Those for Core ML
always do it."""


def load_format(engine: str, *, uint8: bool = False) -> Format:
    """Import the converter of an engine.

    Args:
        engine: a key of `FORMATS`.
        uint8: whether image towers take bytes.

    Raises:
        ExportError: there is no such engine.
        MissingExtraError: a package that the converter needs isn't installed.
    """
    if engine not in FORMATS:
        raise ExportError(f"unknown format {engine!r}: choose from {', '.join(FORMATS)}")
    module, _, attribute = (UINT8 if uint8 and engine in UINT8 else FORMATS)[engine].partition(":")
    try:
        found: Format = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise MissingExtraError(f"the format {engine}", "export", error.name) from error
    return found

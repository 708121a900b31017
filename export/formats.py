"""The engines that towers can be converted for, behind one interface; each converter is imported when first used."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from numpy.typing import NDArray

from mobileclip.errors import PocketclipError
from mobileclip.runtimes import Tower

if TYPE_CHECKING:
    from mobileclip.towers import CLIP

Side = Literal["image", "text"]
SIDES: Final[tuple[Side, ...]] = ("image", "text")


class ExportError(PocketclipError):
    """A tower that cannot be converted, or made as small as was asked."""


class Format(Protocol):
    """How towers become files of one engine.

    Attributes:
        engine: the key in a manifest's `towers`.
        precisions: what it can make, the most exact first; "fp32" is among them.
        interpreted: whether `open` runs the tower op by op, far slower than the engine itself would: such towers are
            measured on fewer photos, and their latency here says nothing.
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
            The file; for Core ML the zipped .mlpackage.

        Raises:
            ExportError: the converter cannot do it, in one line.
        """

    def quantize(self, data: bytes, side: Side, precision: str, calibration: Sequence[NDArray[Any]]) -> bytes:
        """Make a converted tower smaller; `precision` "fp32" returns it as it is.

        Args:
            data: what `convert` gave.
            side: which tower.
            precision: one of `precisions`.
            calibration: inputs like those of real use: float32 pixels (1, 3, s, s) or int32 tokens (1, L). May be
                empty; a precision that cannot do without says so.

        Raises:
            ExportError: it cannot be done, in one line.
        """

    def files(self, data: bytes, side: Side, precision: str) -> dict[str, bytes]:
        """Name the file, or the files of the one folder, that lie in the bundle: name → content.

        Files of a folder are named "FOLDER/…"; the manifest then names the folder.
        """

    def open(self, data: bytes, threads: int | None) -> Tower:
        """Make a tower that runs here: by the engine's runtime, or by an interpreter of its program.

        Raises:
            EngineError: it cannot be loaded.
        """


FORMATS: Final = {
    "onnx": "export.onnx.convert:ONNX",
    "litert": "export.litert.convert:LITERT",
    "coreml": "export.coreml.convert:COREML",
}
"""Engine → "module:attribute" of its `Format`."""
UINT8: Final = {"onnx": "export.onnx.convert:ONNX_UINT8", "litert": "export.litert.convert:LITERT_UINT8"}
"""The same for image towers that take bytes and do the pixel recipe's arithmetic themselves, as those for Core ML do in
any case."""


def load_format(engine: str, *, uint8: bool = False) -> Format:
    """Import the converter of an engine.

    Args:
        engine: a key of `FORMATS`.
        uint8: whether image towers shall take bytes.

    Raises:
        ExportError: there is none of that name, or a package that it needs is not installed.
    """
    if engine not in FORMATS:
        raise ExportError(f"unknown format {engine!r}: there is {', '.join(FORMATS)}")
    module, _, attribute = (UINT8 if uint8 and engine in UINT8 else FORMATS)[engine].partition(":")
    try:
        found: Format = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ExportError(f"the format {engine} needs {error.name}: pip install 'pocketclip[export]'") from error
    return found

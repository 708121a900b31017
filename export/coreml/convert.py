"""Both towers as Core ML packages (.mlpackage, an mlprogram for iOS 16 and later), made by coremltools.

The image tower takes an image, as from the camera or Photos; the pixel recipe's scale and shift are inside. Core ML
itself runs only on macOS; elsewhere `export.coreml.interpreter` checks a package. Tested with coremltools 9.0.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from export.coreml.interpreter import Program
from export.formats import ExportError, Side
from export.onnx.convert import IMAGE_OUTPUTS, pools_by_mean
from export.quiet import converting, quiet
from mobileclip.errors import EngineError, one_line
from mobileclip.preprocess import PixelRecipe
from mobileclip.runtimes import Tower
from mobileclip.towers import CLIP

with quiet():
    import coremltools as ct
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
    from coremltools.models.utils import _apply_graph_pass  # its own compressors use this

INPUTS: Final[dict[Side, str]] = {"image": "image", "text": "tokens"}
_RECIPE: Final = "pocketclip.pixels"
_GROUP: Final = 16
"""Channels that share a palette."""
_OUTPUTS: Final = {
    IMAGE_OUTPUTS[0]: "The picture's vector, of unit length: its cosine with a text's vector says how well they fit.",
    IMAGE_OUTPUTS[1]: "The last feature map before pooling, (channels, height, width): where in the picture what is.",
    "text_embeds": "The text's vector, of unit length: its cosine with a picture's vector says how well they fit.",
}


class _Image(nn.Module):
    """The image tower after an image input; that input scales pixels if one scale is enough for all channels."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.image, self.local, recipe = model.image, pools_by_mean(model), model.config.pixels
        self.scale, self.bias = 1 / 255, [0.0, 0.0, 0.0]
        self.inside = len(set(recipe.std)) > 1
        if not self.inside:
            self.scale, self.bias = 1 / (255 * recipe.std[0]), [-m / recipe.std[0] for m in recipe.mean]
        self.mean = nn.Buffer(torch.tensor(recipe.mean)[:, None, None])
        self.std = nn.Buffer(torch.tensor(recipe.std)[:, None, None])

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        if self.inside:
            pixels = (pixels - self.mean) / self.std
        if not self.local:
            return (F.normalize(self.image(pixels), dim=-1),)
        vectors, features = self.image.with_map(pixels)
        return F.normalize(vectors, dim=-1), features


class _Text(nn.Module):
    """Token ids (1, L) to unit vectors."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.text = model.text

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return (F.normalize(self.text(tokens), dim=-1),)


@dataclass(frozen=True)
class CoreML:
    """The `export.formats.Format` of Core ML; its bytes are a zipped .mlpackage.

    Precisions: `fp16` has float16 weights and arithmetic. With the same arithmetic, `int8-weights` has linear weights
    with a scale per channel; `palette8` and `palette6` have 256 or 64 values for every 16 channels and need iOS 18.
    """

    engine: str = "coreml"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8-weights", "palette8", "palette6")
    interpreted: bool = sys.platform != "darwin"

    def convert(self, model: CLIP, side: Side) -> bytes:
        """Convert one tower in float32; see `export.formats.Format`."""
        size, length = model.config.pixels.size, model.config.text.context_length
        module: nn.Module
        if side == "image":
            module = _Image(model)
            example, names = torch.zeros(1, 3, size, size), IMAGE_OUTPUTS[: 1 + module.local]
        else:
            module = _Text(model)
            example, names = torch.zeros(1, length, dtype=torch.int32), ("text_embeds",)
        with converting(f"the {side} tower can't be converted to Core ML"), tempfile.TemporaryDirectory() as folder:
            program = torch.export.export(module.eval(), (example,)).run_decompositions({})
            package = ct.convert(
                program,
                inputs=[_input(module, example)],
                outputs=[ct.TensorType(name=name, dtype=np.float32) for name in names],
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS16,
                compute_precision=ct.precision.FLOAT32,
                skip_model_load=True,
            )
            _describe(package, model, side, names)
            return _zip(package, Path(folder))

    def quantize(self, data: bytes, side: Side, precision: str, calibration: Sequence[NDArray[Any]]) -> bytes:
        """Make a converted tower smaller; see `export.formats.Format`. No precision needs calibration."""
        if precision not in self.precisions:
            raise ExportError(f"Core ML has no precision {precision!r}, only {', '.join(self.precisions)}")
        if precision == "fp32":
            return data
        failure = f"the {side} tower can't be quantized to {precision} for Core ML"
        with converting(failure), unpacked(data) as package, tempfile.TemporaryDirectory() as folder:
            wide = ct.models.MLModel(str(package), skip_model_load=True)
            target = ct.target.iOS18 if precision.startswith("palette") else ct.target.iOS16
            half = _apply_graph_pass(
                wide, FP16ComputePrecision(op_selector=lambda op: True), spec_version=target, skip_model_load=True
            )
            return _zip(_COMPRESS[precision](half), Path(folder))

    def files(self, data: bytes, side: Side, precision: str) -> dict[str, bytes]:
        """Name the files of the package's folder; see `export.formats.Format`."""
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {f"{side}-{precision}.mlpackage/{name}": archive.read(name) for name in archive.namelist()}

    def cpu_operators(self, data: bytes) -> Counter[str]:
        """Nothing is known: Core ML decides on the device."""
        return Counter()

    def open(self, data: bytes, threads: int | None) -> Tower:
        """Load a tower in Core ML on macOS, elsewhere in `export.coreml.interpreter`; see `export.formats.Format`.

        Core ML chooses its number of threads itself.
        """
        return _Tower(data)


COREML: Final = CoreML()


def _input(module: nn.Module, example: Tensor) -> Any:
    if not isinstance(module, _Image):
        return ct.TensorType(name=INPUTS["text"], shape=tuple(example.shape), dtype=np.int32)
    return ct.ImageType(
        name=INPUTS["image"],
        shape=tuple(example.shape),
        scale=module.scale,
        bias=module.bias,
        color_layout=ct.colorlayout.RGB,
    )


def _describe(package: Any, model: CLIP, side: Side, names: Sequence[str]) -> None:
    """Add what Xcode shows about a package."""
    config = model.config
    package.short_description = f"{config.name}: the {side} tower of a CLIP model, by pocketclip."
    package.version = "1"
    recipe = config.pixels
    if side == "image":
        crop = "shorter side scaled, center cropped" if recipe.resize == "shortest" else "squashed"
        description = f"An upright picture, {crop} to {recipe.size} × {recipe.size} pixels ({recipe.interpolation})."
    else:
        end = config.text.vocab_size - 1
        description = f"Token ids, padded with 0 to {config.text.context_length}; {end} ends the text."
    package.input_description[INPUTS[side]] = description
    for name in names:
        package.output_description[name] = _OUTPUTS[name]
    package.user_defined_metadata[_RECIPE] = json.dumps(recipe.to_dict())


def _int8(half: Any) -> Any:
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    return cto.linear_quantize_weights(half, cto.OptimizationConfig(global_config=config))


def _palette(bits: int, mode: str) -> Callable[[Any], Any]:
    def compress(half: Any) -> Any:
        config = cto.OpPalettizerConfig(mode=mode, nbits=bits, granularity="per_grouped_channel", group_size=_GROUP)
        return cto.palettize_weights(half, cto.OptimizationConfig(global_config=config))

    return compress


_COMPRESS: Final[dict[str, Callable[[Any], Any]]] = {
    "fp16": lambda half: half,
    "int8-weights": _int8,
    # k-means takes a minute for `pocket`. Even steps take seconds, but are worse than int8 with as many values.
    "palette8": _palette(8, "kmeans"),
    "palette6": _palette(6, "kmeans"),
}


def _zip(package: Any, folder: Path) -> bytes:
    """The package as bytes, which don't depend on the time."""
    saved = folder / "tower.mlpackage"
    package.save(str(saved))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in saved.rglob("*") if path.is_file()):
            archive.writestr(zipfile.ZipInfo(path.relative_to(saved).as_posix()), path.read_bytes())
    return stream.getvalue()


@contextmanager
def unpacked(data: bytes) -> Iterator[Path]:
    """The folder of a zipped package, for as long as the context lasts.

    Raises:
        EngineError: not a zipped package.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "tower.mlpackage"
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(package)
        except (zipfile.BadZipFile, OSError) as error:
            raise EngineError(f"not a zipped Core ML package ({one_line(error)})") from None
        yield package


class _Tower:
    """A package, run on pictures or texts one at a time.

    Attributes:
        dtype: of the inputs: int32 ids, or float32 pixels, which are turned into the picture that the program takes.
        shape: of the program's input.
    """

    def __init__(self, data: bytes) -> None:
        with unpacked(data) as package:
            try:
                with quiet():
                    model = ct.models.MLModel(str(package), skip_model_load=sys.platform != "darwin")
                self.program = Program(package)
            except ExportError:
                raise
            except Exception as error:  # coremltools raises anything
                raise EngineError(f"the Core ML package can't be loaded: {one_line(error, 300)}") from None
        stored = model.user_defined_metadata.get(_RECIPE)
        self.recipe = PixelRecipe.from_dict(json.loads(stored))
        self.model = model if sys.platform == "darwin" else None
        ((self.input, self.shape),) = self.program.inputs.items()
        self.dtype: np.dtype[Any] = np.dtype(np.int32 if self.input == INPUTS["text"] else np.float32)

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        return self._run(inputs, [name for name in self.program.outputs if name.endswith("_embeds")])[0]

    def with_features(self, inputs: NDArray[Any], output: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if output not in self.program.outputs:
            raise EngineError(f"the Core ML package has no output {output!r}, only {', '.join(self.program.outputs)}")
        vectors, features = self._run(inputs, [IMAGE_OUTPUTS[0], output])
        return vectors, features

    def _run(self, inputs: NDArray[Any], names: list[str]) -> list[NDArray[np.float32]]:
        rows = [self._run_one(self._as_taken(given[None])) for given in inputs]
        return [np.concatenate([row[name] for row in rows]).astype(np.float32) for name in names]

    def _as_taken(self, given: NDArray[Any]) -> NDArray[Any]:
        """An input as the program takes it: pixels of 0 … 255, or ids padded to its length."""
        if self.input == INPUTS["text"]:
            return np.pad(given, ((0, 0), (0, self.shape[1] - given.shape[1]))).astype(np.int32)
        mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (self.recipe.mean, self.recipe.std))
        levels: NDArray[np.float32] = np.clip(np.rint((given * std + mean) * 255), 0, 255)
        return levels

    def _run_one(self, taken: NDArray[Any]) -> dict[str, NDArray[Any]]:
        if self.model is None:
            outputs = self.program({self.input: torch.from_numpy(taken)})
            return {name: value.numpy() for name, value in outputs.items()}
        from PIL import Image

        given: Any = taken
        if self.input == INPUTS["image"]:
            given = Image.fromarray(taken[0].transpose(1, 2, 0).astype(np.uint8))
        found: dict[str, NDArray[Any]] = self.model.predict({self.input: given})
        return found

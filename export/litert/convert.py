"""Both towers as LiteRT (.tflite) files, made by litert-torch and quantized by ai-edge-quantizer.

A batch of one; pixels (1, s, s, 3) in the order of Android's bitmaps, token ids int32 (1, L). Tested with
litert-torch 0.10.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.formats import ExportError, Side
from export.litert.tflite import check_operators, gpu_fallbacks, layers, pixel_recipe, with_recipe
from export.measure.sensitivity import BUDGET, Trial, leave_exact
from export.onnx.convert import IMAGE_OUTPUTS, pools_by_mean
from export.quiet import converting, quiet
from mobileclip.preprocess import PixelRecipe
from mobileclip.runtimes import Tower
from mobileclip.runtimes import litert as runtime
from mobileclip.towers import CLIP
from mobileclip.towers.image import ClassVectors

with quiet():
    import litert_torch
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.recipe import AlgorithmName

Operation: Final = qtyping.TFLOperationName
Calibration = Sequence[NDArray[Any]]

_INPUTS: Final[dict[Side, str]] = {"image": "pixels", "text": "tokens"}
_SIGNATURE: Final = "serving_default"


# The next two are modules because the quantizer identifies operations by the module they came from.


class _Unit(nn.Module):
    """Vectors to unit length, with multiplications and one reciprocal square root."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors * torch.rsqrt((vectors * vectors).sum(dim=-1, keepdim=True))


class _Scale(nn.Module):
    """Bytes (1, s, s, 3) to normalized pixels."""

    def __init__(self, recipe: PixelRecipe) -> None:
        super().__init__()
        std = torch.tensor(recipe.std)
        self.scale = nn.Buffer(1 / (255 * std))
        self.shift = nn.Buffer(-torch.tensor(recipe.mean) / std)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32) * self.scale + self.shift


class _Image(nn.Module):
    """Pixels (1, s, s, 3) to unit vectors and, if the tower pools by mean, to the map (1, h, w, c) that it pools."""

    def __init__(self, model: CLIP, scales_inside: bool) -> None:
        super().__init__()
        self.scale = _Scale(model.config.pixels) if scales_inside else nn.Identity()
        self.image, self.unit, self.local = model.image, _Unit(), pools_by_mean(model)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        upright = self.scale(pixels).permute(0, 3, 1, 2)
        if not self.local:
            return {IMAGE_OUTPUTS[0]: self.unit(self.image(upright))}
        vectors, features = self.image.with_map(upright)
        return {IMAGE_OUTPUTS[0]: self.unit(vectors), IMAGE_OUTPUTS[1]: features.permute(0, 2, 3, 1)}


class _Text(nn.Module):
    """Token ids (1, L) to unit vectors."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.text, self.unit = model.text, _Unit()

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"text_embeds": self.unit(self.text(tokens))}


@dataclass(frozen=True)
class LiteRT:
    """The `export.formats.Format` of LiteRT.

    Precisions: `fp16` and `int8-weights` are stored in fewer bits and become float32 when the file is loaded.
    `int8-dynamic` multiplies int8 weights with activations that are rounded in each run. `int8` is the same for text;
    images are int8 throughout, with ranges measured on calibration photos. With calibration inputs, `int8-weights`
    keeps layers exact that would change the vectors too much, see `export.measure.sensitivity`; `int8` would have to
    keep almost all.

    Attributes:
        scales_inside: whether image towers take bytes, uint8, and hold the pixel recipe's scale and shift.
    """

    scales_inside: bool = False
    engine: str = "litert"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8-weights", "int8-dynamic", "int8")
    interpreted: bool = False

    def convert(self, model: CLIP, side: Side) -> bytes:
        """Convert one tower in float32; see `export.formats.Format`."""
        if side == "image":
            size = model.config.pixels.size
            example = torch.zeros(1, size, size, 3, dtype=torch.uint8 if self.scales_inside else torch.float32)
            module: nn.Module = _Image(model, self.scales_inside)
        else:
            example = torch.zeros(1, model.config.text.context_length, dtype=torch.int32)
            module = _Text(model)
        with converting(f"the {side} tower can't be converted to LiteRT"):
            data = bytes(litert_torch.convert(module.eval(), sample_kwargs={_INPUTS[side]: example}).model_content())
        check_operators(data)
        if side == "image" and self.scales_inside:
            return with_recipe(data, model.config.pixels)
        return data

    def quantize(self, data: bytes, side: Side, precision: str, calibration: Calibration) -> bytes:
        """Make a converted tower smaller; see `export.formats.Format`. Only `int8` images need calibration photos."""
        if precision not in self.precisions:
            raise ExportError(f"LiteRT has no precision {precision!r}, only {', '.join(self.precisions)}")
        if precision == "fp32":
            return data
        static = (side, precision) == ("image", "int8")
        if static and not calibration:
            raise ExportError(
                "int8 image towers for LiteRT need calibration photos: give --photos, --captions or --data"
            )
        with converting(f"the {side} tower can't be quantized to {precision} for LiteRT"):
            layered = _LayerQuantizer(data, _static if static else _RECIPES[precision])
            if static:
                layered.measure_ranges([{_INPUTS[side]: _as_taken(data, given)} for given in calibration])
            exact: frozenset[str] = frozenset()
            if calibration and precision == "int8-weights":
                trial = Trial(data, calibration, lambda small: self.open(small, None))

                def damage(coarse: Collection[str]) -> float:
                    return trial.damage(layered.build(layered.layers.keys() - set(coarse)))

                exact = leave_exact(list(layered.layers), layered.layers, damage, BUDGET)
            small = layered.build(exact)
        check_operators(small)
        return small

    def files(self, data: bytes, side: Side, precision: str) -> dict[str, bytes]:
        """Name the file; see `export.formats.Format`."""
        bytes_in = "-uint8" if self.scales_inside and side == "image" else ""
        return {f"{side}{bytes_in}-{precision}.tflite": data}

    def cpu_operators(self, data: bytes) -> Counter[str]:
        """What the GPU delegate leaves to the CPU; see `gpu_fallbacks`."""
        return gpu_fallbacks(data)

    def open(self, data: bytes, threads: int | None) -> Tower:
        """Load a tower that takes float32 pixels even if the file takes bytes; see `export.formats.Format`."""
        tower = runtime.Tower(data, threads=threads)
        recipe = pixel_recipe(data)
        return tower if recipe is None else _FromFloats(tower, recipe)


LITERT: Final = LiteRT()
LITERT_UINT8: Final = LiteRT(scales_inside=True)


class _FromFloats:
    """A tower that takes bytes, run with the normalized pixels that other towers take."""

    def __init__(self, tower: runtime.Tower, recipe: PixelRecipe) -> None:
        self.tower, self.recipe, self.shape = tower, recipe, tower.shape
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        return self.tower(self.recipe.denormalize(inputs))

    def with_features(self, inputs: NDArray[Any], output: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.tower.with_features(self.recipe.denormalize(inputs), output)


def _as_taken(data: bytes, inputs: NDArray[Any]) -> NDArray[Any]:
    """One calibration input as the file takes it."""
    recipe = pixel_recipe(data)
    taken = inputs if recipe is None else recipe.denormalize(inputs)
    return np.ascontiguousarray(taken.transpose(0, 2, 3, 1)) if taken.ndim == 4 else taken


class _LayerQuantizer:
    """Quantizes any selection of a tower's layers.

    Attributes:
        layers: names in the tower's order → number of weights, which is what keeping the layer exact costs.
    """

    def __init__(self, data: bytes, recipe: Callable[[quantizer.Quantizer], None]) -> None:
        self.data, self.recipe, self.layers = data, recipe, layers(data)
        self.ranges: Any = None

    def measure_ranges(self, inputs: list[dict[str, NDArray[Any]]]) -> None:
        """Measure the ranges of activations."""
        work = quantizer.Quantizer(bytearray(self.data))
        self.recipe(work)
        self.ranges = work.calibrate({_SIGNATURE: inputs}, num_threads=1)

    def build(self, exact: Collection[str]) -> bytes:
        """The file with all layers quantized except those in `exact`."""
        work = quantizer.Quantizer(bytearray(self.data))
        self.recipe(work)
        for name in (name for name in self.layers if name in exact):
            # The quantizer searches names for a pattern, and this name may be the beginning of another.
            work.update_quantization_recipe(
                rf"{re.escape(name)}(?!\d)", Operation.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
            )
        small = work.quantize(self.ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
        assert small is not None
        return bytes(small)


def _weights(algorithm: AlgorithmName, bits: int) -> Callable[[quantizer.Quantizer], None]:
    def add(work: quantizer.Quantizer) -> None:
        work.add_weight_only_config(".*", Operation.ALL_SUPPORTED, bits, algorithm_key=algorithm)

    return add


def _dynamic(work: quantizer.Quantizer) -> None:
    work.add_dynamic_config(".*", Operation.ALL_SUPPORTED, 8)


def _static(work: quantizer.Quantizer) -> None:
    """Int8 weights and activations, except at both ends.

    255 levels can't hold the range of a vector's squared length, nor of its root. Pixels are scaled in float32, which
    is faster here: there is no int8 kernel to multiply a picture by one value per channel. A head of class vectors has
    both a softmax and a length, so only its weights are int8.
    """
    work.add_static_config(".*", Operation.ALL_SUPPORTED, 8, 8)
    for operation in (Operation.INPUT, Operation.OUTPUT):
        work.update_quantization_recipe(".*", operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for scope in (_Scale.__name__, _Unit.__name__, f"{IMAGE_OUTPUTS[0]}_output", ClassVectors.__name__):
        work.update_quantization_recipe(scope, Operation.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE)
    algorithm = AlgorithmName.MIN_MAX_UNIFORM_QUANT
    work.add_weight_only_config(ClassVectors.__name__, Operation.FULLY_CONNECTED, 8, algorithm_key=algorithm)


_RECIPES: Final = {
    "fp16": _weights(AlgorithmName.FLOAT_CASTING, 16),
    "int8-weights": _weights(AlgorithmName.MIN_MAX_UNIFORM_QUANT, 8),
    "int8-dynamic": _dynamic,
    "int8": _dynamic,
}

"""Both towers as ONNX files: converted in float32, then stored or computed in fewer bits."""

from __future__ import annotations

import io
import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from export.formats import ExportError, Side
from export.onnx.pixels import take_bytes, with_recipe
from export.onnx.quantize import compute_half, quantize_image, quantize_text, round_weights
from export.onnx.weights import MIN_SHRUNK, finished, shrink_weights
from mobileclip.errors import one_line
from mobileclip.runtimes import Tower, load_tower
from mobileclip.towers import CLIP

OPSET = 18
"""The first operator set with all that the towers need, and old enough for engines on phones."""
IMAGE_OUTPUTS = ("image_embeds", "features")
"""The vectors, under the name that ready-made towers use; and the last feature map before pooling."""

FITTED_COSINE = 0.25
"""Least cosine between a photo's vector and what a fitted head makes of its feature map. Photos are above 0.9, drawn
pictures may be lower; a map that an accelerator has spoiled is near 0."""


class _Image(nn.Module):
    """Normalized pixels to unit vectors."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)


class _LocalImage(nn.Module):
    """Normalized pixels to unit vectors, and to the feature map whose mean they are a projection of."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.image = model.image

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        vectors, features = self.image.with_map(pixels)
        return F.normalize(vectors, dim=-1), features


class _Text(nn.Module):
    """Token ids to unit vectors."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


def pools_by_mean(model: CLIP) -> bool:
    """Whether the image tower's vector is a projection of the plain mean of its last feature map, or close to one.

    True for convolutional trunks with average pooling (EfficientNet, and FastViT, which MobileCLIP's S towers use);
    false for those that pool by a class token, by attention, or through further layers. The tower is run to find out,
    because timm's names for pooling don't mention layers in between.
    """
    if model.image.local_projection() is None:
        return False
    size = model.config.pixels.size
    trunk = model.image.trunk
    with torch.inference_mode():
        features = trunk.forward_features(torch.rand(2, 3, size, size))
        if features.ndim != 4 or features.shape[1] != model.image.projection.in_features:
            return False
        mean, pooled = features.mean(dim=(2, 3)), trunk.forward_head(features)
        return mean.shape == pooled.shape and torch.allclose(mean, pooled, rtol=1e-4, atol=1e-5)


def export_image(model: CLIP) -> bytes:
    """Convert the image tower: `pixels` (n, 3, s, s) float32 to `image_embeds` (n, d) float32 of unit length.

    If it `pools_by_mean`, a second output `features` (n, c, h, w) float32 is the map that was pooled. The tower
    computes it anyway, so it costs nothing.
    """
    size = model.config.pixels.size
    example = torch.rand(2, 3, size, size)
    if pools_by_mean(model):
        return _convert(_LocalImage(model), example, "pixels", {0: "n"}, IMAGE_OUTPUTS)
    return _convert(_Image(model), example, "pixels", {0: "n"}, IMAGE_OUTPUTS[:1])


def export_head(model: CLIP) -> bytes:
    """The projection after the pooling as an .npz: `weight` (d, c) and, if there is one, `bias` (d,).

    The weight is float16, rounded as in the tower itself, so both project alike. If the trunk has a head with more than
    a projection, this is the projection fitted to it, and `cosine` says how close to it vectors are at least.
    """
    local = model.image.local_projection()
    assert local is not None, "only for towers that pool by mean"
    weight = local[0].detach().numpy()
    arrays: dict[str, Any] = {"weight": weight.astype(np.float16 if weight.size >= MIN_SHRUNK else np.float32)}
    if local[1] is not None:
        arrays["bias"] = local[1].detach().numpy()
    if model.image.places is not None:
        arrays["cosine"] = np.float32(FITTED_COSINE)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def export_text(model: CLIP) -> bytes:
    """Convert the text tower: `tokens` (n, length) int32 to `text_embeds` (n, d) float32 of unit length.

    A causal tower takes any length up to the context length, other towers only that length.
    """
    text = model.config.text
    length = text.context_length
    example = torch.zeros(2, length // 2 if text.causal else length, dtype=torch.int32)
    example[:, 0], example[:, 1] = text.vocab_size - 2, text.vocab_size - 1
    return _convert(
        _Text(model), example, "tokens", {0: "n", 1: "length"} if text.causal else {0: "n"}, ("text_embeds",)
    )


def _convert(module: nn.Module, example: Tensor, name: str, dynamic: dict[int, str], outputs: tuple[str, ...]) -> bytes:
    if module.training or any(part.training for part in module.modules()):
        module = module.eval()
    limits = {"n": (1, 4096), "length": (3, 4096)}
    if "length" in dynamic.values() and isinstance(module, _Text):
        limits["length"] = (3, module.model.config.text.context_length)
    shapes = {
        axis: torch.export.Dim(label, min=limits[label][0], max=limits[label][1]) for axis, label in dynamic.items()
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[name],
                output_names=list(outputs),
                dynamic_shapes=(shapes,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"the {name} tower can't be converted: {one_line(error, 300)}") from error
    if program is None:
        raise ExportError(f"the {name} tower can't be converted")
    return finished(program.model_proto)


@dataclass(frozen=True)
class OnnxFormat:
    """Files for ONNX Runtime and every other engine that reads ONNX; see `export.formats.Format`.

    - `fp32`: as converted.
    - `fp16-weights`: weights stored in float16 and the token table in int8; arithmetic in float32.
    - `fp16`: stored and computed in float16, except layer norms.
    - `int8-weights`: weights stored in int8, except those that change the vectors too much; arithmetic in float32.
    - `int8`: computed in int8, image towers with ranges measured on photos (static), text towers with ranges measured
      as they run (dynamic).

    Attributes:
        scales_inside: whether image towers take uint8 (n, s, s, 3) and do the pixel recipe's arithmetic themselves.
    """

    scales_inside: bool = False
    engine: str = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16-weights", "fp16", "int8-weights", "int8")
    interpreted: bool = False

    def convert(self, model: CLIP, side: Side) -> bytes:
        """Convert a tower; see `export_image` and `export_text`. Only `quantize` makes it take bytes."""
        if side == "text":
            return export_text(model)
        return with_recipe(export_image(model), model.config.pixels) if self.scales_inside else export_image(model)

    def quantize(self, data: bytes, side: Side, precision: str, calibration: Sequence[NDArray[Any]]) -> bytes:
        """Make a converted tower smaller."""
        if precision not in self.precisions:
            raise ExportError(f"onnx has no precision {precision!r}: choose from {', '.join(self.precisions)}")
        small = self._quantize(data, side, precision, calibration)
        return take_bytes(small) if side == "image" and self.scales_inside else small

    def _quantize(self, data: bytes, side: Side, precision: str, calibration: Sequence[NDArray[Any]]) -> bytes:
        if precision == "fp32":
            return data
        if precision == "fp16-weights":
            return shrink_weights(onnx.load_from_string(data))
        if precision == "fp16":
            return compute_half(data)
        if precision == "int8-weights":
            return round_weights(data, calibration)
        return quantize_image(data, calibration) if side == "image" else quantize_text(data)

    def files(self, data: bytes, side: Side, precision: str) -> dict[str, bytes]:
        """One .onnx file."""
        return {f"{side}-{precision}.onnx": data}

    def cpu_operators(self, data: bytes) -> Counter[str]:
        """Nothing is known: ONNX Runtime has many accelerators."""
        return Counter()

    def open(self, data: bytes, threads: int | None) -> Tower:
        """Load the tower in ONNX Runtime, on the CPU."""
        return load_tower(self.engine, data, threads=threads)


ONNX = OnnxFormat()
ONNX_UINT8 = OnnxFormat(scales_inside=True)

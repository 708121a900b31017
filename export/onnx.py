"""Both towers as ONNX files with half-precision weights and single-precision arithmetic."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mobileclip.errors import PocketclipError
from mobileclip.towers import CLIP

OPSET = 18
MIN_HALVED = 1024
"""Weights of fewer elements stay float32: they are biases and norms, and cost nothing."""


class ExportError(PocketclipError):
    """A tower that cannot be converted."""


class _Image(nn.Module):
    """Normalised pixels to unit vectors."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)


class _Text(nn.Module):
    """Token ids to unit vectors."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


def export_image(model: CLIP) -> bytes:
    """Convert the image tower: `pixels` (n, 3, s, s) float32 to `vectors` (n, d) float32 of unit length."""
    size = model.config.pixels.size
    example = torch.rand(2, 3, size, size)
    return _convert(_Image(model), example, "pixels", {0: "n"})


def export_text(model: CLIP) -> bytes:
    """Convert the text tower: `tokens` (n, length) int32 to `vectors` (n, d) float32 of unit length.

    A causal tower takes any length up to the context length, the others just that one.
    """
    text = model.config.text
    length = text.context_length
    example = torch.zeros(2, length // 2 if text.causal else length, dtype=torch.int32)
    example[:, 0], example[:, 1] = text.vocab_size - 2, text.vocab_size - 1
    return _convert(_Text(model), example, "tokens", {0: "n", 1: "length"} if text.causal else {0: "n"})


def _convert(module: nn.Module, example: Tensor, name: str, dynamic: dict[int, str]) -> bytes:
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
                output_names=["vectors"],
                dynamic_shapes=(shapes,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"the {name} tower cannot be converted: {' '.join(str(error).split())[:300]}") from error
    if program is None:
        raise ExportError(f"the {name} tower cannot be converted")
    return halve_weights(program.model_proto)


def halve_weights(model: onnx.ModelProto) -> bytes:
    """Store an ONNX model's large float32 weights as float16, each behind a Cast back to float32.

    The engine folds the casts once when it loads the file: half the bytes, and arithmetic in float32 as before, on
    every machine. Only the rounding of the weights is lost.
    """
    kept, casts = [], []
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or array.size < MIN_HALVED:
            kept.append(weight)
            continue
        if np.abs(array).max() > np.finfo(np.float16).max:
            raise ExportError(f"weight {weight.name} does not fit float16")
        stored = numpy_helper.from_array(array.astype(np.float16), f"{weight.name}_half")
        kept.append(stored)
        casts.append(helper.make_node("Cast", [stored.name], [weight.name], to=TensorProto.FLOAT))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    # Names of source lines help nobody here and would be a fifth of the file.
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()

"""Both towers as ONNX files: small weights (float16, the token table int8), single-precision arithmetic."""

from __future__ import annotations

import io
import logging
import warnings

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mobileclip.errors import PocketclipError
from mobileclip.towers import CLIP

OPSET = 18
MIN_SHRUNK = 1024
"""Weights of fewer elements stay float32: they are biases and norms, and cost nothing."""


class ExportError(PocketclipError):
    """A tower that cannot be converted."""


IMAGE_OUTPUTS = ("image_embeds", "features")
"""Vectors by the name that ready towers use, and that readers of one output look for among several; and the last
feature map before pooling."""


class _Image(nn.Module):
    """Normalised pixels to unit vectors."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels)


class _LocalImage(nn.Module):
    """Normalised pixels to unit vectors, and to the feature map whose mean they are a projection of."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.image = model.image

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.image.trunk.forward_features(pixels)
        vectors = self.image.projection(self.image.trunk.forward_head(features))
        return F.normalize(vectors, dim=-1), features


class _Text(nn.Module):
    """Token ids to unit vectors."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


def pools_by_mean(model: CLIP) -> bool:
    """Whether the image tower's vector is a projection of the plain mean of its last feature map.

    True for convolutional trunks with average pooling (EfficientNet, FastViT and so MobileCLIP's S towers); false for
    those that pool by a class token, by attention, or through further layers. Found out by running the tower, because
    timm's names for pooling do not tell the layers between.
    """
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

    Where it `pools_by_mean`, a second output `features` (n, c, h, w) float32 is the map that was pooled: computed in
    any case, so that it costs nothing.
    """
    size = model.config.pixels.size
    example = torch.rand(2, 3, size, size)
    if pools_by_mean(model):
        return _convert(_LocalImage(model), example, "pixels", {0: "n"}, IMAGE_OUTPUTS)
    return _convert(_Image(model), example, "pixels", {0: "n"}, IMAGE_OUTPUTS[:1])


def export_head(model: CLIP) -> bytes:
    """The projection behind the pooling as an .npz: `weight` (d, c) and, where there is one, `bias` (d,).

    The weight is float16, rounded as in the tower itself, so that both project alike.
    """
    projection = model.image.projection
    weight = projection.weight.detach().numpy()
    stored = weight.astype(np.float16 if weight.size >= MIN_SHRUNK else np.float32)
    stream = io.BytesIO()
    if not model.config.image.bias:
        np.savez(stream, weight=stored)
    else:
        np.savez(stream, weight=stored, bias=projection.bias.detach().numpy())
    return stream.getvalue()


def export_text(model: CLIP) -> bytes:
    """Convert the text tower: `tokens` (n, length) int32 to `text_embeds` (n, d) float32 of unit length.

    A causal tower takes any length up to the context length, the others just that one.
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
        raise ExportError(f"the {name} tower cannot be converted: {' '.join(str(error).split())[:300]}") from error
    if program is None:
        raise ExportError(f"the {name} tower cannot be converted")
    return shrink_weights(program.model_proto)


def shrink_weights(model: onnx.ModelProto) -> bytes:
    """Store an ONNX model's large float32 weights small, each behind the few nodes that make it float32 again.

    Tables that rows are looked up in (token embeddings) become int8 with a scale a row, all others float16. The engine
    folds those nodes once when it loads the file: arithmetic is in float32 as before, on every machine, and only the
    rounding of the weights is lost.
    """
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    tables -= {name for node in model.graph.node for name in node.input if node.op_type != "Gather"}
    kept, widened = [], []
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or array.size < MIN_SHRUNK:
            kept.append(weight)
            continue
        small, nodes = _table(weight.name, array) if weight.name in tables else _half(weight.name, array)
        kept += small
        widened += nodes
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    # Names of source lines help nobody here and would be a fifth of the file.
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


Stored = tuple[list[TensorProto], list[NodeProto]]
"""Weights as they lie in the file, and the nodes that make one float32 tensor of them."""


def _half(name: str, array: NDArray[np.float32]) -> Stored:
    if np.abs(array).max() > np.finfo(np.float16).max:
        raise ExportError(f"weight {name} does not fit float16")
    stored = numpy_helper.from_array(array.astype(np.float16), f"{name}_half")
    return [stored], [helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)]


def _table(name: str, array: NDArray[np.float32]) -> Stored:
    """Round each row (…) of (rows, …) to 255 levels of its own largest magnitude."""
    largest = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    levels = numpy_helper.from_array(np.rint(array / scale).astype(np.int8), f"{name}_int8")
    scales = numpy_helper.from_array(scale, f"{name}_scale")
    wide = f"{name}_levels"
    return [levels, scales], [
        helper.make_node("Cast", [levels.name], [wide], to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, scales.name], [name]),
    ]

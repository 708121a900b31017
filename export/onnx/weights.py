"""How an ONNX file stores its weights: in few bits, each with the nodes that turn it back into float32.

The engine folds those nodes once when it loads the file. So arithmetic stays float32 on every machine, and rounding the
weights is the only loss. `DequantizeLinear` would do the same for int8 in one node, but ONNX Runtime doesn't fold it
and would compute the weights again in every run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.formats import ExportError
from mobileclip.errors import one_line

MIN_SHRUNK = 1024
"""Weights with fewer elements stay float32: they are biases and norms, and take little space."""
LEVELS: Final = 127

Stored = tuple[list[TensorProto], list[NodeProto]]
"""Weights as the file stores them, and the nodes that turn them into one float32 tensor."""


def shrink_weights(model: onnx.ModelProto, int8: Collection[str] = ()) -> bytes:
    """Store an ONNX model's large float32 weights in fewer bits.

    Lookup tables (token embeddings) become int8 with a scale per row. The weights named in `int8` become int8 with a
    scale per output channel. All others become float16. The model itself is changed.

    Raises:
        ExportError: a weight doesn't fit float16, or the model isn't valid afterwards.
    """
    axes = channel_axes(model)
    tables = {name for name, kind in axes.items() if kind[0] == "Gather"}
    kept, widened = [], []
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or array.size < MIN_SHRUNK:
            kept.append(weight)
            continue
        if weight.name in tables or weight.name in int8:
            small, nodes = _levels(weight.name, array, axes[weight.name][1])
        else:
            small, nodes = _half(weight.name, array)
        kept += small
        widened += nodes
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*widened, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return finished(model)


def finished(model: onnx.ModelProto) -> bytes:
    """Check a model including its shapes, and return its file without the exporter's notes.

    Raises:
        ExportError: the checker or shape inference refuses it.
    """
    # Names of source lines help nobody here and would take a fifth of the file.
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    _sort(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX graph isn't valid: {one_line(error, 300)}") from error
    data: bytes = model.SerializeToString()
    return data


def _sort(model: onnx.ModelProto) -> None:
    """Sort nodes so that each value is computed before it is read, which the libraries' tools don't ensure."""
    known = {"", *(value.name for value in model.graph.input), *(weight.name for weight in model.graph.initializer)}
    waiting: list[NodeProto] = list(model.graph.node)
    ordered: list[NodeProto] = []
    while waiting:
        later = []
        for node in waiting:
            if known.issuperset(node.input):
                known.update(node.output)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ExportError(f"the ONNX graph isn't valid: an input of {later[0].name} is never computed")
        waiting = later
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def channel_axes(model: onnx.ModelProto) -> dict[str, tuple[str, int]]:
    """Name of each float32 weight of layers and tables → the operator that reads it, and its axis of output channels.

    Weights that several kinds of operators read are left out, and so are those with fewer than `MIN_SHRUNK` elements.
    """
    large = {
        weight.name: len(weight.dims)
        for weight in model.graph.initializer
        if weight.data_type == TensorProto.FLOAT and int(np.prod(weight.dims)) >= MIN_SHRUNK
    }
    found: dict[str, set[tuple[str, int]]] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name in large:
                found.setdefault(name, set()).add((node.op_type, _axis(node, position, large[name])))
    return {name: next(iter(kinds)) for name, kinds in found.items() if len(kinds) == 1 and next(iter(kinds))[1] >= 0}


def _axis(node: NodeProto, position: int, rank: int) -> int:
    """The axis of output channels of an operator's weight; −1 for an input that isn't a weight."""
    if node.op_type == "Gather":
        return 0 if position == 0 else -1
    if position != 1:
        return -1
    if node.op_type == "Conv":
        return 0
    if node.op_type == "MatMul":
        return rank - 1
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return 0 if transposed else 1
    return -1


def _half(name: str, array: NDArray[np.float32]) -> Stored:
    if np.abs(array).max() > np.finfo(np.float16).max:
        raise ExportError(f"weight {name} doesn't fit float16")
    stored = numpy_helper.from_array(array.astype(np.float16), f"{name}_half")
    return [stored], [helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)]


def _levels(name: str, array: NDArray[np.float32], axis: int) -> Stored:
    levels, scale = rounded(array, axis)
    small = [numpy_helper.from_array(levels, f"{name}_int8"), numpy_helper.from_array(scale, f"{name}_scale")]
    wide = f"{name}_levels"
    return small, [
        helper.make_node("Cast", [small[0].name], [wide], to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, small[1].name], [name]),
    ]


def rounded(array: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each channel to 255 levels, scaled to its own largest magnitude.

    Returns:
        int8 of the same shape, and float32 scales that broadcast over it.
    """
    others = tuple(i for i in range(array.ndim) if i != axis)
    largest = np.abs(array).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
    return np.rint(array / scale).astype(np.int8), scale

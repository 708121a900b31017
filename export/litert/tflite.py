"""What a .tflite file holds: its operators, and the pixel recipe of a tower that scales pixels inside."""

from __future__ import annotations

import json
from collections import Counter
from typing import Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from export.formats import ExportError
from mobileclip.preprocess import PixelRecipe

_RECIPE: Final = b"pocketclip.pixels"


def operators(data: bytes) -> Counter[str]:
    """How often a .tflite file uses each operator; custom operators are named "CUSTOM …"."""
    return Counter(name for name, _ in _operations(data))


def check_operators(data: bytes) -> None:
    """Refuse a file with operators outside LiteRT's built-in set: an app would have to bring their kernels.

    Raises:
        ExportError: there are such operators; it names them.
    """
    foreign = sorted(name for name in operators(data) if name.startswith(("CUSTOM ", "STABLEHLO_")))
    if foreign:
        raise ExportError(f"the LiteRT file needs operators outside the built-in set: {', '.join(foreign)}")


_WEIGHTED: Final = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "EMBEDDING_LOOKUP")


def layers(data: bytes) -> dict[str, int]:
    """Number of weights of each operation that has any, by the name of its output and in the tower's order."""
    names = _names(schema.BuiltinOperator)
    model = schema.Model.GetRootAs(data, 0)
    found = {}
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for number in range(graph.OperatorsLength()):
            operator = graph.Operators(number)
            code = model.OperatorCodes(operator.OpcodeIndex())
            if names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] in _WEIGHTED:
                weights = graph.Tensors(operator.Inputs(1)).ShapeAsNumpy()
                found[graph.Tensors(operator.Outputs(0)).Name().decode()] = int(np.prod(weights))
    return found


# fmt: off
_GPU: Final = frozenset((
    "ABS", "ADD", "ADD_N", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST", "CONCATENATION", "CONV_2D", "COS", "CUMSUM",
    "DEPTHWISE_CONV_2D", "DEQUANTIZE", "DIV", "ELU", "EMBEDDING_LOOKUP", "EQUAL", "EXP", "FULLY_CONNECTED", "GATHER",
    "GELU", "GREATER", "HARD_SWISH", "LESS", "LOG", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL",
    "NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2", "POW", "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6",
    "RESHAPE", "RESIZE_BILINEAR", "RSQRT", "SELECT", "SELECT_V2", "SIN", "SLICE", "SOFTMAX", "SPLIT", "SPLIT_V", "SQRT",
    "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TRANSPOSE", "TRANSPOSE_CONV",
))
# fmt: on
"""The operators that the GPU delegate takes, of those that occur in towers: `CheckGpuDelegateCompatibility` in LiteRT's
tflite/tools/versioning/gpu_compatibility.cc (google-ai-edge/LiteRT, 007226f), which also checks shapes."""
_GPU_CASTS: Final = {("BOOL", "FLOAT32"), ("FLOAT32", "BOOL"), ("INT32", "FLOAT32"), ("FLOAT32", "INT32")}


def gpu_fallbacks(data: bytes) -> Counter[str]:
    """Operators that the GPU delegate would leave to the CPU, by the table of its own check; casts with their types."""
    found: Counter[str] = Counter()
    for name, types in _operations(data):
        if name == "CAST" and types not in _GPU_CASTS:
            found[f"CAST {types[0]} → {types[1]}"] += 1
        elif name not in _GPU:
            found[name] += 1
    return found


def _operations(data: bytes) -> list[tuple[str, tuple[str, str]]]:
    """Each operation's name, and the types of its first input and output."""
    names = _names(schema.BuiltinOperator)
    types = _names(schema.TensorType)
    model = schema.Model.GetRootAs(data, 0)
    codes = []
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        # Files from before there were 128 operators have the number only in the older field.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        custom = code.CustomCode()
        codes.append(f"CUSTOM {custom.decode()}" if names[number] == "CUSTOM" and custom else names[number])
    found = []
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for number in range(graph.OperatorsLength()):
            operator = graph.Operators(number)
            ends = (operator.Inputs(0), operator.Outputs(0))
            first, last = (types[graph.Tensors(end).Type()] if end >= 0 else "" for end in ends)
            found.append((codes[operator.OpcodeIndex()], (first, last)))
    return found


def _names(enum: type) -> dict[int, str]:
    return {number: name for name, number in vars(enum).items() if isinstance(number, int)}


def with_recipe(data: bytes, recipe: PixelRecipe) -> bytes:
    """The file with the pixel recipe in its metadata, for readers who have only the file."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(recipe.to_dict()).encode(), np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = _RECIPE, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def pixel_recipe(data: bytes) -> PixelRecipe | None:
    """The recipe whose scale and shift are inside a tower that takes bytes; None if it takes normalized pixels."""
    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == _RECIPE:
            return PixelRecipe.from_dict(json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()))
    return None

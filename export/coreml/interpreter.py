"""Runs a Core ML package operation by operation with PyTorch, because Core ML itself runs only on macOS.

Without it, a package made on Linux would ship unchecked: coremltools writes packages anywhere, but can't run them. The
interpreter reads the finished package back, so graph and weights, compressed or not, are those that a phone gets. It
rounds values of type fp16 after every operation and sums within an operation in float32. It can't show what Apple's
kernels do differently, and says nothing about speed.

What it costs: about 320 lines that follow coremltools' definitions of 53 operations; an operation missing here is an
error. It takes about 2.5 times as long as eager PyTorch (`pocket`, fp16, one x86-64 core: 0.22 s for a photo, 0.03 s
for a text), so exports measure such towers on fewer photos.

Operations and their parameters: coremltools' `mil.ops.defs`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export.formats import ExportError
from export.quiet import quiet

with quiet():
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load as load_program

Arguments = dict[str, Any]
"""Parameters of one operation: float32 and integer tensors, numbers, truth values, texts, or lists of tensors."""


class Program:
    """The function `main` of an mlprogram.

    Attributes:
        inputs: name → shape of each input.
        outputs: names of the outputs.
        operations: the type of each operation in order, without constants.
    """

    def __init__(self, package: Path) -> None:
        """Read an .mlpackage.

        Raises:
            ExportError: the interpreter doesn't know an operation.
        """
        with quiet():
            model = coremltools.models.MLModel(str(package), skip_model_load=True)
            spec = model.get_spec()
            program = load_program(spec, spec.specificationVersion, file_weights_dir=model.weights_dir)
        main = program.functions["main"]
        self.inputs = {name: tuple(var.shape) for name, var in main.inputs.items()}
        self.outputs = [var.name for var in main.outputs]
        self._steps: list[tuple[Any, Arguments]] = []
        self._constants: dict[str, Any] = {}
        for op in main.operations:
            if op.op_type == "const":
                self._constants[op.outputs[0].name] = _constant(op.outputs[0].val)
            elif op.op_type.startswith("constexpr_"):
                self._constants[op.outputs[0].name] = _constant(op.materialized_val_inference())
            elif op.op_type in OPERATIONS:
                self._steps.append((op, op.inputs))
            else:
                raise ExportError(f"{package.name}: the interpreter doesn't know the operation {op.op_type}")
        self.operations = [op.op_type for op, _ in self._steps]

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the program once.

        Args:
            inputs: name → float32 or int32 tensor of exactly the shape that the program declares.

        Returns:
            name → output, float32 or integers.

        Raises:
            ValueError: an input has another name or shape.
        """
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        if shapes != self.inputs:
            raise ValueError(f"the program takes {self.inputs}, not {shapes}")
        values: dict[str, Any] = dict(inputs)

        def value(var: Any) -> Any:
            if isinstance(var, tuple | list):
                return [value(part) for part in var]
            return values[var.name] if var.name in values else self._constants[var.name]

        with torch.inference_mode():
            for op, named in self._steps:
                arguments = {name: value(var) for name, var in named.items() if var is not None}
                results = OPERATIONS[op.op_type](arguments)
                found = results if isinstance(results, tuple | list) else (results,)
                for var, result in zip(op.outputs, found, strict=True):
                    if tuple(result.shape) != tuple(var.shape):
                        raise ExportError(f"{op.op_type} returned {tuple(result.shape)}, the program says {var.shape}")
                    values[var.name] = rounded(result, var.dtype.__name__)
        return {name: values[name] for name in self.outputs}


def rounded(value: Tensor, dtype: str) -> Tensor:
    """A result as its declared type: what is fp16 in the program is float32 here, rounded to fp16."""
    if dtype == "fp16":
        return value.to(torch.float16).to(torch.float32)
    return value.to({"fp32": torch.float32, "bool": torch.bool}.get(dtype, torch.int32))


def _constant(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim:
        return torch.from_numpy(np.ascontiguousarray(value.astype(np.float32) if value.dtype == np.float16 else value))
    return value.item() if isinstance(value, np.generic | np.ndarray) else value


def _ints(values: Any) -> list[int]:
    return [int(value) for value in values]


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Arguments], Any]:
    return lambda a: function(_tensor(a["x"]), _tensor(a["y"]))


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Arguments], Tensor]:
    return lambda a: function(a["x"])


def _reduce(function: Callable[..., Tensor]) -> Callable[[Arguments], Tensor]:
    def run(a: Arguments) -> Tensor:
        axes = _ints(a["axes"]) if a.get("axes") is not None else list(range(a["x"].ndim))
        return function(a["x"], dim=axes, keepdim=bool(a["keep_dims"]))

    return run


def _sides(a: Arguments, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    """Padding before and after each spatial axis, the last axis first, as torch's `pad` expects it."""
    spatial = a["x"].shape[2:]
    if a["pad_type"] == "custom":
        flat = _ints(a["pad"])
        pairs = [(flat[2 * i], flat[2 * i + 1]) for i in range(len(spatial))]
    elif a["pad_type"] == "valid":
        pairs = [(0, 0)] * len(spatial)
    else:  # "same" and "same_lower": an odd remainder goes after, or before
        pairs = []
        for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            low, high = total // 2, total - total // 2
            pairs.append((low, high) if a["pad_type"] == "same" else (high, low))
    return [side for pair in reversed(pairs) for side in pair]


def _conv(a: Arguments) -> Tensor:
    x, weight = a["x"], a["weight"]
    spatial = x.ndim - 2
    strides, dilations = _ints(a["strides"]), _ints(a["dilations"])
    padded = F.pad(x, _sides(a, list(weight.shape[2:]), strides, dilations))
    function = {1: F.conv1d, 2: F.conv2d}[spatial]
    return function(padded, weight, a.get("bias"), strides, 0, dilations, int(a["groups"]))


def _pool(function: Callable[..., Tensor], outside: float) -> Callable[[Arguments], Tensor]:
    def run(a: Arguments) -> Tensor:
        kernel, strides = _ints(a["kernel_sizes"]), _ints(a["strides"])
        sides = _sides(a, kernel, strides, [1] * len(kernel))
        if a["ceil_mode"] or (a.get("exclude_padding_from_average") and any(sides)):
            raise ExportError("the interpreter doesn't know pooling with these options")
        return function(F.pad(a["x"], sides, value=outside), kernel, strides)

    return run


def _batch_norm(a: Arguments) -> Tensor:
    return F.batch_norm(a["x"], a["mean"], a["variance"], a.get("gamma"), a.get("beta"), eps=a["epsilon"])


def _layer_norm(a: Arguments) -> Tensor:
    axes = _ints(a["axes"])
    shape = [a["x"].shape[axis] for axis in axes]
    if sorted(axis % a["x"].ndim for axis in axes) != list(range(a["x"].ndim - len(axes), a["x"].ndim)):
        raise ExportError(f"the interpreter doesn't know layer_norm over the axes {axes}")
    return F.layer_norm(a["x"], shape, a.get("gamma"), a.get("beta"), a["epsilon"])


def _gelu(a: Arguments) -> Tensor:
    if a["mode"] == "SIGMOID_APPROXIMATION":
        return a["x"] * torch.sigmoid(1.702 * a["x"])
    return F.gelu(a["x"], approximate="none" if a["mode"] == "EXACT" else "tanh")


def _matmul(a: Arguments) -> Tensor:
    x, y = (a[name].mT if a[f"transpose_{name}"] else a[name] for name in ("x", "y"))
    return x @ y


def _split(a: Arguments) -> tuple[Tensor, ...]:
    sizes = a.get("split_sizes")
    axis = int(a["axis"])
    return torch.split(a["x"], _ints(sizes) if sizes is not None else a["x"].shape[axis] // int(a["num_splits"]), axis)


def _slice(a: Arguments) -> Tensor:
    """Slices as in Python, but masks say which ends are open and which axes are dropped."""
    x = a["x"]
    ends = [_ints(a[name]) for name in ("begin", "end")]
    steps = _ints(a["stride"]) if a.get("stride") is not None else [1] * x.ndim
    masks = [a.get(f"{name}_mask") for name in ("begin", "end", "squeeze")]
    opened = [[bool(bit) for bit in mask] if mask is not None else [False] * x.ndim for mask in masks]
    index: list[Any] = []
    for axis in range(x.ndim):
        if opened[2][axis]:
            index.append(ends[0][axis])
            continue
        if steps[axis] < 0:
            raise ExportError("the interpreter doesn't know slices that run backwards")
        first = None if opened[0][axis] else ends[0][axis]
        index.append(slice(first, None if opened[1][axis] else ends[1][axis], steps[axis]))
    return x[tuple(index)]


def _pad(a: Arguments) -> Tensor:
    flat = _ints(a["pad"])
    sides = [side for i in reversed(range(len(flat) // 2)) for side in flat[2 * i : 2 * i + 2]]
    if a["mode"] != "constant":
        raise ExportError(f"the interpreter doesn't know padding by {a['mode']}")
    return F.pad(a["x"], sides, value=float(a["constant_val"]))


def _gather(a: Arguments) -> Tensor:
    x, indices, axis = a["x"], _tensor(a["indices"]), int(a["axis"])
    if a.get("batch_dims"):
        raise ExportError("the interpreter doesn't know gather with batch_dims")
    axis %= x.ndim
    picked = x.index_select(axis, indices.flatten().long())
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _expand_dims(a: Arguments) -> Tensor:
    axes = _ints(a["axes"])
    rank = a["x"].ndim + len(axes)
    result = a["x"]
    for axis in sorted(axis % rank for axis in axes):
        result = result.unsqueeze(axis)
    return result


def _squeeze(a: Arguments) -> Tensor:
    axes = a.get("axes")
    return a["x"].squeeze() if axes is None else a["x"].squeeze(tuple(_ints(axes)))


def _cast(a: Arguments) -> Tensor:
    return rounded(_tensor(a["x"]), str(a["dtype"]))


def _reshape(a: Arguments) -> Tensor:
    x, sizes = a["x"], _ints(a["shape"])
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)])


OPERATIONS: Final[dict[str, Callable[[Arguments], Any]]] = {
    "add": _binary(operator.add),
    "sub": _binary(operator.sub),
    "mul": _binary(operator.mul),
    "real_div": _binary(torch.true_divide),
    "pow": _binary(torch.pow),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "equal": _binary(torch.eq),
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "less": _binary(torch.lt),
    "relu": _unary(F.relu),
    "relu6": _unary(F.relu6),
    "sigmoid": _unary(torch.sigmoid),
    "silu": _unary(F.silu),
    "tanh": _unary(torch.tanh),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "identity": _unary(lambda x: x),
    "rsqrt": lambda a: torch.rsqrt(a["x"] + a["epsilon"]),
    "clip": lambda a: a["x"].clamp(float(a["alpha"]), float(a["beta"])),
    "thresholded_relu": lambda a: torch.where(a["x"] >= float(a["alpha"]), a["x"], 0.0),
    "leaky_relu": lambda a: F.leaky_relu(a["x"], float(a["alpha"])),
    "sigmoid_hard": lambda a: (float(a["alpha"]) * a["x"] + float(a["beta"])).clamp(0, 1),
    "gelu": _gelu,
    "softmax": lambda a: torch.softmax(a["x"], int(a["axis"])),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "conv": _conv,
    "linear": lambda a: F.linear(a["x"], a["weight"], a.get("bias")),
    "matmul": _matmul,
    "avg_pool": _pool(lambda x, k, s: F.avg_pool2d(x, k, s), 0.0),
    "max_pool": _pool(lambda x, k, s: F.max_pool2d(x, k, s), float("-inf")),
    "reduce_mean": _reduce(torch.mean),
    "reduce_sum": _reduce(torch.sum),
    "reduce_max": _reduce(torch.amax),
    "reduce_l2_norm": _reduce(lambda x, dim, keepdim: torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)),
    "reduce_sum_square": _reduce(lambda x, dim, keepdim: torch.sum(x * x, dim=dim, keepdim=keepdim)),
    "reshape": _reshape,
    "transpose": lambda a: a["x"].permute(_ints(a["perm"])),
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "tile": lambda a: a["x"].repeat(_ints(a["reps"])),
    "concat": lambda a: torch.cat(a["values"], int(a["axis"])),
    "stack": lambda a: torch.stack(a["values"], int(a["axis"])),
    "split": _split,
    "slice_by_index": _slice,
    "pad": _pad,
    "gather": _gather,
    "select": lambda a: torch.where(_tensor(a["cond"]), _tensor(a["a"]), _tensor(a["b"])),
    "cast": _cast,
}
"""Operation → what it computes, for all operations that occur in towers."""

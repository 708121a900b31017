"""ONNX towers in fewer bits, as few as keep their vectors almost unchanged."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from export.formats import ExportError
from export.measure.sensitivity import BUDGET, Trial, leave_exact
from export.onnx.weights import channel_axes, shrink_weights
from mobileclip.runtimes.onnx import Tower

KERNELS: Final = ("Conv", "MatMul", "Gemm")
ACTIVATIONS: Final = ("Clip", "Relu")
"""What ONNX Runtime runs as part of the layer before it."""


def compute_half(data: bytes) -> bytes:
    """Store and compute in float16; inputs and outputs stay float32.

    Layer norms stay float32: with all optimizations, ONNX Runtime crashes on a graph with float16 layer norms (1.32).
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    with _quiet():
        model = convert_float_to_float16(
            onnx.load_from_string(data),
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, "LayerNormalization"],
        )
    return shrink_weights(model)


def round_weights(data: bytes, calibration: Sequence[NDArray[Any]]) -> bytes:
    """Store weights in int8 with a scale for each output channel, or in float16 if int8 changes the vectors too much.

    Without calibration inputs, all weights are int8.
    """
    model = onnx.load_from_string(data)
    names = [name for name, (kind, _) in channel_axes(model).items() if kind in KERNELS]
    exact: frozenset[str] = frozenset()
    if calibration:
        sizes = {weight.name: float(np.prod(weight.dims)) for weight in model.graph.initializer}
        trial = Trial(data, calibration, Tower)

        def measure(coarse: Collection[str]) -> float:
            return trial.damage(shrink_weights(copy.deepcopy(model), coarse))

        exact = leave_exact(names, sizes, measure, BUDGET)
    return shrink_weights(model, [name for name in names if name not in exact])


def quantize_text(data: bytes) -> bytes:
    """Compute matrix products in int8, with ranges measured in each run; the token table is stored in int8.

    Vectors depend slightly on the other texts of a batch, which share a range.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, small = Path(folder) / "given.onnx", Path(folder) / "small.onnx"
        given.write_bytes(data)
        quantize_dynamic(
            given, small, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
        )
        return shrink_weights(onnx.load(small))


def quantize_image(data: bytes, calibration: Sequence[NDArray[Any]]) -> bytes:
    """Compute layers in int8 (QDQ): weights with a scale per channel, activations with ranges measured on photos.

    Layers that change the vectors too much stay float32, see `leave_exact`.

    Raises:
        ExportError: there are no photos.
    """
    if not calibration:
        raise ExportError("int8 needs photos to measure the ranges of activations: give --photos, --captions or --data")
    with _quiet():
        static = _StaticQuantizer(data, calibration)
        trial = Trial(data, calibration, Tower)
        exact = leave_exact(static.layers, static.cost, lambda coarse: trial.damage(static.build(coarse)), BUDGET)
        return static.build([name for name in static.layers if name not in exact])


class _StaticQuantizer:
    """Quantizes any selection of a graph's layers, with ranges that are measured once.

    Attributes:
        layers: names of the nodes that can be quantized, in the graph's order.
        cost: layer → number of its weights, which is what keeping it exact costs.
    """

    def __init__(self, data: bytes, calibration: Sequence[NDArray[Any]]) -> None:
        self.model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
        for number, node in enumerate(self.model.graph.node):
            node.name = node.name or f"node_{number}"
        axes = channel_axes(self.model)
        sizes = {weight.name: float(np.prod(weight.dims)) for weight in self.model.graph.initializer}
        weighted = [n for n in self.model.graph.node if n.op_type in KERNELS and n.input[1] in sizes]
        if not weighted or not axes:
            raise ExportError("int8: the image tower has no layer with its own weights")
        self.layers = [node.name for node in weighted]
        self.cost = {node.name: sizes[node.input[1]] for node in weighted}
        made_by = {output: node.name for node in weighted for output in node.output}
        self.activations: dict[str, list[str]] = {}
        for node in self.model.graph.node:
            if node.op_type in ACTIVATIONS and node.input[0] in made_by:
                self.activations.setdefault(made_by[node.input[0]], []).append(node.name)
        self.ranges = self._ranges(calibration)

    def _ranges(self, calibration: Sequence[NDArray[Any]]) -> Any:
        from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

        name = self.model.graph.input[0].name

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self.rest: Iterator[NDArray[Any]] = iter(calibration)

            def get_next(self) -> dict[str, NDArray[Any]] | None:
                found = next(self.rest, None)
                return None if found is None else {name: found}

        with tempfile.TemporaryDirectory() as folder:
            given = Path(folder) / "given.onnx"
            onnx.save(self.model, given)
            calibrator = create_calibrator(
                given,
                [*KERNELS, *ACTIVATIONS],
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod.MinMax,
            )
            calibrator.collect_data(Reader())
            return calibrator.compute_data()

    def build(self, coarse: Collection[str]) -> bytes:
        """The file with these layers in int8, and the weights of all other layers in float16."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        nodes = [name for layer in coarse for name in (layer, *self.activations.get(layer, ()))]
        if not nodes:
            return shrink_weights(copy.deepcopy(self.model))
        quantizer = QDQQuantizer(
            copy.deepcopy(self.model),
            True,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            self.ranges,
            nodes,
            [],
            [*KERNELS, *ACTIVATIONS],
            {},
        )
        quantizer.quantize_model()
        quantized: onnx.ModelProto = quantizer.model.model
        return shrink_weights(quantized)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the advice that ONNX Runtime's tools log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

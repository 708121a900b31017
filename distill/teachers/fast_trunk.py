"""A frozen trunk in ONNX Runtime, which runs it several times as fast as PyTorch on a CPU."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mobileclip.towers.image import trunk_features
from mobileclip.vectors import Floats

OPSET = 18


class _Features(nn.Module):
    def __init__(self, trunk: nn.Module, maps: int) -> None:
        super().__init__()
        self.trunk, self.maps = trunk, maps

    def forward(self, pixels: Tensor) -> Tensor:
        return trunk_features(self.trunk, pixels, self.maps)


def fast_trunk(trunk: nn.Module, size: int, maps: int) -> Callable[[Floats], Floats] | None:
    """Return a function from normalized pixels (n, 3, size, size) to features (n, width), both float32.

    None if the packages for it aren't installed (extra `export`), or the trunk can't be converted.

    Args:
        trunk: a timm trunk in eval mode, on the CPU.
        size: side of the pictures.
        maps: see `mobileclip.towers.image.run_trunk`.
    """
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        return None
    import onnxruntime

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Features(trunk, maps).eval(),
                (torch.zeros(2, 3, size, size),),
                input_names=["pixels"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError:
        return None
    assert program is not None
    stream.write(program.model_proto.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(stream.getvalue(), options, providers=["CPUExecutionProvider"])

    def run(pixels: Floats) -> Floats:
        # One photo at a time: its activations then stay in the cache.
        return np.concatenate([session.run(["features"], {"pixels": row[None]})[0] for row in pixels])

    return run

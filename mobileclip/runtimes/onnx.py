"""Towers run by ONNX Runtime, on the CPU or on another execution provider."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mobileclip.errors import EngineError, one_line

__all__ = ["Tower", "accelerators"]

_DTYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
_CPU: Final = "CPUExecutionProvider"
_PROVIDERS: Final = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Accelerator → ONNX Runtime's name, the best first."""
_VECTORS: Final = ("image_embeds", "text_embeds")
_MASK: Final = "attention_mask"


def accelerators() -> tuple[str, ...]:
    """Accelerators that this build of ONNX Runtime includes, the best first. They may still fail on this machine."""
    available = _import().get_available_providers()
    return tuple(name for name, provider in _PROVIDERS.items() if provider in available)


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"ONNX Runtime is needed: pip install onnxruntime ({error})") from None
    # On Windows, it writes usage data to the system's event log by default.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


class Tower:
    """An ONNX model with one input, batch first, and one output of vectors.

    Towers exported for transformers may have another input `attention_mask`, which is computed from the tokens, and
    other outputs besides `image_embeds` or `text_embeds`.

    Pixels are passed as (n, 3, size, size), whatever layout the model uses.

    Attributes:
        dtype: of the input; uint8 if the model normalizes pixels itself.
        shape: of the input as the model declares it; an axis of any length is a name or None.
    """

    def __init__(
        self, data: bytes, *, threads: int | None = None, accelerator: str = "cpu", optimize: bool = True
    ) -> None:
        """Load a model.

        Args:
            data: content of an .onnx file with its weights inside.
            threads: threads for one batch; None leaves it to ONNX Runtime (one per core).
            accelerator: "cpu", or one of `accelerators()`, which runs the parts of the graph that it supports.
            optimize: False to run the graph exactly as written, for comparisons.

        Raises:
            EngineError: ONNX Runtime isn't installed, or can't load the model.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        if accelerator != "cpu" and accelerator not in _PROVIDERS:
            raise EngineError(f"unknown accelerator {accelerator!r}; known are cpu, {', '.join(_PROVIDERS)}")
        onnxruntime = _import()
        provider = _PROVIDERS.get(accelerator, _CPU)
        if provider not in onnxruntime.get_available_providers():
            raise EngineError(f"this build of ONNX Runtime has no {accelerator}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its log on stderr would only repeat the error that is raised
        options.inter_op_num_threads = 1
        if threads is not None:
            options.intra_op_num_threads = threads
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session: Any = onnxruntime.InferenceSession(
                data, sess_options=options, providers=[provider] if provider == _CPU else [provider, _CPU]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise EngineError(f"ONNX Runtime cannot load the model: {one_line(error)}") from None
        if provider not in self._session.get_providers():  # ONNX Runtime only logs this
            raise EngineError(f"ONNX Runtime cannot use {accelerator} here")
        self._find_input_and_output()

    def _find_input_and_output(self) -> None:
        """Find the input, and the output with the vectors, by name if there are several."""
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = [value.name for value in self._session.get_outputs()]
        self._mask = inputs.pop(_MASK, None) if len(inputs) > 1 else None
        vectors = [name for name in outputs if name in _VECTORS] if len(outputs) > 1 else outputs
        used = [*inputs.values(), *([self._mask] if self._mask else [])]
        if len(inputs) != 1 or len(vectors) != 1 or any(value.type not in _DTYPES for value in used):
            raise EngineError(
                "the ONNX model must have one input (float32, float16, int32, int64 or uint8) and one output"
                f" or one named {' or '.join(_VECTORS)}, not {', '.join(inputs)} → {', '.join(outputs)}"
            )
        (input_,) = inputs.values()
        self._input: str = input_.name
        self.dtype: np.dtype[Any] = np.dtype(_DTYPES[input_.type])
        self._output = vectors[0]
        self.shape: tuple[int | str | None, ...] = tuple(input_.shape)
        self._channels_last = len(self.shape) == 4 and self.shape[1] != 3 and self.shape[3] == 3

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Embed a batch.

        Args:
            inputs: (n, …) in the model's shape; cast to its input type.

        Returns:
            float32 (n, d).

        Raises:
            EngineError: the model failed, for example because the shape is wrong.
        """
        return self._run(inputs, [self._output])[0]

    def with_features(
        self, inputs: npt.NDArray[Any], output: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Embed a batch and return the feature maps too, see `mobileclip.runtimes.Tower`."""
        vectors, features = self._run(inputs, [self._output, output])
        if features.ndim != 4 or len(features) != len(vectors):
            raise EngineError(f"the ONNX model's {output} is {features.shape}, not one feature map per picture")
        return vectors, features

    def _run(self, inputs: npt.NDArray[Any], outputs: list[str]) -> list[npt.NDArray[np.float32]]:
        layout = inputs.transpose(0, 2, 3, 1) if self._channels_last and inputs.ndim == 4 else inputs
        batch = np.ascontiguousarray(layout, dtype=self.dtype)
        feeds = {self._input: batch}
        if self._mask is not None:
            # The end token has the largest id. Everything after it is padding, whatever its id.
            used = np.arange(batch.shape[1]) <= batch.argmax(axis=1)[:, None]
            feeds[_MASK] = used.astype(_DTYPES[self._mask.type])
        try:
            results = [np.asarray(array, np.float32) for array in self._session.run(outputs, feeds)]
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {one_line(error)}") from None
        if results[0].ndim != 2 or len(results[0]) != len(batch):
            raise EngineError(f"the ONNX model returned {results[0].shape} for a batch of {len(batch)}")
        return results

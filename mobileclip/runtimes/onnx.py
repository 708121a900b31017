"""Towers run by ONNX Runtime, on the CPU or by one of its other providers."""

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
"""Accelerator → ONNX Runtime's name for it, the best first."""
_VECTORS: Final = ("image_embeds", "text_embeds")
_MASK: Final = "attention_mask"


def accelerators() -> tuple[str, ...]:
    """Names of those that this build of ONNX Runtime has, the best first; whether they work is another matter."""
    there = _import().get_available_providers()
    return tuple(name for name, provider in _PROVIDERS.items() if provider in there)


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"ONNX Runtime is needed: pip install onnxruntime ({error})") from None
    # It reports usage to the system's event log on Windows unless told not to.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


class Tower:
    """An ONNX model of one input, batch first, and one output of vectors.

    Towers exported for transformers may also ask for an `attention_mask`, which is made from the tokens, and
    may give more outputs than the one named `image_embeds` or `text_embeds`.

    Pixels are handed over as (n, 3, size, size) whichever way round the model takes them.

    Attributes:
        dtype: of the input; uint8 for a model that does the pixel recipe's arithmetic itself.
        shape: of the input, as the model declares it: a number, or a name or None where it is free.
    """

    def __init__(
        self, data: bytes, *, threads: int | None = None, accelerator: str = "cpu", optimize: bool = True
    ) -> None:
        """Load a model.

        Args:
            data: content of an .onnx file with its weights inside.
            threads: threads inside one batch; None leaves it to ONNX Runtime (one per core).
            accelerator: "cpu", or one of `accelerators()`; it is given what of the graph it can run.
            optimize: False runs the graph as it is written, to compare with.

        Raises:
            EngineError: ONNX Runtime is not installed, or will not load the model.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        if accelerator != "cpu" and accelerator not in _PROVIDERS:
            raise EngineError(f"unknown accelerator {accelerator!r}: there is cpu, {', '.join(_PROVIDERS)}")
        onnxruntime = _import()
        provider = _PROVIDERS.get(accelerator, _CPU)
        if provider not in onnxruntime.get_available_providers():
            raise EngineError(f"this build of ONNX Runtime has no {accelerator}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised; its own log would only repeat it on stderr
        options.inter_op_num_threads = 1
        if threads is not None:
            options.intra_op_num_threads = threads
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session: Any = onnxruntime.InferenceSession(
                data, sess_options=options, providers=[provider] if provider == _CPU else [provider, _CPU]
            )
        except Exception as error:  # its exceptions have no common base of their own
            raise EngineError(f"ONNX Runtime cannot load the model: {one_line(error)}") from None
        if provider not in self._session.get_providers():  # it only logs that
            raise EngineError(f"ONNX Runtime cannot use {accelerator} here")
        self._choose_ends()

    def _choose_ends(self) -> None:
        """Find the input to feed and the output to read, by name where there are several."""
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = [value.name for value in self._session.get_outputs()]
        self._mask = inputs.pop(_MASK, None) if len(inputs) > 1 else None
        named = [name for name in outputs if name in _VECTORS] if len(outputs) > 1 else outputs
        fed = [*inputs.values(), *([self._mask] if self._mask else [])]
        if len(inputs) != 1 or len(named) != 1 or any(value.type not in _DTYPES for value in fed):
            raise EngineError(
                "the ONNX model must have one input (float32, float16, int32, int64 or uint8) and one output"
                f" or one named {' or '.join(_VECTORS)}, not {', '.join(inputs)} → {', '.join(outputs)}"
            )
        (given,) = inputs.values()
        self._input: str = given.name
        self.dtype: np.dtype[Any] = np.dtype(_DTYPES[given.type])
        self._output = named[0]
        self.shape: tuple[int | str | None, ...] = tuple(given.shape)
        self._channels_last = len(self.shape) == 4 and self.shape[1] != 3 and self.shape[3] == 3

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Vectors for a batch.

        Args:
            inputs: (n, …) of the shape that the model wants; cast to its input type where that differs.

        Returns:
            float32 (n, d).

        Raises:
            EngineError: the model failed, e.g. on another shape than it was made for.
        """
        return self._run(inputs, [self._output])[0]

    def with_features(
        self, inputs: npt.NDArray[Any], output: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Vectors for a batch, and the feature map that they were pooled from; see `mobileclip.runtimes.Tower`."""
        vectors, features = self._run(inputs, [self._output, output])
        if features.ndim != 4 or len(features) != len(vectors):
            raise EngineError(f"the ONNX model's {output} is {features.shape}, not a feature map for each picture")
        return vectors, features

    def _run(self, inputs: npt.NDArray[Any], outputs: list[str]) -> list[npt.NDArray[np.float32]]:
        given = inputs.transpose(0, 2, 3, 1) if self._channels_last and inputs.ndim == 4 else inputs
        batch = np.ascontiguousarray(given, dtype=self.dtype)
        feeds = {self._input: batch}
        if self._mask is not None:
            # The end mark has the largest id of all. What follows it is padding, whatever its id.
            used = np.arange(batch.shape[1]) <= batch.argmax(axis=1)[:, None]
            feeds[_MASK] = used.astype(_DTYPES[self._mask.type])
        try:
            found = [np.asarray(array, np.float32) for array in self._session.run(outputs, feeds)]
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {one_line(error)}") from None
        if found[0].ndim != 2 or len(found[0]) != len(batch):
            raise EngineError(f"the ONNX model gave {found[0].shape} for a batch of {len(batch)}")
        return found

"""Towers run by ONNX Runtime on the CPU."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mobileclip.errors import EngineError

__all__ = ["Tower"]

_DTYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_VECTORS: Final = ("image_embeds", "text_embeds")
_MASK: Final = "attention_mask"


class Tower:
    """An ONNX model of one input, batch first, and one output of vectors.

    Towers exported for transformers may also ask for an `attention_mask`, which is made from the tokens, and
    may give more outputs than the one named `image_embeds` or `text_embeds`.

    Attributes:
        shape: of the input, as the model declares it: a number, or a name or None where it is free.
    """

    def __init__(self, data: bytes, *, threads: int | None = None, optimise: bool = True) -> None:
        """Load a model.

        Args:
            data: content of an .onnx file with its weights inside.
            threads: threads inside one batch; None leaves it to ONNX Runtime (one per core).
            optimise: False runs the graph as it is written, to compare with.

        Raises:
            EngineError: ONNX Runtime is not installed, or will not load the model.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"ONNX Runtime is needed: pip install onnxruntime ({error})") from None
        # It reports usage to the system's event log on Windows unless told not to.
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised; its own log would only repeat it on stderr
        options.inter_op_num_threads = 1
        if threads is not None:
            options.intra_op_num_threads = threads
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session: Any = onnxruntime.InferenceSession(
                data, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common base of their own
            raise EngineError(f"ONNX Runtime cannot load the model: {_one_line(error)}") from None
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
                "the ONNX model must have one input (float32, float16, int32 or int64) and one output"
                f" or one named {' or '.join(_VECTORS)}, not {', '.join(inputs)} → {', '.join(outputs)}"
            )
        (given,) = inputs.values()
        self._input: str = given.name
        self._dtype = _DTYPES[given.type]
        self._output = named[0]
        self.shape: tuple[int | str | None, ...] = tuple(given.shape)

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
        batch = np.ascontiguousarray(inputs, dtype=self._dtype)
        feeds = {self._input: batch}
        if self._mask is not None:
            # The end mark has the largest id of all. What follows it is padding, whatever its id.
            used = np.arange(batch.shape[1]) <= batch.argmax(axis=1)[:, None]
            feeds[_MASK] = used.astype(_DTYPES[self._mask.type])
        try:
            found = [np.asarray(array, np.float32) for array in self._session.run(outputs, feeds)]
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {_one_line(error)}") from None
        if found[0].ndim != 2 or len(found[0]) != len(batch):
            raise EngineError(f"the ONNX model gave {found[0].shape} for a batch of {len(batch)}")
        return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

"""Towers run by ONNX Runtime on the CPU."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mobileclip.errors import EngineError

__all__ = ["Tower"]

_DTYPES: Final = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}


class Tower:
    """An ONNX model of one input, batch first, and one output of vectors."""

    def __init__(self, data: bytes, *, threads: int | None = None) -> None:
        """Load a model.

        Args:
            data: content of an .onnx file with its weights inside.
            threads: threads inside one batch; None leaves it to ONNX Runtime (one per core).

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
        try:
            self._session: Any = onnxruntime.InferenceSession(
                data, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no common base of their own
            raise EngineError(f"ONNX Runtime cannot load the model: {_one_line(error)}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in _DTYPES:
            raise EngineError("the ONNX model must have one input (float32, int32 or int64) and one output")
        self._input: str = inputs[0].name
        self._dtype = _DTYPES[inputs[0].type]

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Vectors for a batch.

        Args:
            inputs: (n, …) of the shape that the model wants; cast to its input type where that differs.

        Returns:
            float32 (n, d).

        Raises:
            EngineError: the model failed, e.g. on another shape than it was made for.
        """
        batch = np.ascontiguousarray(inputs, dtype=self._dtype)
        try:
            (vectors,) = self._session.run(None, {self._input: batch})
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {_one_line(error)}") from None
        found: npt.NDArray[np.float32] = np.asarray(vectors, np.float32)
        if found.ndim != 2 or len(found) != len(batch):
            raise EngineError(f"the ONNX model gave {found.shape} for a batch of {len(batch)}")
        return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

"""Towers run by LiteRT (TensorFlow Lite), on the CPU or by a delegate."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mobileclip.errors import EngineError, one_line

__all__ = ["Tower", "accelerators"]

_INTERPRETERS: Final = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
"""Modules with an interpreter, all with the same interface; the first that is installed is used."""
_VECTORS: Final = ("image_embeds", "text_embeds")
_MAX_THREADS: Final = 4
"""More would use a phone's slow cores, and the fast ones would wait for them."""

_loading = Lock()


def accelerators() -> tuple[str, ...]:
    """Accelerators with a name: none, because a delegate is chosen by its library's path."""
    return ()


class Tower:
    """A .tflite model with one input and one output of vectors, run on as many rows at a time as it was exported for.

    Pixels are passed as (n, 3, size, size), whatever layout the model uses. If an input or output is an integer tensor
    with a scale, the scale is applied here. If the input is uint8 without a scale, the model normalizes pixels itself.
    Several outputs are distinguished by their names in the model's signature. One thread at a time runs the model.

    Attributes:
        dtype: of the inputs: float32, int32, or uint8 if the model normalizes pixels itself.
        shape: of the input in the model.
    """

    def __init__(self, data: bytes, *, threads: int | None = None, accelerator: str = "cpu") -> None:
        """Load a model.

        Args:
            data: content of a .tflite file.
            threads: threads for one run; None for one per core, at most four.
            accelerator: "cpu", or the path of a delegate's library, which runs the parts of the model that it supports.

        Raises:
            EngineError: LiteRT isn't installed, or can't load the model or the delegate.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        module = _import_interpreter()
        try:
            with _quiet():
                delegates = [module.load_delegate(accelerator)] if accelerator != "cpu" else None
                self._interpreter: Any = module.Interpreter(
                    model_content=data,
                    num_threads=threads or min(os.cpu_count() or 1, _MAX_THREADS),
                    experimental_delegates=delegates,
                )
                self._interpreter.allocate_tensors()
        except Exception as error:  # ValueError, RuntimeError, SystemError, or anything that the delegate raises
            what = f"the model with {accelerator}" if accelerator != "cpu" else "the model"
            raise EngineError(f"LiteRT cannot load {what}: {one_line(error)}") from None
        self._running = Lock()
        self._find_input_and_output()

    def _find_input_and_output(self) -> None:
        """Find the input, and the output with the vectors, by name if there are several."""
        inputs = self._interpreter.get_input_details()
        if len(self._interpreter.get_signature_list()) == 1:
            outputs = self._interpreter.get_signature_runner().get_output_details()
        else:
            outputs = {value["name"]: value for value in self._interpreter.get_output_details()}
        vectors = [name for name in outputs if name in _VECTORS] if len(outputs) > 1 else list(outputs)
        if len(inputs) != 1 or len(vectors) != 1:
            raise EngineError(
                f"the LiteRT model must have one input and one output or one named {' or '.join(_VECTORS)}, "
                f"not {', '.join(value['name'] for value in inputs)} → {', '.join(outputs)}"
            )
        self._input, self._outputs, self._output = inputs[0], outputs, vectors[0]
        self.shape: tuple[int, ...] = tuple(int(side) for side in self._input["shape"])
        stored = np.dtype(self._input["dtype"])
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        if len(self.shape) == 2:
            self.dtype = np.dtype(np.int32)
        elif len(self.shape) != 4 or 3 not in (self.shape[1], self.shape[3]):
            raise EngineError(f"the LiteRT model takes {list(self.shape)}, which is neither pixels nor tokens")
        elif stored == np.uint8 and not _has_scale(self._input):
            self.dtype = stored
        self._channels_last = len(self.shape) == 4 and self.shape[1] != 3

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Embed a batch.

        Args:
            inputs: pixels (n, 3, size, size), or tokens (n, L), padded with 0 to the model's length.

        Returns:
            float32 (n, d).

        Raises:
            EngineError: the model failed, or doesn't take inputs of this shape or type.
        """
        vectors = self._run(inputs, [self._output])[0]
        if vectors.ndim != 2:
            raise EngineError(f"the LiteRT model returned {vectors.shape} for a batch of {len(inputs)}")
        return vectors

    def with_features(
        self, inputs: npt.NDArray[Any], output: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Embed a batch and return the feature maps too, see `mobileclip.runtimes.Tower`.

        The map has the same layout in the model as the pixels.
        """
        if output not in self._outputs:
            raise EngineError(f"the LiteRT model has no output {output!r}, only {', '.join(self._outputs)}")
        vectors, features = self._run(inputs, [self._output, output])
        if features.ndim != 4 or len(features) != len(vectors):
            raise EngineError(f"the LiteRT model's {output} is {features.shape}, not one feature map per picture")
        if self._channels_last:
            features = np.ascontiguousarray(features.transpose(0, 3, 1, 2))
        return vectors, features

    def _run(self, inputs: npt.NDArray[Any], outputs: list[str]) -> list[npt.NDArray[np.float32]]:
        batch = self._model_input(inputs)
        step = self.shape[0]
        results: list[list[npt.NDArray[np.float32]]] = [[] for _ in outputs]
        with self._running:
            for start in range(0, len(batch), step):
                part = batch[start : start + step]
                filled = np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)])
                for parts, array in zip(results, self._invoke(filled, outputs), strict=True):
                    parts.append(array[: len(part)])
        return [np.concatenate(parts) for parts in results]

    def _model_input(self, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring a batch into the model's layout, without applying its scale."""
        if self.dtype == np.uint8 and inputs.dtype != np.uint8:
            raise EngineError(f"the LiteRT model normalizes pixels itself and takes uint8, not {inputs.dtype}")
        batch = inputs
        if len(self.shape) == inputs.ndim == 2 and inputs.shape[1] < self.shape[1]:
            batch = np.pad(inputs, ((0, 0), (0, self.shape[1] - inputs.shape[1])))
        if self._channels_last and inputs.ndim == 4:
            batch = batch.transpose(0, 2, 3, 1)
        if not len(batch) or batch.shape[1:] != self.shape[1:]:
            raise EngineError(f"LiteRT failed: the model takes {list(self.shape)}, not {list(batch.shape)}")
        return batch

    def _invoke(self, batch: npt.NDArray[Any], outputs: list[str]) -> list[npt.NDArray[np.float32]]:
        interpreter, index = self._interpreter, self._input["index"]
        try:
            interpreter.set_tensor(index, np.ascontiguousarray(_quantized(batch, self._input)))
            interpreter.invoke()
            return [_floats(interpreter.get_tensor(self._outputs[o]["index"]), self._outputs[o]) for o in outputs]
        except Exception as error:
            raise EngineError(f"LiteRT failed: {one_line(error)}") from None


def _import_interpreter() -> Any:
    reasons = []
    for name in _INTERPRETERS:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
    raise EngineError(f"LiteRT is needed: pip install ai-edge-litert ({'; '.join(reasons)})")


def _has_scale(tensor: dict[str, Any]) -> bool:
    return len(tensor["quantization_parameters"]["scales"]) > 0


def _quantized(array: npt.NDArray[Any], tensor: dict[str, Any]) -> npt.NDArray[Any]:
    """Convert to the tensor's type: round(x / scale) + zero point if it has a scale."""
    dtype = np.dtype(tensor["dtype"])
    if not _has_scale(tensor):
        return array.astype(dtype, copy=False)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(dtype)
    levels: npt.NDArray[Any] = np.clip(np.rint(array / np.float32(scale)) + zero, limits.min, limits.max).astype(dtype)
    return levels


def _floats(array: npt.NDArray[Any], tensor: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Convert from the tensor's type to float32: (q − zero point) × scale if it has a scale."""
    if not _has_scale(tensor):
        return array.astype(np.float32, copy=False)
    scale, zero = tensor["quantization"]
    return (array.astype(np.float32) - np.float32(zero)) * np.float32(scale)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep LiteRT's native log off stderr while a model loads, because it only repeats the error that is raised."""
    with _loading:
        try:
            stderr = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        try:
            with Path(os.devnull).open("wb") as devnull:
                os.dup2(devnull.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)

"""Towers in separate processes: a crash ends nothing else, and the memory measured is that of one tower."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mobileclip.errors import EngineError, PocketclipError
from mobileclip.preprocess import PixelRecipe
from mobileclip.runtimes import ENGINES, Tower, load_tower

_ROOT = Path(__file__).parents[2]


class Child:
    """A tower that runs in a separate process.

    Attributes:
        load_ms: milliseconds that the engine took to load it.
        memory_mb: the process's peak in MB, as of the last run, minus what it held before the tower was loaded.
    """

    def __init__(self, engine: str, file: Path, threads: int | None, recipe: PixelRecipe) -> None:
        """Start the process and load the tower.

        Args:
            engine: name of the runtime, or of the format if there is no such runtime here.
            file: what `Format.quantize` returned.
            threads: of the engine; None for its default.
            recipe: turns pixels into bytes, for towers that take those.

        Raises:
            EngineError: the tower doesn't load, or crashes.
        """
        self._recipe = recipe
        paths = [str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "export.measure.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        )
        self.memory_mb = 0.0
        try:
            loaded = self._ask({"engine": engine, "file": str(file), "threads": threads})
        except EngineError:
            self.close()
            raise
        self.load_ms: float = loaded["ms"]
        self._dtype = np.dtype(loaded["dtype"])

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors of a batch of float32 pixels (n, 3, s, s) or int32 tokens (n, L), as the tower returns them.

        Raises:
            EngineError: the tower failed, or the process crashed.
        """
        return _receive(self._out, self._ask({"rounds": 0}, inputs))

    def latency(self, inputs: NDArray[Any], rounds: int) -> float:
        """Median milliseconds of `rounds` runs, after one to warm up.

        Raises:
            EngineError: the tower failed, or the process crashed.
        """
        return float(self._ask({"rounds": rounds}, inputs)["ms"])

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _ask(self, order: dict[str, Any], inputs: NDArray[Any] | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            taken = inputs
            if inputs is not None and self._dtype == np.uint8:
                taken = self._recipe.denormalize(inputs)
            _send(self._process.stdin, order, taken)
            line = self._out.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            code = self._process.wait()
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise EngineError(f"the engine crashed ({reason})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        self.memory_mb = answer["memory_mb"]
        return answer


def _send(stream: IO[bytes], message: dict[str, Any], array: NDArray[Any] | None) -> None:
    """Write a line of JSON, followed by the array's bytes if there is one."""
    if array is not None:
        message = {**message, "shape": array.shape, "dtype": array.dtype.str}
    stream.write(json.dumps(message).encode() + b"\n")
    if array is not None:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def _receive(stream: IO[bytes], message: dict[str, Any]) -> NDArray[Any]:
    """Read the array that a message announced."""
    dtype = np.dtype(message["dtype"])
    data = stream.read(dtype.itemsize * int(np.prod(message["shape"])))
    return np.frombuffer(data, dtype).reshape(message["shape"])


def _peak_mb() -> float:
    """The most memory that this process has held so far, in MB."""
    try:  # `ru_maxrss`, the kernel's other count, starts at what the parent held when it forked
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e6
    except (OSError, StopIteration):
        import resource  # Windows has no such module

        # Linux counts in KiB, macOS in bytes.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024) / 1e6


def _open(engine: str, data: bytes, threads: int | None) -> Tower:
    if engine in ENGINES:
        return load_tower(engine, data, threads=threads)
    from export.formats import load_format

    return load_format(engine).open(data, threads)


def main() -> None:
    """Serve one tower: a line of JSON and perhaps an array in, a line of JSON and perhaps an array out."""
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an engine prints must not look like an answer
    order = json.loads(orders.readline())
    before = _peak_mb()

    def answer(vectors: NDArray[np.float32] | None = None, **message: Any) -> None:
        _send(answers, {"memory_mb": _peak_mb() - before, **message}, vectors)

    try:
        started = time.perf_counter()
        tower = _open(order["engine"], Path(order["file"]).read_bytes(), order["threads"])
        dtype = np.dtype(getattr(tower, "dtype", np.float32))
        answer(ms=(time.perf_counter() - started) * 1000, dtype=dtype.str)
    except PocketclipError as error:
        answer(error=str(error))
        return
    while line := orders.readline():
        order = json.loads(line)
        rounds, inputs = order["rounds"], _receive(orders, order)
        try:
            vectors = tower(inputs)
            if rounds:
                answer(ms=_median_ms(tower, inputs, rounds))
            else:
                answer(vectors)
        except PocketclipError as error:
            answer(error=str(error))


def _median_ms(tower: Tower, inputs: NDArray[Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        tower(inputs)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1000


if __name__ == "__main__":
    main()

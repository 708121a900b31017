"""A tower that runs on an accelerator until that fails, and then on the CPU."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from mobileclip.errors import EngineError
from mobileclip.runtimes.tower import Tower

__all__ = ["CPU", "Fallback"]

CPU: Final = "cpu"

_Result = TypeVar("_Result")


class Fallback:
    """A tower on the best accelerator that works; an accelerator that failed is never tried again.

    An accelerator fails if it doesn't load, returns wrong known answers, raises an error for inputs that the CPU can
    run, or returns NaN or infinity for them.

    Attributes:
        accelerator: what runs the tower now.
        failures: accelerator → the reason, in one line, why it isn't used.
    """

    def __init__(
        self, accelerators: Sequence[str], load: Callable[[str], Tower], check: Callable[[Tower], None] | None = None
    ) -> None:
        """Load the tower.

        Args:
            accelerators: names, the best first, without the CPU.
            load: loads the tower on an accelerator or the CPU.
            check: raises an `EngineError` for a tower that returns wrong answers.

        Raises:
            EngineError: the tower doesn't load on the CPU either, or fails the check there.
        """
        self._load, self._check = load, check
        self._waiting = [name for name in accelerators if name != CPU]
        self._lock = Lock()
        self.failures: dict[str, str] = {}
        self.accelerator, self._tower = self._next()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the inputs, see `Tower`."""
        return self._tower.dtype

    @property
    def shape(self) -> tuple[int | str | None, ...]:
        """Shape of the inputs, see `Tower`."""
        return self._tower.shape

    def __call__(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Embed a batch, see `Tower`."""
        return self._run(lambda tower: tower(inputs), lambda vectors: vectors)

    def with_features(
        self, inputs: npt.NDArray[Any], output: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Embed a batch and return the feature maps too, see `Tower`."""
        return self._run(lambda tower: tower.with_features(inputs, output), lambda result: result[0])

    def _run(self, call: Callable[[Tower], _Result], vectors: Callable[[_Result], npt.NDArray[np.float32]]) -> _Result:
        with self._lock:
            accelerator, tower = self.accelerator, self._tower
        if accelerator == CPU:
            return call(tower)
        try:
            result = call(tower)
            reason = "" if np.isfinite(vectors(result)).all() else "returned NaN or infinity"
        except EngineError as error:
            reason = str(error)
        if not reason:
            return result
        # If the CPU fails too, the inputs are to blame, and the accelerator stays in use.
        result = call(self._checked(CPU))
        with self._lock:
            if self._tower is tower:
                self.failures[accelerator] = reason
                self._waiting.clear()
                self.accelerator, self._tower = self._next()
        return result

    def _next(self) -> tuple[str, Tower]:
        while self._waiting:
            name = self._waiting.pop(0)
            try:
                return name, self._checked(name)
            except EngineError as error:
                self.failures[name] = str(error)
        return CPU, self._checked(CPU)

    def _checked(self, name: str) -> Tower:
        tower = self._load(name)
        if self._check is not None:
            self._check(tower)
        return tower

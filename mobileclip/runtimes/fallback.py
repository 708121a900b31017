"""A tower on an accelerator for as long as that works, and on the CPU from then on."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from mobileclip.errors import EngineError
from mobileclip.runtimes.tower import Tower

__all__ = ["CPU", "Fallback"]

CPU: Final = "cpu"

_Found = TypeVar("_Found")


class Fallback:
    """Runs the best accelerator that works; one that fails once is never tried again.

    An accelerator fails when it does not load, gives wrong known answers, raises where the CPU does not, or gives what
    is no number where the CPU gives numbers.

    Attributes:
        accelerator: what runs the tower now.
        failures: accelerator → why it was given up, in one line.
    """

    def __init__(
        self, accelerators: Sequence[str], make: Callable[[str], Tower], check: Callable[[Tower], None] | None = None
    ) -> None:
        """Load the tower.

        Args:
            accelerators: names, the best first, without the CPU.
            make: loads the tower on one of them, or on the CPU.
            check: raises an `EngineError` for a tower that gives wrong answers.

        Raises:
            EngineError: not even the CPU can do it.
        """
        self._make, self._check = make, check
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
        """Vectors for a batch, see `Tower`."""
        return self._run(lambda tower: tower(inputs), lambda vectors: vectors)

    def with_features(
        self, inputs: npt.NDArray[Any], output: str
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Vectors and feature map, see `Tower`."""
        return self._run(lambda tower: tower.with_features(inputs, output), lambda found: found[0])

    def _run(self, ask: Callable[[Tower], _Found], vectors: Callable[[_Found], npt.NDArray[np.float32]]) -> _Found:
        with self._lock:
            accelerator, tower = self.accelerator, self._tower
        if accelerator == CPU:
            return ask(tower)
        try:
            found = ask(tower)
            reason = "" if np.isfinite(vectors(found)).all() else "it gave what is no number"
        except EngineError as error:
            reason = str(error)
        if not reason:
            return found
        # If the CPU fails as well, the inputs are to blame, and the accelerator is kept.
        found = ask(self._checked(CPU))
        with self._lock:
            if self._tower is tower:
                self.failures[accelerator] = reason
                self._waiting.clear()
                self.accelerator, self._tower = self._next()
        return found

    def _next(self) -> tuple[str, Tower]:
        while self._waiting:
            name = self._waiting.pop(0)
            try:
                return name, self._checked(name)
            except EngineError as error:
                self.failures[name] = str(error)
        return CPU, self._checked(CPU)

    def _checked(self, name: str) -> Tower:
        tower = self._make(name)
        if self._check is not None:
            self._check(tower)
        return tower

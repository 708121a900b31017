"""A cache of the most recently used values."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

__all__ = ["LruCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Values by key; when they exceed the budget, the least recently used are dropped.

    The value stored last always stays, even if it alone exceeds the budget. Caches are thread-safe. A pickled or copied
    cache is empty.
    """

    def __init__(self, budget: int, cost: Callable[[V], int] | None = None) -> None:
        """Make an empty cache.

        Args:
            budget: the total cost that all values may have.
            cost: the cost of a value, such as its bytes. By default 1, so the budget is a number of values.
        """
        self.budget, self._cost = budget, cost
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()  # most recently used last
        self._used = 0
        self._lock = Lock()

    @property
    def used(self) -> int:
        """The total cost of the values."""
        return self._used

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Whether there is a value; asking doesn't count as using it."""
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Return the value of a key, which counts as using it; None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: K, value: V) -> None:
        """Store a value, and drop others if the budget requires it."""
        cost = 1 if self._cost is None else self._cost(value)
        with self._lock:
            self._remove(key)
            self._entries[key] = value, cost
            self._used += cost
            while self._used > self.budget and len(self._entries) > 1:
                self._remove(next(iter(self._entries)))

    def clear(self) -> None:
        """Remove all values."""
        with self._lock:
            self._entries.clear()
            self._used = 0

    def _remove(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        self._used -= entry[1] if entry is not None else 0

    def __reduce__(self) -> tuple[Any, ...]:
        # A lock can't be pickled, and a worker process has no use for the values.
        return type(self), (self.budget, self._cost)

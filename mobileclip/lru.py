"""A cache that keeps the values used last."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

__all__ = ["LruCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Values by key; when they exceed the budget, those that haven't been used for longest are dropped.

    The value stored last always stays, even if it exceeds the budget alone. Any thread may use a cache. A pickled or
    copied cache is empty.
    """

    def __init__(self, budget: int, cost: Callable[[V], int] | None = None) -> None:
        """Make an empty cache.

        Args:
            budget: what all values together may cost.
            cost: what a value costs, for example its bytes; by default 1 each, so the budget is a number of values.
        """
        self.budget, self._cost = budget, cost
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()  # used last at the end
        self._used = 0
        self._lock = Lock()

    @property
    def used(self) -> int:
        """What the values cost now."""
        return self._used

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Whether there is a value; this doesn't count as using it."""
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Use the value of a key; None if there is none."""
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

    def drop(self, key: K) -> None:
        """Remove a value if there is one."""
        with self._lock:
            self._remove(key)

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

"""Two fingers that change the size of photos."""

from kivy.metrics import dp
from kivy.vector import Vector

Point = tuple[float, float]


class Pinch:
    """Follows fingers; while there are two, the size changes as their distance does."""

    def __init__(self) -> None:
        self._fingers: dict[int, Point] = {}
        self._distance, self._size = 0.0, 0.0  # when the second finger came down

    def down(self, finger: int, pos: Point, size: float) -> None:
        """A finger has come down while photos have this size."""
        self._fingers[finger] = pos
        if len(self._fingers) == 2:
            self._distance, self._size = self._measure(), size

    def move(self, finger: int, pos: Point) -> float | None:
        """A finger has moved; returns the new size, or None where there is nothing to change."""
        if finger not in self._fingers:
            return None
        self._fingers[finger] = pos
        # Fingers that begin close together would change the size by leaps.
        if len(self._fingers) != 2 or self._distance <= dp(20):
            return None
        return self._size * self._measure() / self._distance

    def up(self, finger: int) -> None:
        """A finger has left."""
        self._fingers.pop(finger, None)

    def _measure(self) -> float:
        first, second = self._fingers.values()
        return float(Vector(first).distance(second))

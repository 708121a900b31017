"""Icons as strokes, rasterized at the size they are shown at; no font and no picture files.

Each icon is a list of polylines on a square of 24 × 24 with y downwards. A pixel's alpha follows from its distance to
the nearest stroke, so that lines are smooth and round at their ends at any size.
"""

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Stroke = tuple[Point, ...]

STROKE = 1.9
"""Width of a line, in the units of the square."""


def _arc(x: float, y: float, radius: float, first: float, last: float, steps: int = 20) -> Stroke:
    """Part of a circle, from one angle in degrees to another; 0 is to the right, 90 is down."""
    angles = np.radians(np.linspace(first, last, steps))
    return tuple((x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles)


def _circle(x: float, y: float, radius: float) -> Stroke:
    return _arc(x, y, radius, 0, 360, 32)


def _box(left: float, top: float, right: float, bottom: float, r: float = 2.0) -> Stroke:
    corners = (
        *_arc(right - r, top + r, r, -90, 0, 5),
        *_arc(right - r, bottom - r, r, 0, 90, 5),
        *_arc(left + r, bottom - r, r, 90, 180, 5),
        *_arc(left + r, top + r, r, 180, 270, 5),
    )
    return (*corners, corners[0])


def _dot(x: float, y: float) -> Stroke:
    return ((x, y), (x, y))


ICONS: dict[str, tuple[Stroke, ...]] = {
    "photos": (_box(3, 4, 21, 20), ((3, 16.5), (8.5, 11.5), (13, 15.5), (16, 13), (21, 17)), _circle(15.5, 8.7, 1.4)),
    "search": (_circle(10.5, 10.5, 6.5), ((15.3, 15.3), (20.5, 20.5))),
    "albums": (_box(3, 8, 21, 20), ((5.5, 5), (18.5, 5))),
    "review": (_box(3, 4, 21, 20), ((8, 12.2), (11, 15.2), (16.5, 9))),
    "settings": (
        ((4, 7), (11, 7)),
        _circle(13.5, 7, 2.3),
        ((16, 7), (20, 7)),
        ((4, 17), (6, 17)),
        _circle(8.5, 17, 2.3),
        ((11, 17), (20, 17)),
    ),
    "back": (((19, 12), (5, 12)), ((11, 6), (5, 12), (11, 18))),
    "close": (((6, 6), (18, 18)), ((18, 6), (6, 18))),
    "check": (((5, 12.5), (10, 17.5), (19.5, 7)),),
    "plus": (((12, 5), (12, 19)), ((5, 12), (19, 12))),
    "minus": (((5, 12), (19, 12)),),
    "left": (((14.5, 5.5), (8, 12), (14.5, 18.5)),),
    "right": (((9.5, 5.5), (16, 12), (9.5, 18.5)),),
    "up": (((12, 19), (12, 5)), ((6, 11), (12, 5), (18, 11))),
    "info": (_circle(12, 12, 9), ((12, 11), (12, 16.5)), _dot(12, 7.6)),
    "where": (
        _circle(12, 12, 6.5),
        _circle(12, 12, 1.2),
        *(
            ((12 + 9.5 * dx, 12 + 9.5 * dy), (12 + 6.5 * dx, 12 + 6.5 * dy))
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))
        ),
    ),
    "similar": (_box(3, 3, 15, 15), ((18, 8), (19, 8)), _box(9, 9, 21, 21)),
    "folder": (
        ((3, 18), (3, 6), (4, 5), (9, 5), (11, 7.5), (20, 7.5), (21, 8.5), (21, 18), (20, 19), (4, 19), (3, 18)),
    ),
    "tag": (
        ((4, 4), (12, 4), (20.5, 12.5), (12.5, 20.5), (4, 12), (4, 4)),
        _dot(8, 8),
    ),
    "copy": (_box(8, 8, 20, 20), ((5, 16), (4, 15), (4, 5), (5, 4), (15, 4), (16, 5))),
    "clock": (_circle(12, 12, 9), ((12, 7), (12, 12), (15.5, 14))),
    "calendar": (_box(4, 5, 20, 20), ((4, 10), (20, 10)), ((8, 3), (8, 6.5)), ((16, 3), (16, 6.5))),
    "trash": (((4, 7), (20, 7)), ((6.5, 7), (7.5, 20), (16.5, 20), (17.5, 7)), ((9.5, 7), (10, 4), (14, 4), (14.5, 7))),
    "retry": (_arc(12, 12, 7.5, -20, -310), ((19.6, 4.6), (19.6, 9.4), (14.8, 9.4))),
    "lock": (_box(5, 11, 19, 20), ((8, 11), (8, 8), *_arc(12, 8, 4, 180, 360, 12), (16, 11))),
    "warning": (((12, 4), (21.5, 20), (2.5, 20), (12, 4)), ((12, 10), (12, 14.5)), _dot(12, 17.2)),
    "sun": (
        _circle(12, 12, 4),
        *(
            ((12 + 7 * math.cos(a), 12 + 7 * math.sin(a)), (12 + 9.3 * math.cos(a), 12 + 9.3 * math.sin(a)))
            for a in np.radians(np.arange(0, 360, 45))
        ),
    ),
    "moon": ((*_arc(11.5, 12.5, 8.3, 15, 285, 40), *_arc(18.2, 6.4, 7.6, 200, 60, 20)),),
    "help": (_circle(12, 12, 9), (*_arc(12, 9.8, 2.7, 180, 400, 14), (12, 13.6)), _dot(12, 17)),
    "undo": (((8, 4), (4, 8), (8, 12)), ((4, 8), (14, 8), *_arc(14, 13.5, 5.5, -90, 90, 14), (9, 19))),
    "circle": (_circle(12, 12, 8.5),),
    "pencil": (((4, 20), (5, 15.5), (16, 4.5), (19.5, 8), (8.5, 19), (4, 20)),),
    "full": (
        ((4, 9), (4, 4), (9, 4)),
        ((15, 4), (20, 4), (20, 9)),
        ((20, 15), (20, 20), (15, 20)),
        ((9, 20), (4, 20), (4, 15)),
    ),
    "more": (_dot(5.5, 12), _dot(12, 12), _dot(18.5, 12)),
    "device": (_box(7, 2.5, 17, 21.5), _dot(12, 18.2)),
}


@lru_cache(maxsize=256)
def alpha(name: str, size: int) -> NDArray[np.uint8]:
    """The icon as coverage, uint8 (size, size), row 0 at the top.

    Raises:
        KeyError: no such icon.
    """
    centers = (np.arange(size, dtype=np.float32) + 0.5) * (24 / size)
    x, y = np.meshgrid(centers, centers)
    nearest = np.full((size, size), np.inf, np.float32)
    for stroke in ICONS[name]:
        for (x0, y0), (x1, y1) in pairwise(stroke):
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
            np.minimum(nearest, np.hypot(x - x0 - along * dx, y - y0 - along * dy), out=nearest)
    # Half a pixel of slope on both sides of the edge; thin icons keep at least one whole pixel of ink.
    reach = max(STROKE / 2, 0.55 * 24 / size)
    coverage = np.clip((reach - nearest) * (size / 24) + 0.5, 0, 1)
    return (coverage * 255).astype(np.uint8)


@lru_cache(maxsize=16)
def corner(size: int) -> NDArray[np.uint8]:
    """What lies outside a rounded top-left corner of this radius, as coverage, uint8 (size, size), row 0 at the top."""
    centers = np.arange(size, dtype=np.float32) + 0.5
    x, y = np.meshgrid(centers, centers)
    outside: NDArray[np.uint8] = (np.clip(np.hypot(size - x, size - y) - size + 0.5, 0, 1) * 255).astype(np.uint8)
    return outside


@lru_cache(maxsize=16)
def disc(size: int) -> NDArray[np.uint8]:
    """A filled circle of this diameter, as coverage, uint8 (size, size)."""
    centers = np.arange(size, dtype=np.float32) + 0.5 - size / 2
    x, y = np.meshgrid(centers, centers)
    inside: NDArray[np.uint8] = (np.clip(size / 2 - np.hypot(x, y) + 0.5, 0, 1) * 255).astype(np.uint8)
    return inside

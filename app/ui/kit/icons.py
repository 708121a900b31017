"""Icons and round shapes as coverage, drawn at the size that they are shown at: sharp at any density.

The icons are strokes in `icons.svg`, next to this file; any browser shows them. Pillow draws each once, for a texture:
showing it costs two triangles, and its edges are smooth in a window without multisampling as well.
"""

import cmath
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE = 24
"""Side of an icon's square, in its own units."""

OVERSAMPLING = 8
"""Drawn this many times larger, then averaged."""

STEP = math.radians(6)
"""Arcs are drawn as chords, each of at most this angle."""

Stroke = list[complex]
"""A polyline: x + iy, with y downwards."""


@cache
def strokes() -> dict[str, list[Stroke]]:
    """The strokes of every icon, by its name."""
    return {path.attrib["id"]: list(_strokes_of(path.attrib["d"])) for path in _svg()}


@cache
def _svg() -> ElementTree.Element:
    return ElementTree.parse(Path(__file__).with_name("icons.svg")).getroot()


def _strokes_of(path: str) -> Iterator[Stroke]:
    """The polylines of an SVG path of absolute M, L and A commands (SVG 1.1, 8.3; arcs of circles only).

    Raises:
        ValueError: the path has another command.
    """
    stroke: Stroke = []
    for command, text in re.findall(r"([A-Za-z])([^A-Za-z]*)", path):
        numbers = [float(number) for number in text.split()]
        end = complex(*numbers[-2:])
        if command == "M":
            if stroke:
                yield stroke
            stroke = [end]
        elif command == "L":
            stroke.append(end)
        elif command == "A":
            stroke.extend(_arc(stroke[-1], end, numbers[0], large=bool(numbers[3]), clockwise=bool(numbers[4])))
        else:
            raise ValueError(f"icons.svg: {command} is not one of M, L and A")
    yield stroke


def _arc(start: complex, end: complex, radius: float, *, large: bool, clockwise: bool) -> Stroke:
    """Points on a circle from `start`, without it, to `end`."""
    half = (end - start) / 2
    to_center = 1j * half / abs(half) * math.sqrt(max(0.0, radius**2 - abs(half) ** 2))
    center = start + half + (to_center if large != clockwise else -to_center)
    angle = cmath.phase((end - center) / (start - center)) % (2 * math.pi) - (0 if clockwise else 2 * math.pi)
    steps = math.ceil(abs(angle) / STEP)
    return [center + (start - center) * cmath.rect(1, angle * step / steps) for step in range(1, steps)] + [end]


def icon(name: str, size: int) -> NDArray[np.uint8]:
    """An icon as coverage, uint8 (size, size), row 0 at the top.

    Raises:
        KeyError: there is no such icon.
    """
    canvas, draw = _canvas(size)
    scale = canvas.width / SIDE
    # At small sizes a line keeps a little more than a whole pixel of ink.
    width = max(scale * float(_svg().attrib["stroke-width"]), 1.1 * OVERSAMPLING)
    for stroke in strokes()[name]:
        points = [(scale * point.real, scale * point.imag) for point in stroke]
        draw.line(points, 255, round(width))
        for x, y in points:  # round ends and joints
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), 255)
    return _average(canvas)


def corner(size: int) -> NDArray[np.uint8]:
    """What is outside a rounded top-left corner of this radius, as coverage, uint8 (size, size), row 0 at the top."""
    canvas, draw = _canvas(size)
    draw.ellipse((0, 0, 2 * canvas.width - 1, 2 * canvas.height - 1), 255)
    return 255 - _average(canvas)


def disc(size: int) -> NDArray[np.uint8]:
    """A filled circle of this diameter, as coverage, uint8 (size, size)."""
    canvas, draw = _canvas(size)
    draw.ellipse((0, 0, canvas.width - 1, canvas.height - 1), 255)
    return _average(canvas)


def _canvas(size: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("L", (size * OVERSAMPLING, size * OVERSAMPLING))
    return canvas, ImageDraw.Draw(canvas)


def _average(canvas: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(canvas.reduce(OVERSAMPLING))

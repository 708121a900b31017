"""Handwriting: an alphabet of pen strokes, varied for every letter.

No free package has a script font, and slanted print doesn't look handwritten.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

from distill.render.text import Color

# Points "xy" on a grid: x 0-5; y 0 descender, 3 baseline, 6 x-height, 9 ascender; `|` lifts the pen.
STROKES = {
    "a": "46260504133345464453", "b": "0903042645442304", "c": "4536160504133344",
    "d": "452605042344494353", "e": "0445361604133344", "f": "4839282321|0646",
    "g": "45260504234546412001", "h": "09030526454353", "i": "161423|1828", "j": "26211001|2838",
    "k": "0903|460443", "l": "09041323", "m": "06030516252325364543", "n": "06030526454353",
    "o": "26050423444526", "p": "0600052645442304", "q": "452605042344464051", "r": "0603052636",
    "s": "462605443303", "t": "29243343|0747", "u": "06042344464353", "v": "062346", "w": "0613263346",
    "x": "0643|4603", "y": "06042345|46412001", "z": "06460343", "0": "29070523454729", "1": "072923",
    "2": "082948470343", "3": "0829482645442304", "4": "33390545", "5": "49090636453303",
    "6": "49170423443605", "7": "094913", "8": "260829482604234426", "9": "47260729484533",
    "A": "032943|1535", "B": "03093948360636453303", "C": "482907052344", "D": "030938463403",
    "E": "49090343|0636", "F": "490903|0636", "G": "4829070523444626", "H": "0903|4943|0646", "I": "1913",
    "J": "39342304", "K": "0903|490643", "L": "090343", "M": "0309254943", "N": "03094349",
    "O": "29070523454729", "P": "030939473606", "Q": "29070523454729|3452", "R": "03093947360643",
    "S": "4829080745442304", "T": "0959|2923", "U": "0905234549", "V": "092349", "W": "0913273349",
    "X": "0943|4903", "Y": "092649|2623", "Z": "09490343", ".": "1323", ",": "2312", "-": "0535",
    ":": "1424|1626", "?": "0829482725|2322", "!": "1915|1323", "=": "0444|0646", "+": "0545|2327",
    "/": "0249", "(": "39160413|1322", ")": "09361403", "%": "0349|0819|3343", "&": "43170929052345",
    "'": "1917", "€": "482905042344|0636",
}  # fmt: skip


@lru_cache(maxsize=128)
def _glyph(letter: str) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the strokes of a letter as smooth polylines, (n, 2) each, in x-heights from the baseline."""
    lines = []
    for stroke in STROKES.get(letter, "1333").split("|"):
        points = np.array([(int(x), int(y) - 3) for x, y in zip(stroke[::2], stroke[1::2], strict=True)]) / 3.0
        if len(points) > 2:
            padded = np.concatenate([points[:1], points, points[-1:]])
            p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None] for i in range(4))
            t = np.linspace(0, 1, 4, endpoint=False)[None, :, None]
            # A Catmull-Rom spline passes through every grid point, so the letter stays legible.
            curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
            points = np.concatenate([curve.reshape(-1, 2), points[-1:]])
        lines.append(points)
    return tuple(lines)


class Handwriting:
    """One person's handwriting: slant, width, pen and wobble are fixed, and every letter varies slightly.

    Args:
        rng: source of the handwriting and of every letter's wobble.
        size: x-height in pixels.
        ink: color of the pen.
        pen: width of the line in pixels.
    """

    def __init__(self, rng: random.Random, size: float, ink: Color, pen: int = 2) -> None:
        self.rng, self.size, self.ink, self.pen = rng, size, ink, pen
        self.slant = rng.uniform(-0.1, 0.45)
        self.narrow = rng.uniform(0.6, 0.95)
        self.gap = rng.uniform(0.25, 0.5)
        self.wobble = rng.uniform(0.02, 0.07)
        self._noise = np.random.default_rng(rng.getrandbits(32))

    def width(self, text: str) -> float:
        """Return the approximate width of a text in pixels."""
        per_letter = (4 / 3 * self.narrow * 0.85 + self.gap) * self.size
        return per_letter * len(text)

    def write(self, draw: ImageDraw.ImageDraw, x: float, y: float, text: str) -> float:
        """Write a line from x on the baseline y, in pixels; returns the x where it ends."""
        rise = self.rng.uniform(-0.02, 0.02)
        start = x
        for letter in text:
            if letter == " ":
                x += self.size * self.rng.uniform(0.7, 1.0)
                continue
            scale = self.size * self.rng.uniform(0.9, 1.1)
            widest = 0.0
            for line in _glyph(letter):
                shaken = line + self._noise.normal(0, self.wobble, line.shape) * 0.5
                right = x + (shaken[:, 0] * self.narrow + shaken[:, 1] * self.slant) * scale
                up = y + (x - start) * rise - shaken[:, 1] * scale
                draw.line(np.stack([right, up], 1).ravel().tolist(), fill=self.ink, width=self.pen, joint="curve")
                widest = max(widest, float(line[:, 0].max()))
            x += (widest * self.narrow + self.gap * self.rng.uniform(0.8, 1.2)) * scale
        return x

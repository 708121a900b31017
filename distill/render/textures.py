"""Draw pictures without any object: walls, grass, ground, cloth, the night sky and the moon.

Photo sets have hardly any, and a model that never saw one finds people in them.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from distill.render.camera import Array, smooth_noise, surface

SIDES = ((384, 288), (288, 384), (320, 320), (400, 225))


def _generator(rng: random.Random) -> tuple[np.random.Generator, int, int]:
    width, height = rng.choice(SIDES)
    return np.random.default_rng(rng.getrandbits(64)), width, height


def _picture(colors: NDArray[np.floating[Any]]) -> Image.Image:
    return Image.fromarray(colors.clip(0, 255).astype(np.uint8))


def _light(noise: np.random.Generator, width: int, height: int) -> Array:
    """Return uneven light, (height, width, 1)."""
    light: Array = (1 + 0.12 * smooth_noise(noise, width, height, (2, 2)))[..., None]
    return light


def bricks(rng: random.Random) -> Image.Image:
    """Draw a brick or tiled wall."""
    noise, width, height = _generator(rng)
    tall, joint = int(noise.integers(14, 60)), int(noise.integers(1, 5))
    long = int(tall * noise.uniform(1.0, 3.2))
    y, x = np.mgrid[0:height, 0:width]
    row = y // tall
    shifted = x + (row % 2) * (long // 2) * (noise.random() < 0.85)
    column = shifted // long
    base = np.array([(150, 75, 55), (175, 100, 75), (120, 110, 105), (200, 195, 185), (100, 60, 50), (210, 170, 130)])
    color = base[noise.integers(len(base))] * noise.uniform(0.7, 1.15)
    tone = noise.normal(1, noise.uniform(0.02, 0.16), (row.max() + 1, column.max() + 1))[row, column]
    colors = (tone * (1 + noise.normal(0, 0.05, (height, width))))[..., None] * color
    gaps = (y % tall < joint) | (shifted % long < joint)
    colors[gaps] = noise.uniform(60, 220) * (1 + noise.normal(0, 0.05, (int(gaps.sum()), 1)))
    picture = _picture(colors * _light(noise, width, height))
    return picture.filter(ImageFilter.GaussianBlur(noise.uniform(0.2, 1.0)))


def grass(rng: random.Random) -> Image.Image:
    """Draw grass, leaves or straw, seen from above."""
    noise, width, height = _generator(rng)
    tints = np.array([(85, 125, 50), (110, 140, 70), (150, 140, 80), (60, 95, 45), (130, 110, 70)])
    color = tints[noise.integers(len(tints))] * noise.uniform(0.6, 1.2)
    field = np.zeros((height, width), np.float32)
    for _ in range(4):  # blades in a few directions
        blades = noise.normal(0, 1, (height, width)).astype(np.float32)
        length = int(noise.integers(5, 14))
        step = int(noise.integers(-1, 2))
        field += sum(np.roll(blades, (i, i * step), (0, 1)) for i in range(length)) / np.sqrt(length)
    field = field / field.std() * noise.uniform(0.15, 0.4) + 0.1 * smooth_noise(noise, width, height, (6, 6))
    return _picture((1 + field)[..., None] * color * _light(noise, width, height))


def ground(rng: random.Random) -> Image.Image:
    """Draw sand, gravel, asphalt or plaster."""
    noise, width, height = _generator(rng)
    grain = int(noise.integers(1, 14))
    rough = smooth_noise(noise, width, height, (max(2, width // grain), max(2, height // grain)))
    color = noise.uniform(60, 220) * np.array([1, noise.uniform(0.88, 1), noise.uniform(0.7, 1)])
    colors = 1 + noise.uniform(0.02, 0.3) * rough + noise.normal(0, 0.03, (height, width))
    if noise.random() < 0.3:  # ripples
        y = np.mgrid[0:height, 0:width][0] + 12 * smooth_noise(noise, width, height, (5, 5))
        colors = colors + noise.uniform(0.05, 0.2) * np.sin(y * 2 * np.pi / noise.uniform(8, 40))
    return _picture(colors[..., None] * color * _light(noise, width, height))


def cloth(rng: random.Random) -> Image.Image:
    """Draw a table, a fabric or a stone that fills the picture."""
    noise, width, height = _generator(rng)
    return surface(noise, width, height)


def night_sky(rng: random.Random) -> Image.Image:
    """Draw stars, with a nebula or galaxies as a telescope sees them in a third of the pictures."""
    noise, width, height = _generator(rng)
    sky = np.full((height, width, 3), noise.uniform(0, 22)) * np.array([0.8, 0.9, noise.uniform(1, 1.6)])
    y, x = np.mgrid[0:height, 0:width]
    if noise.random() < 0.6:  # the band of the Milky Way, or haze
        slope = noise.uniform(-1, 1)
        band = np.exp(-(((y - height / 2 - slope * (x - width / 2)) / noise.uniform(25, 90)) ** 2))
        cloudy = 1 + 0.5 * smooth_noise(noise, width, height, (9, 7))
        sky = sky + (band * cloudy)[..., None] * noise.uniform(10, 60) * noise.uniform(0.7, 1.1, 3)
    stars = int(noise.integers(60, 1200))
    for size in (0, 0, 0, 1, 2):
        rows, columns = noise.integers(0, height, stars), noise.integers(0, width, stars)
        bright = noise.exponential(130, stars)[:, None] * noise.uniform(0.75, 1.1, (stars, 3))
        for down in range(-size, size + 1):
            for across in range(-size, size + 1):
                fade = 0.55 ** (abs(down) + abs(across))
                np.add.at(sky, ((rows + down) % height, (columns + across) % width), bright * fade)
        stars = max(3, stars // 4)
    if noise.random() < 0.35:
        for _ in range(int(noise.integers(5, 60))):
            cy, cx = noise.uniform(0, height), noise.uniform(0, width)
            long, short, turn = noise.uniform(2, 9), noise.uniform(1, 4), noise.uniform(0, np.pi)
            u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
            v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
            glow = np.exp(-((u / long) ** 2 + (v / short) ** 2)) * noise.uniform(60, 230)
            sky = sky + glow[..., None] * noise.uniform(0.6, 1.1, 3)
    picture = _picture(sky)
    return picture.filter(ImageFilter.GaussianBlur(noise.uniform(0.3, 0.8)))


def moon(rng: random.Random) -> Image.Image:
    """Draw the moon or another planet, whole or so close that it fills the picture."""
    noise, width, height = _generator(rng)
    near = noise.random() < 0.4
    radius = min(width, height) * (noise.uniform(1.0, 2.5) if near else noise.uniform(0.08, 0.46))
    cy, cx = height * noise.uniform(0.3, 0.7), width * noise.uniform(0.3, 0.7)
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(y - cy, x - cx)
    ground = 150 + 28 * smooth_noise(noise, width, height, (4, 4)) + 12 * smooth_noise(noise, width, height, (24, 24))
    for _ in range(int(noise.integers(8, 60))):  # craters: a dark floor, lit on one side of the rim
        row, column = noise.uniform(0, height), noise.uniform(0, width)
        size = noise.exponential(min(radius, 120) / 14) + 1.5
        away = np.hypot(y - row, x - column) / size
        ground = ground - 22 * (away < 0.9) + 30 * np.exp(-(((away - 1) / 0.18) ** 2)) * (x - column + y - row) / size
    phase = noise.uniform(-1.2, 1.2)
    lit = (
        (x - cx) / radius * np.sign(phase) > -np.sqrt(np.clip(1 - ((y - cy) / radius) ** 2, 0, 1)) * abs(phase)
    ).astype(np.float32)
    shade = (
        np.clip((radius - distance) / 3, 0, 1) * (0.06 + 0.94 * lit) * np.sqrt(np.clip(1.15 - distance / radius, 0, 1))
    )
    tint = np.array([1, noise.uniform(0.85, 1), noise.uniform(0.65, 1)]) * noise.uniform(0.8, 1.4)
    picture = _picture((ground * shade)[..., None] * tint + noise.uniform(0, 14))
    return picture.filter(ImageFilter.GaussianBlur(noise.uniform(0.4, 1.4)))

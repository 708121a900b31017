"""Simulate a phone photo of a flat page: on a surface, at an angle, unevenly lit, slightly blurred and noisy."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

Array = npt.NDArray[np.float32]
Point = tuple[float, float]
SHAPES = ((3, 4), (3, 4), (4, 3), (1, 1), (9, 16))
EDGE = 2  # padding in pixels around a page, so that the warp blends its border


def smooth_noise(noise: np.random.Generator, width: int, height: int, cells: tuple[int, int]) -> Array:
    """Return smooth noise, (height, width) float32 with about unit variance; `cells` sets its grain across and down."""
    coarse = noise.normal(0, 1, (cells[1] + 1, cells[0] + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse, "F").resize((width, height), Image.Resampling.BICUBIC))


def _wood(noise: np.random.Generator, width: int, height: int) -> Array:
    base = np.array([(150, 105, 65), (110, 72, 45), (190, 150, 105), (85, 60, 45), (205, 185, 155)])
    color = base[noise.integers(len(base))] * noise.uniform(0.7, 1.15)
    upright = noise.random() < 0.4
    across, down = (height, width) if upright else (width, height)
    grain = smooth_noise(noise, across, down, (int(noise.integers(2, 5)), int(noise.integers(12, 60))))
    fine = smooth_noise(noise, across, down, (8, max(down // 3, 2)))
    field = 1 + noise.uniform(0.01, 0.08) * grain + noise.uniform(0.0, 0.04) * fine
    # Perfectly straight grain looks like a curtain, so bend it.
    bend = smooth_noise(noise, across, down, (2, 2)) * noise.uniform(0, 14)
    rows = (np.arange(down)[:, None] + bend).astype(np.int64).clip(0, down - 1)
    field = np.take_along_axis(field, rows, axis=0)
    if noise.random() < 0.6:
        planks = np.arange(down) // max(int(down * noise.uniform(0.2, 0.5)), 8)
        field *= (1 + 0.06 * noise.normal(0, 1, planks.max() + 1))[planks][:, None]
        field[1:][np.diff(planks) > 0] *= 0.6
    return ((field.T if upright else field)[..., None] * color).astype(np.float32)


def _cloth(noise: np.random.Generator, width: int, height: int) -> Array:
    color = noise.uniform(40, 220, 3) * 0.5 + noise.uniform(40, 220) * 0.5
    y, x = np.mgrid[0:height, 0:width]
    period = noise.uniform(3, 26)
    weave = np.sign(np.sin(x * 2 * np.pi / period)) + np.sign(np.sin(y * 2 * np.pi / period))
    folds = smooth_noise(noise, width, height, (3, 3))
    return ((1 + noise.uniform(0, 0.06) * weave + 0.08 * folds)[..., None] * color).astype(np.float32)


def _stone(noise: np.random.Generator, width: int, height: int) -> Array:
    gray = noise.uniform(40, 235)
    color = gray + noise.normal(0, 8, 3)
    fine = noise.normal(0, noise.uniform(0.01, 0.07), (height, width))
    clouds = smooth_noise(noise, width, height, (6, 6)) * noise.uniform(0.01, 0.08)
    return ((1 + fine + clouds)[..., None] * color).astype(np.float32)


def surface(
    noise: np.random.Generator, width: int, height: int, backgrounds: Sequence[Image.Image] = ()
) -> Image.Image:
    """Draw the surface under a page: wood, cloth, stone or, in 30 % of cases if given, a blurred part of a photo."""
    if len(backgrounds) and noise.random() < 0.3:
        photo = backgrounds[int(noise.integers(len(backgrounds)))].convert("RGB")
        side = min(photo.size) * noise.uniform(0.3, 0.7)
        left, top = noise.uniform(0, photo.width - side), noise.uniform(0, photo.height - side)
        crop = photo.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        # Blurred, so that the page stays the subject and the photo doesn't add a second label.
        return crop.filter(ImageFilter.GaussianBlur(noise.uniform(2, 7)))
    kind = (_wood, _wood, _cloth, _stone)[int(noise.integers(4))]
    return Image.fromarray(kind(noise, width, height).clip(0, 255).astype(np.uint8))


def _wall(noise: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw a painted wall, bright or in a dark room."""
    gray = noise.uniform(15, 70) if noise.random() < 0.25 else noise.uniform(120, 230)
    color = gray * noise.uniform(0.88, 1.08, 3)
    light = 1 + 0.05 * smooth_noise(noise, width, height, (2, 2)) + noise.normal(0, 0.01, (height, width))
    return Image.fromarray((light[..., None] * color).clip(0, 255).astype(np.uint8))


def _crumple(noise: np.random.Generator, width: int, height: int, strength: float) -> Array:
    """Return the brightness of a folded and creased sheet, (height, width) around 1."""
    field = 1 + 0.03 * smooth_noise(noise, width, height, (2, 3))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(int(noise.integers(0, 3) + strength * 10)):
        angle = noise.choice([0.0, np.pi / 2, noise.uniform(0, np.pi)])
        away = (x - noise.uniform(0, width)) * np.cos(angle) + (y - noise.uniform(0, height)) * np.sin(angle)
        soft = noise.uniform(8, 60)
        field += strength * noise.uniform(-1, 1) * np.exp(-np.abs(away) / soft) * np.sign(away)
    return field.astype(np.float32)


def _corners(
    rng: random.Random, page: tuple[int, int], frame: tuple[int, int], fill: float, askew: float
) -> list[Point]:
    """Return the page's corners, clockwise from top left; `fill` is its share of the frame, `askew` how often it is."""
    width, height = frame
    scale = fill * min(width / page[0], height / page[1])
    half = np.array([page[0] * scale / 2, page[1] * scale / 2])
    angle = np.radians(rng.uniform(-40, 40) if rng.random() < askew else rng.gauss(0, 4))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([width, height]) / 2 + np.array([rng.gauss(0, 0.03) * width, rng.gauss(0, 0.03) * height])
    lean = rng.gauss(0, 0.06), rng.gauss(0, 0.10)
    points = []
    for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        near = 1 + lean[0] * sx + lean[1] * sy
        x, y = turn @ (half * np.array([sx, sy]) * near) + middle
        points.append((float(x), float(y)))
    return points


def _perspective(corners: Sequence[Point], page: tuple[int, int]) -> tuple[float, ...]:
    """Return Pillow's eight coefficients that map a point of the picture to one of the padded page."""
    rows, right = [], []
    ends = ((EDGE, EDGE), (page[0] + EDGE, EDGE), (page[0] + EDGE, page[1] + EDGE), (EDGE, page[1] + EDGE))
    for (x, y), (u, v) in zip(corners, ends, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    solved = np.linalg.solve(np.array(rows, dtype=np.float64), np.array(right, dtype=np.float64))
    return tuple(float(value) for value in solved)


def _thumb(frame: Image.Image, rng: random.Random, corners: Sequence[Point]) -> None:
    """Draw a thumb at the lower edge, because people often hold receipts and tickets."""
    (x1, y1), (x2, y2) = corners[2], corners[3]
    if min(y1, y2) < 0.68 * frame.height:  # a thumb wouldn't reach
        return
    along = rng.uniform(0.2, 0.8)
    tip = np.array([x1 + (x2 - x1) * along, y1 + (y2 - y1) * along - frame.height * 0.08])
    thick = min(frame.size) * rng.uniform(0.09, 0.14)
    skin = np.array([224, 172, 140]) * rng.choice((1.0, 0.85, 0.6, 0.45))
    base = tip + np.array([rng.uniform(-0.2, 0.2), 1.0]) * frame.height
    mask = Image.new("L", frame.size)
    pen = ImageDraw.Draw(mask)
    pen.line([*tip, *base], fill=255, width=int(thick))
    pen.ellipse([*(tip - thick / 2), *(tip + thick / 2)], fill=255)
    shade = mask.filter(ImageFilter.GaussianBlur(thick / 4))
    frame.paste(tuple(int(v * 0.82) for v in skin), mask=mask.filter(ImageFilter.GaussianBlur(0.8)))
    inner = shade.point([0] * 150 + [int((v - 150) * 2.4) for v in range(150, 256)])
    frame.paste(tuple(int(v) for v in skin), mask=inner)
    nail = thick * 0.3
    ImageDraw.Draw(frame).ellipse([*(tip - nail * 1.1), *(tip + nail)], fill=tuple(int(v) for v in skin * 0.9 + 24))


def add_camera_effects(picture: Image.Image, rng: random.Random, noise: np.random.Generator) -> Image.Image:
    """Add uneven light, a color cast, soft focus, sensor noise and JPEG compression."""
    width, height = picture.size
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.choice((0.4, 0.6, 0.9))))
    scene = np.asarray(picture, dtype=np.float32)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.28) * (x * np.cos(angle) + y * np.sin(angle))
    light -= rng.uniform(0, 0.16) * (x * x + y * y) / 2
    if rng.random() < 0.35:  # shadow of the hand and the phone
        edge = x * np.cos(angle) - y * abs(np.sin(angle)) - rng.uniform(-0.6, 0.5)
        light *= 1 - rng.uniform(0.1, 0.4) / (1 + np.exp(edge * rng.uniform(6, 40)))
    warm = rng.gauss(0.02, 0.06)
    cast = np.array([1 + warm, 1 + rng.gauss(0, 0.01), 1 - warm * 1.3], dtype=np.float32)
    scene = scene * light[..., None] * cast * rng.uniform(0.72, 1.1)
    scene += noise.normal(0, rng.uniform(0.5, 6), scene.shape).astype(np.float32)
    return compress(Image.fromarray(scene.clip(0, 255).astype(np.uint8)), rng.randint(45, 92))


def compress(picture: Image.Image, quality: int) -> Image.Image:
    """Encode a picture as JPEG with this quality and decode it again."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def frame_size(rng: random.Random, shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Draw a width and height for a picture; the shorter side is 256 to 320 pixels."""
    across, down = rng.choice(shapes)
    short = rng.randint(256, 320)
    unit = short / min(across, down)
    return round(across * unit), round(down * unit)


def photograph(
    page: Image.Image,
    rng: random.Random,
    backgrounds: Sequence[Image.Image] = (),
    *,
    crumple: float = 0.03,
    held: float = 0.1,
    far: float = 0.3,
    hung: bool = False,
) -> Image.Image:
    """Render a photo of a page that lies on a surface or hangs on a wall.

    Args:
        page: the flat page, RGB, of any size.
        rng: source of every random choice.
        backgrounds: photos that the surface may be cut from; without them, it is drawn.
        crumple: how strongly folds change the paper's brightness (0 = board, 0.08 = crumpled in a pocket).
        held: chance that a thumb holds the page.
        far: chance that the page is small in the picture; otherwise it fills the picture or exceeds its edges.
        hung: on a wall and nearly straight (board, projection, screen), instead of on a table.

    Returns:
        RGB picture; the shorter side is 256 to 320 pixels.
    """
    noise = np.random.default_rng(rng.getrandbits(64))
    frame = frame_size(rng, ((4, 3), (4, 3), (3, 4), (1, 1), (16, 9)) if hung else SHAPES)
    draw = rng.random()
    fill = rng.uniform(0.45, 0.7) if draw < far else rng.uniform(0.75, 0.98) if draw < 0.85 else rng.uniform(1.1, 1.6)
    corners = _corners(rng, page.size, frame, fill, 0.0 if hung else 0.2)
    side = max(abs(corners[1][0] - corners[0][0]) + abs(corners[1][1] - corners[0][1]), 40.0)
    if page.width > side * 1.3:  # the warp doesn't filter, and small print would turn to noise
        page = page.resize((round(side * 1.15), round(page.height * side * 1.15 / page.width)), Image.Resampling.BOX)
    lit = np.asarray(page, dtype=np.float32) * _crumple(noise, *page.size, crumple)[..., None]
    sheet = Image.fromarray(np.pad(lit.clip(0, 255).astype(np.uint8), ((EDGE, EDGE), (EDGE, EDGE), (0, 0)), "edge"))
    cover = ImageOps.expand(Image.new("L", page.size, 255), EDGE, 0)
    back = _perspective(corners, page.size)
    warped = sheet.transform(frame, Image.Transform.PERSPECTIVE, back, Image.Resampling.BICUBIC)
    mask = cover.transform(frame, Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR)
    picture = _wall(noise, *frame) if hung else surface(noise, *frame, backgrounds)
    shift = rng.uniform(-5, 5), rng.uniform(0, 6)
    shadow = mask.transform(frame, Image.Transform.AFFINE, (1, 0, -shift[0], 0, 1, -shift[1]))
    dark = shadow.filter(ImageFilter.GaussianBlur(rng.uniform(2, 6))).point([round(v * 0.5) for v in range(256)])
    picture.paste((0, 0, 0), mask=dark)
    picture.paste(warped, mask=mask)
    if rng.random() < held:
        _thumb(picture, rng, corners)
    return add_camera_effects(picture, rng, noise)

"""Charts, slides, tables and source code, as on a computer screen."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

from PIL import Image, ImageDraw

from distill.render import text
from distill.render.cards import BRIGHT, WHITE, abstract_picture
from distill.render.paper import BLACK
from distill.render.text import Color, column, draw_centered, font

Box = tuple[float, float, float, float]
SERIES: tuple[tuple[Color, ...], ...] = (
    ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75)),
    ((66, 133, 244), (219, 68, 55), (244, 180, 0), (15, 157, 88), (171, 71, 188), (0, 172, 193)),
    ((38, 70, 83), (42, 157, 143), (233, 196, 106), (244, 162, 97), (231, 111, 81), (120, 80, 90)),
    ((20, 40, 80), (50, 90, 150), (100, 140, 200), (150, 180, 220), (190, 210, 235), (120, 130, 150)),
)


def _axes(draw: ImageDraw.ImageDraw, rng: random.Random, box: Box, ink: Color, names: Sequence[str]) -> None:
    left, top, right, bottom = box
    small = font("sans", 13)
    top_value = rng.choice((5, 10, 40, 100, 500, 2000))
    grid: Color = (215, 218, 222) if sum(ink) < 400 else (70, 74, 80)
    for tick in range(6):
        y = bottom - (bottom - top) * tick / 5
        if rng.random() < 0.9:
            draw.line((left, y, right, y), fill=grid)
        draw.text((left - 8, y), f"{top_value * tick / 5:g}", font=small, fill=ink, anchor="rm")
    for index, name in enumerate(names):
        draw.text(
            (left + (right - left) * (index + 0.5) / len(names), bottom + 6),
            name,
            font=small,
            fill=ink,
            anchor="ma",
        )
    draw.line((left, top, left, bottom, right, bottom), fill=ink, width=2)


def _bars(draw: ImageDraw.ImageDraw, rng: random.Random, box: Box, colors: Sequence[Color], ink: Color) -> None:
    count, series = rng.randint(3, 12), rng.choice((1, 1, 2, 3))
    _axes(draw, rng, box, ink, [rng.choice(text.MONTHS)[:3] for _ in range(count)])
    slot = (box[2] - box[0]) / count
    for index in range(count):
        for serial in range(series):
            wide = slot * 0.7 / series
            x = box[0] + slot * (index + 0.15) + serial * wide
            y = box[3] - (box[3] - box[1]) * rng.uniform(0.08, 0.95)
            draw.rectangle((x, y, x + wide - 1, box[3]), fill=colors[serial])


def _lines(draw: ImageDraw.ImageDraw, rng: random.Random, box: Box, colors: Sequence[Color], ink: Color) -> None:
    _axes(draw, rng, box, ink, [str(2015 + year) for year in range(rng.randint(4, 8))])
    count, scatter = rng.randint(6, 40), rng.random() < 0.25
    for serial in range(rng.randint(1, 4)):
        value, drift, points = rng.uniform(0.2, 0.7), rng.gauss(0, 0.02), []
        for index in range(count):
            value = min(max(value + drift + rng.gauss(0, 0.06), 0.02), 0.98)
            points.append((box[0] + (box[2] - box[0]) * index / (count - 1), box[3] - (box[3] - box[1]) * value))
        if scatter:
            for x, y in points:
                x, y = x + rng.gauss(0, 6), y + rng.gauss(0, 20)
                draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colors[serial])
        else:
            draw.line(points, fill=colors[serial], width=rng.choice((2, 3, 4)), joint="curve")


def _pie(draw: ImageDraw.ImageDraw, rng: random.Random, box: Box, colors: Sequence[Color], ink: Color) -> None:
    radius = min(box[2] - box[0], box[3] - box[1]) * 0.46
    x, y = box[0] + radius + 10, (box[1] + box[3]) / 2
    shares = [rng.uniform(0.5, 3) for _ in range(rng.randint(3, 6))]
    angle = -90.0
    for index, share in enumerate(shares):
        end = angle + 360 * share / sum(shares)
        draw.pieslice((x - radius, y - radius, x + radius, y + radius), angle, end, fill=colors[index], outline=WHITE)
        middle = math.radians((angle + end) / 2)
        spot = x + math.cos(middle) * radius * 0.65, y + math.sin(middle) * radius * 0.65
        draw.text(spot, f"{100 * share / sum(shares):.0f}%", font=font("sans", 15, True), fill=WHITE, anchor="mm")
        row = box[1] + 20 + index * 30
        draw.rectangle((x + radius + 40, row, x + radius + 56, row + 16), fill=colors[index])
        draw.text((x + radius + 66, row - 1), rng.choice(text.WORDS).capitalize(), font=font("sans", 16), fill=ink)
        angle = end


def plot(draw: ImageDraw.ImageDraw, rng: random.Random, box: Box, ink: Color) -> None:
    """Draw a bar, line, scatter or pie chart into the box (left, top, right, bottom)."""
    colors = rng.choice(SERIES[:2] if sum(ink) > 400 else SERIES)  # muted colors vanish on a dark background
    rng.choice((_bars, _lines, _lines, _pie))(draw, rng, box, colors, ink)


def chart(rng: random.Random) -> Image.Image:
    """A chart with a title, as in a report or a phone app."""
    width, height = rng.choice(((640, 480), (600, 600), (720, 440), (480, 640)))
    dark = rng.random() < 0.2
    ink: Color = (225, 228, 232) if dark else (45, 48, 54)
    image = Image.new("RGB", (width, height), rng.choice(((24, 26, 32), (12, 20, 40))) if dark else (255, 255, 255))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.85:
        draw_centered(
            draw,
            width / 2,
            18,
            text.phrase(rng, 2, 5),
            font(rng.choice(("sans", "sans", "serif")), 24, rng.random() < 0.6),
            ink,
        )
    plot(draw, rng, (74, 74, width - 34, height - 60), ink)
    if rng.random() < 0.5:
        draw_centered(draw, width / 2, height - 28, text.phrase(rng, 1, 2), font("sans", 15), ink)
    return image


def slide(rng: random.Random) -> Image.Image:
    """A presentation slide: title and bullets, a chart or a picture."""
    width, height = rng.choice(((720, 405), (640, 480)))
    dark = rng.random() < 0.35
    ground: Color = rng.choice(((22, 34, 66), (30, 30, 34), (16, 70, 90))) if dark else (255, 255, 255)
    ink: Color = (240, 240, 245) if dark else (40, 42, 50)
    accent: Color = (250, 190, 70) if dark else rng.choice(BRIGHT)
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    family = rng.choice(("sans", "light", "serif"))
    if rng.random() < 0.15:
        column(
            draw,
            (60, height * 0.3, width - 60, height),
            text.phrase(rng, 3, 6),
            font(family, 44, True),
            accent,
            1.2,
        )
        draw.text((60, height * 0.75), f"{text.person(rng)}  {text.date(rng)}", font=font(family, 20), fill=ink)
        return image
    if rng.random() < 0.4:
        draw.rectangle((0, 0, width, 70), fill=accent)
        draw.text((36, 18), text.phrase(rng, 2, 4), font=font(family, 30, True), fill=WHITE if not dark else BLACK)
    else:
        draw.text((36, 22), text.phrase(rng, 2, 5), font=font(family, 32, True), fill=accent)
    half = rng.random() < 0.5
    y, right = 100.0, width * (0.52 if half else 0.92)
    for _ in range(rng.randint(3, 6)):
        if y > height - 60:
            break
        draw.ellipse((42, y + 8, 51, y + 17), fill=accent)
        y = (
            column(
                draw,
                (66, y, right, height - 30),
                text.phrase(rng, 3, 8 if half else 11),
                font(family, rng.choice((19, 21, 23))),
                ink,
            )
            + 12
        )
    if half and rng.random() < 0.6:
        plot(draw, rng, (width * 0.6, 110, width - 30, height - 60), ink)
    elif half:
        image.paste(abstract_picture(rng, round(width * 0.36), round(height * 0.5)), (round(width * 0.58), 110))
    draw.text((width - 16, height - 22), str(rng.randint(1, 60)), font=font(family, 13), fill=ink, anchor="ra")
    return image


def table(rng: random.Random) -> Image.Image:
    """A spreadsheet or timetable with column headings and ruled rows."""
    columns, rows, tall = rng.randint(4, 9), rng.randint(9, 22), rng.choice((22, 26))
    first, rest = rng.randint(90, 150), rng.randint(62, 90)
    width, top = 30 + first + rest * columns, rng.choice((0, 46, 70))
    image = Image.new("RGB", (width, top + tall * (rows + 1)), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    accent: Color = rng.choice(((33, 115, 70), (60, 90, 150), (90, 90, 95), (200, 120, 40)))
    face, bold = font("sans", 13), font("sans", 13, True)
    if top:
        draw.rectangle((0, 0, width, top), fill=accent if rng.random() < 0.6 else (238, 239, 241))
        draw.text(
            (14, 10),
            text.phrase(rng, 1, 3),
            font=font("sans", 20, True),
            fill=(250, 250, 250) if image.getpixel((2, 2)) == accent else accent,
        )
    sheet, times = rng.random() < 0.6, rng.random() < 0.25
    edges = [0, 30, *(30 + first + rest * index for index in range(columns + 1))]
    for row in range(rows + 1):
        y = top + row * tall
        if row == 0 or (row % 2 == 0 and not sheet):
            draw.rectangle((0, y, width, y + tall), fill=(228, 231, 235) if row == 0 else (244, 246, 248))
        draw.text((15, y + 4), str(row) if row else "", font=face, fill=(120, 120, 125), anchor="ma")
        for index, (left, right) in enumerate(pairwise(edges[1:])):
            if row == 0:
                draw.text(
                    ((left + right) / 2, y + 4),
                    "ABCDEFGHIJ"[index] if sheet else rng.choice(text.WORDS)[:6].capitalize(),
                    font=bold,
                    fill=(70, 70, 75),
                    anchor="ma",
                )
            elif index == 0:
                draw.text(
                    (left + 6, y + 4),
                    rng.choice(text.WORDS + text.LAST).capitalize()[:13],
                    font=face,
                    fill=BLACK,
                )
            elif rng.random() < 0.9:
                draw.text(
                    (right - 6, y + 4),
                    text.clock(rng) if times else f"{rng.uniform(0, 9999):.{rng.choice((0, 2))}f}",
                    font=face,
                    fill=BLACK,
                    anchor="ra",
                )
        draw.line((0, y, width, y), fill=(205, 208, 212))
    for x in edges:
        draw.line((x, top, x, image.height), fill=(205, 208, 212))
    return image


TOKENS = (
    "def",
    "return",
    "if",
    "for",
    "self",
    "= 0",
    "()",
    "[i]",
    "{",
    "}",
    "+=",
    "# note",
    '"text"',
    *text.WORDS[:150],
)
HUES: tuple[Color, ...] = (
    (86, 156, 214), (206, 145, 120), (197, 134, 192), (106, 153, 85), (220, 220, 170), (78, 201, 176),
)  # fmt: skip


def _title_bar(draw: ImageDraw.ImageDraw, rng: random.Random, width: int, dark: bool, ink: Color) -> None:
    draw.rectangle((0, 0, width, 30), fill=(60, 60, 64) if dark else (225, 225, 228))
    for index, dot in enumerate(((255, 95, 86), (255, 189, 46), (39, 201, 63))):
        draw.ellipse((12 + index * 20, 9, 24 + index * 20, 21), fill=dot)
    name = f"{rng.choice(text.WORDS)}.{rng.choice(('py', 'js', 'rs', 'c'))}"
    draw_centered(draw, width / 2, 7, name, font("sans", 13), ink)


def code(rng: random.Random) -> Image.Image:
    """An editor or terminal with indented, colored lines in a monospaced font."""
    sizes = ((720, 450), (640, 480), (760, 430), (720, 450), (640, 480), (360, 700))
    width, height = rng.choice(sizes)
    dark = rng.random() < 0.75
    night = ((30, 30, 30), (40, 42, 54), (0, 43, 54), (12, 12, 12))
    image = Image.new("RGB", (width, height), rng.choice(night) if dark else (253, 253, 250))
    draw = ImageDraw.Draw(image)
    plain: Color = (212, 212, 212) if dark else (40, 40, 40)
    hues = HUES if dark else tuple((r // 2, g // 2, b // 2) for r, g, b in HUES)
    face, step = font("mono", rng.choice((13, 14, 16))), rng.choice((19, 21))
    top = 30 if rng.random() < 0.7 else 0
    if top:
        _title_bar(draw, rng, width, dark, plain)
    indent, gutter = 0, rng.random() < 0.7
    for number, y in enumerate(range(top + 8, height - step, step)):
        if gutter:
            draw.text((36, y), str(number + 1), font=face, fill=(120, 124, 130), anchor="ra")
        indent = max(0, min(5, indent + rng.choice((-1, 0, 0, 0, 1))))
        x = (50 if gutter else 14) + indent * 28.0
        for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 6, 6))):
            token = rng.choice(TOKENS)
            draw.text((x, y), token, font=face, fill=rng.choice((*hues, plain, plain)))
            x += face.getlength(token + rng.choice((" ", " ", ".", "(")))
            if x > width - 60:
                break
    return image

"""Maps, calendars, QR posters and memes."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw

from distill.render import text
from distill.render.cards import BRIGHT, WHITE
from distill.render.paper import BLACK, qr_code
from distill.render.text import Color, draw_centered, font


def street_map(rng: random.Random, width: int, height: int) -> Image.Image:
    """A town map with parks, a river, and small and large roads with names."""
    ground, minor, major, green, blue = rng.choice(
        (
            ((242, 239, 233), (255, 255, 255), (250, 205, 110), (200, 230, 180), (165, 208, 238)),
            ((232, 234, 237), (255, 255, 255), (255, 225, 140), (197, 232, 197), (156, 192, 249)),
            ((36, 47, 62), (56, 65, 78), (116, 104, 85), (38, 60, 63), (23, 38, 60)),
            ((245, 240, 225), (225, 215, 200), (215, 110, 90), (205, 225, 170), (170, 205, 225)),
        )
    )
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 4)):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.1, 0.25) * width
        draw.polygon(
            [
                (x + r * math.cos(a) * rng.uniform(0.6, 1.2), y + r * math.sin(a) * rng.uniform(0.6, 1.2))
                for a in (0, 0.9, 1.8, 2.8, 3.7, 4.6, 5.5)
            ],
            fill=green,
        )
    tilt, pitch = rng.uniform(-0.5, 0.5), rng.randint(34, 70)
    reach = width + height
    ink: Color = (90, 90, 95) if sum(ground) > 400 else (170, 175, 185)
    if rng.random() < 0.7:
        bend, phase = rng.uniform(20, 90), rng.uniform(0, 6)
        base = rng.uniform(0.2, 0.8) * height
        river = [(x, base + bend * math.sin(x / 130 + phase)) for x in range(-40, width + 60, 20)]
        draw.line(river, fill=blue, width=rng.randint(18, 60), joint="curve")
    for turn in (tilt, tilt + math.pi / 2 + rng.uniform(-0.1, 0.1)):
        dx, dy = math.cos(turn), math.sin(turn)
        for offset in range(-reach, reach, pitch):
            shift = offset + rng.uniform(-10, 10)
            x, y = width / 2 - dy * shift, height / 2 + dx * shift
            if rng.random() < 0.85:
                big = rng.random() < 0.14
                ends = rng.uniform(0.1, 1) * reach, rng.uniform(0.1, 1) * reach
                draw.line(
                    (x - dx * ends[0], y - dy * ends[0], x + dx * ends[1], y + dy * ends[1]),
                    fill=major if big else minor,
                    width=11 if big else 5,
                )
    for _ in range(rng.randint(5, 14)):
        name = f"{rng.choice(text.STREETS)} {rng.choice(('Street', 'Road', 'Park', 'Square'))}"
        draw.text(
            (rng.uniform(0, width - 60), rng.uniform(0, height)),
            name,
            font=font("sans", rng.choice((11, 12, 14)), rng.random() < 0.3),
            fill=ink,
        )
    return image


def town_map(rng: random.Random) -> Image.Image:
    """A printed map of a town, or sometimes of a country."""
    width, height = rng.choice(((640, 480), (560, 560), (480, 640)))
    if rng.random() < 0.7:
        return street_map(rng, width, height)
    image = Image.new("RGB", (width, height), rng.choice(((170, 211, 238), (196, 222, 240), (120, 170, 210))))
    draw = ImageDraw.Draw(image)
    colors = rng.sample(
        (
            (244, 226, 176),
            (205, 228, 180),
            (246, 200, 180),
            (222, 205, 232),
            (250, 240, 160),
            (190, 220, 210),
        ),
        5,
    )
    for color in colors:
        x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
        shore = [
            (
                x + math.cos(a / 12 * math.tau) * rng.uniform(70, 190),
                y + math.sin(a / 12 * math.tau) * rng.uniform(70, 170),
            )
            for a in range(12)
        ]
        draw.polygon(shore, fill=color, outline=(130, 110, 110))
        draw.text(
            (x, y),
            rng.choice(text.TOWNS).upper(),
            font=font("sans", 18, True),
            fill=(70, 60, 60),
            anchor="mm",
        )
        for _ in range(4):
            spot = x + rng.gauss(0, 60), y + rng.gauss(0, 50)
            draw.ellipse((spot[0] - 3, spot[1] - 3, spot[0] + 3, spot[1] + 3), fill=(40, 40, 40))
            draw.text((spot[0] + 6, spot[1] - 7), rng.choice(text.TOWNS), font=font("serif", 14), fill=(50, 50, 50))
    return image


def calendar(rng: random.Random) -> Image.Image:
    """One month as a grid of days, with a few entries."""
    width, height = rng.choice(((560, 520), (420, 640), (600, 440)))
    dark, accent = rng.random() < 0.2, rng.choice(BRIGHT)
    ink: Color = (230, 230, 235) if dark else (35, 35, 40)
    image = Image.new("RGB", (width, height), (22, 22, 26) if dark else (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.text(
        (24, 18),
        f"{rng.choice(text.MONTHS)} {rng.randint(2012, 2027)}",
        font=font(rng.choice(("sans", "serif")), 32, True),
        fill=accent,
    )
    cell, down, lined = (width - 40) / 7, (height - 110) / 6, rng.random() < 0.6
    for index, name in enumerate(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")):
        draw.text((20 + cell * (index + 0.5), 72), name, font=font("sans", 14, True), fill=ink, anchor="ma")
    first, days, today = rng.randint(0, 6), rng.randint(28, 31), rng.randint(1, 28)
    for day in range(1, days + 1):
        x, y = 20 + cell * ((first + day - 1) % 7), 98 + down * ((first + day - 1) // 7)
        if lined:
            draw.rectangle((x, y, x + cell, y + down), outline=(150, 152, 158))
        if day == today:
            draw.ellipse((x + 2, y + 2, x + 32, y + 32), fill=accent)
        draw.text(
            (x + 17, y + 17),
            str(day),
            font=font("sans", 17),
            fill=WHITE if day == today else ink,
            anchor="mm",
        )
        if rng.random() < 0.25:
            draw.rectangle((x + 4, y + down - 22, x + cell - 4, y + down - 6), fill=rng.choice(BRIGHT))
            draw.text((x + 8, y + down - 21), rng.choice(text.TODO)[:7], font=font("sans", 11), fill=WHITE)
    return image


def qr_poster(rng: random.Random) -> Image.Image:
    """A QR code on a white or colored background, with a few words."""
    width, height = rng.choice(((420, 420), (420, 560), (460, 500)))
    ground: Color = rng.choice((WHITE, WHITE, (245, 245, 245), rng.choice(BRIGHT)))
    image = Image.new("RGB", (width, height), ground)
    ink: Color = BLACK if sum(ground) > 480 else WHITE
    size = rng.randint(260, 380)
    code_ink: Color = rng.choice((BLACK, BLACK, BLACK, (20, 40, 110)))
    image.paste(qr_code(rng, size, code_ink), ((width - size) // 2, 20 if height == 420 else 70))
    if height > 420:
        draw_centered(
            ImageDraw.Draw(image),
            width / 2,
            18,
            rng.choice(("SCAN ME", "Scan to pay", "Menu", "Wi-Fi", "Follow us", "Check in")),
            font("sans", 34, True),
            ink,
        )
        draw_centered(ImageDraw.Draw(image), width / 2, height - 50, text.phrase(rng, 2, 4), font("sans", 20), ink)
    return image


def meme(rng: random.Random, photo: Image.Image) -> Image.Image:
    """A photo with large outlined text at top and bottom, or with a joke above it on white."""
    side = 420
    scale = side / min(photo.size)
    base = photo.convert("RGB").resize(
        (round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BILINEAR
    )
    left = (base.width - side) // 2
    base = base.crop((left, 0, left + side, min(base.height, 520)))
    if rng.random() < 0.3:
        lines = text.wrap(text.phrase(rng, 6, 14), font("sans", 26), side - 30)
        band = len(lines) * 34 + 24
        page = Image.new("RGB", (side, base.height + band), WHITE)
        page.paste(base, (0, band))
        for row, line in enumerate(lines):
            ImageDraw.Draw(page).text((15, 10 + row * 34), line, font=font("sans", 26), fill=(10, 10, 10))
        return page
    draw = ImageDraw.Draw(base)
    size = rng.randint(34, 48)
    face = font("sans", size, True)
    for high in (True, False):
        lines = text.wrap(text.phrase(rng, 2, 5).upper(), face, side - 20)[:2]
        for row, line in enumerate(lines):
            y = 10 + row * size * 1.1 if high else base.height - 14 - (len(lines) - row) * size * 1.1
            draw.text((side / 2, y), line, font=face, fill=WHITE, anchor="ma", stroke_width=3, stroke_fill=(0, 0, 0))
    return base

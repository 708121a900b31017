"""Phone screenshots: chat, settings, map, browser, mail, home screen, feed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from distill.render import text
from distill.render.cards import BRIGHT, abstract_picture
from distill.render.graphics import street_map
from distill.render.text import Color, column, font

Photos = Sequence[Image.Image]


@dataclass(frozen=True)
class Screen:
    """A phone screen with its drawing context and colors."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    ink: Color
    soft: Color
    panel: Color
    accent: Color

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.image.height

    def write(
        self,
        x: float,
        y: float,
        words: str,
        size: int,
        ink: Color | None = None,
        bold: bool = False,
        anchor: str = "la",
    ) -> None:
        """Write a line in the system font."""
        self.draw.text((x, y), words, font=font("sans", size, bold), fill=ink or self.ink, anchor=anchor)


def blank_screen(rng: random.Random, dark: float = 0.3) -> Screen:
    """Return an empty phone screen, dark or light, with a status bar."""
    width, height = 360, rng.choice((640, 720, 760, 780))
    if rng.random() < dark:
        ground, ink, soft, panel = (
            rng.choice(((0, 0, 0), (18, 18, 22), (24, 30, 38))),
            (238, 238, 240),
            (150, 150, 156),
            (44, 46, 52),
        )
    else:
        ground, ink, soft, panel = (
            rng.choice(((255, 255, 255), (246, 246, 250))),
            (20, 20, 24),
            (130, 132, 140),
            (232, 234, 238),
        )
    image = Image.new("RGB", (width, height), ground)
    phone = Screen(image, ImageDraw.Draw(image), ink, soft, panel, rng.choice(BRIGHT))
    draw_status_bar(phone, rng, ink)
    return phone


def draw_status_bar(phone: Screen, rng: random.Random, ink: Color) -> None:
    """Draw clock, signal and battery along the top edge."""
    phone.write(22, 10, text.clock(rng), 14, ink, True)
    for bar in range(4):
        phone.draw.rectangle((270 + bar * 6, 22 - bar * 3, 273 + bar * 6, 24), fill=ink)
    phone.draw.rounded_rectangle((312, 12, 338, 24), 3, outline=ink)
    phone.draw.rectangle((314, 14, 314 + rng.randint(3, 22), 22), fill=ink)


def photo_or_drawing(rng: random.Random, width: int, height: int, photos: Photos) -> Image.Image:
    """Return a photo cropped to this size, or a simple drawing if no photos are given."""
    if not len(photos):
        return abstract_picture(rng, width, height)
    photo = photos[rng.randrange(len(photos))].convert("RGB")
    scale = max(width / photo.width, height / photo.height)
    across, down = width / scale, height / scale
    left, top = rng.uniform(0, photo.width - across), rng.uniform(0, photo.height - down)
    return photo.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + across, top + down))


def draw_avatar(phone: Screen, rng: random.Random, x: float, y: float, size: int) -> None:
    """Draw a round contact picture with an initial."""
    phone.draw.ellipse((x, y, x + size, y + size), fill=rng.choice(BRIGHT))
    phone.write(x + size / 2, y + size / 2, rng.choice(text.FIRST)[0], size // 2, (255, 255, 255), True, "mm")


def chat(rng: random.Random, photos: Photos) -> Image.Image:
    """A conversation in a messenger: bubbles left and right, a header with a name, an input field."""
    phone = blank_screen(rng)
    mine: Color = rng.choice(((0, 122, 255), (52, 199, 89), (220, 248, 198), (110, 70, 220), (0, 92, 75)))
    my_ink: Color = (20, 20, 20) if sum(mine) > 480 else (255, 255, 255)
    phone.draw.rectangle((0, 36, 360, 92), fill=phone.panel)
    draw_avatar(phone, rng, 44, 44, 40)
    phone.write(16, 52, "<", 20, phone.accent, True)
    phone.write(96, 48, text.person(rng), 16, None, True)
    phone.write(96, 70, rng.choice(("online", "last seen 12:04", "typing...", "today")), 12, phone.soft)
    y, face = 104.0, font("sans", 15)
    while y < phone.height - 90:
        right = rng.random() < 0.5
        if rng.random() < 0.1 and phone.height - y > 260:
            phone.image.paste(photo_or_drawing(rng, 200, 150, photos), (148 if right else 12, round(y)))
            y += 160
            continue
        lines = text.wrap(text.phrase(rng, 1, 14) + rng.choice(("", "!", "?", " :)", ".")), face, 220)
        wide, tall = max(face.getlength(line) for line in lines) + 24, len(lines) * 20 + 14
        if y + tall > phone.height - 64:
            break
        left = phone.width - 12 - wide if right else 12
        phone.draw.rounded_rectangle((left, y, left + wide, y + tall), 14, fill=mine if right else phone.panel)
        for row, line in enumerate(lines):
            phone.write(left + 12, y + 6 + row * 20, line, 15, my_ink if right else phone.ink)
        y += tall + rng.choice((4, 4, 14))
    phone.draw.rounded_rectangle((44, phone.height - 50, 310, phone.height - 14), 18, outline=phone.soft)
    phone.write(60, phone.height - 42, "Message", 14, phone.soft)
    phone.draw.ellipse((318, phone.height - 50, 352, phone.height - 16), fill=mine)
    return phone.image


def settings(rng: random.Random, photos: Photos) -> Image.Image:
    """A list of settings with colored icons, switches and arrows."""
    phone = blank_screen(rng)
    phone.write(
        20,
        48,
        rng.choice(("Settings", "Account", "Privacy", "Network", "Display", "Notifications")),
        26,
        None,
        True,
    )
    y = 100
    while y < phone.height - 60:
        if rng.random() < 0.18:
            y += 22
            phone.write(22, y, text.phrase(rng, 1, 2).upper(), 11, phone.soft)
            y += 22
        phone.draw.rectangle((0, y, 360, y + 51), fill=phone.panel if rng.random() < 0.9 else None)
        phone.draw.rounded_rectangle((18, y + 10, 48, y + 40), 8, fill=rng.choice(BRIGHT))
        phone.write(64, y + 8, text.phrase(rng, 1, 2), 15)
        phone.write(64, y + 29, text.phrase(rng, 2, 4)[:30], 11, phone.soft)
        if rng.random() < 0.45:
            on = rng.random() < 0.5
            phone.draw.rounded_rectangle((296, y + 13, 342, y + 38), 12, fill=(52, 199, 89) if on else phone.soft)
            x = 318 if on else 298
            phone.draw.ellipse((x, y + 15, x + 21, y + 36), fill=(255, 255, 255))
        else:
            phone.write(340, y + 16, ">", 16, phone.soft, anchor="ra")
        y += 52
    return phone.image


def maps(rng: random.Random, photos: Photos) -> Image.Image:
    """A map app: streets, a route or a pin, a search field, a panel at the bottom."""
    phone = blank_screen(rng, 0.1)
    phone.image.paste(street_map(rng, phone.width, phone.height), (0, 0))
    draw = phone.draw
    points = [(rng.uniform(60, 300), phone.height * rng.uniform(0.2, 0.7)) for _ in range(2)]
    if rng.random() < 0.6:
        (x0, y0), (x1, y1) = points
        draw.line((x0, y0, x0, y1, x1, y1), fill=(60, 120, 245), width=8, joint="curve")
        draw.ellipse((x0 - 9, y0 - 9, x0 + 9, y0 + 9), fill=(60, 120, 245), outline=(255, 255, 255), width=3)
    x, y = points[1]
    draw.ellipse((x - 14, y - 42, x + 14, y - 14), fill=(230, 60, 50))
    draw.polygon((x - 12, y - 22, x + 12, y - 22, x, y), fill=(230, 60, 50))
    draw.ellipse((x - 5, y - 33, x + 5, y - 23), fill=(120, 20, 20))
    draw.rounded_rectangle((16, 44, 344, 88), 20, fill=(255, 255, 255), outline=(200, 200, 205))
    phone.write(38, 56, f"{rng.choice(text.STREETS)} Street", 15, (60, 60, 70))
    foot = phone.height - rng.randint(90, 170)
    draw.rounded_rectangle((0, foot, 360, phone.height + 20), 18, fill=(255, 255, 255))
    phone.write(24, foot + 20, f"{rng.randint(3, 58)} min ({rng.randint(1, 40)} km)", 21, (20, 130, 60), True)
    phone.write(24, foot + 50, text.phrase(rng, 2, 4), 13, (110, 110, 120))
    draw_status_bar(phone, rng, (20, 20, 24))
    return phone.image


def browser(rng: random.Random, photos: Photos) -> Image.Image:
    """A web page in a browser: address bar, headline, pictures, paragraphs, links."""
    phone = blank_screen(rng, 0.15)
    phone.draw.rectangle((0, 36, 360, 84), fill=phone.panel)
    phone.draw.rounded_rectangle((16, 42, 300, 78), 16, fill=phone.image.getpixel((2, 2)))
    phone.write(34, 52, f"{rng.choice(text.WORDS)}-{rng.choice(text.WORDS)}.com", 13, phone.soft)
    y = 84.0
    if rng.random() < 0.6:
        phone.draw.rectangle((0, y, 360, y + 46), fill=phone.accent)
        phone.write(18, y + 12, rng.choice(text.SHOPS).title(), 18, (255, 255, 255), True)
        y += 50
    y = column(
        phone.draw,
        (18, y + 12, 344, 400),
        text.phrase(rng, 4, 9),
        font(rng.choice(("sans", "serif")), 24, True),
        phone.ink,
        1.2,
    )
    face = font(rng.choice(("sans", "serif")), 15)
    while y < phone.height - 60:
        if rng.random() < 0.5:
            tall = rng.randint(120, 210)
            phone.image.paste(photo_or_drawing(rng, 324, tall, photos), (18, round(y + 12)))
            y += tall + 16
        ink = phone.ink if rng.random() < 0.85 else (40, 90, 200)
        y = (
            column(
                phone.draw,
                (18, y + 10, 344, phone.height - 20),
                text.paragraph(rng, rng.randint(2, 5)),
                face,
                ink,
            )
            + 6
        )
    return phone.image


def mail(rng: random.Random, photos: Photos) -> Image.Image:
    """An inbox or an open email."""
    phone = blank_screen(rng)
    y = 96.0
    if rng.random() < 0.55:
        phone.write(20, 50, "Inbox", 28, None, True)
        while y < phone.height - 30:
            draw_avatar(phone, rng, 14, y + 6, 42)
            phone.write(68, y + 4, text.person(rng), 15, None, rng.random() < 0.5)
            phone.write(346, y + 6, text.clock(rng), 11, phone.soft, anchor="ra")
            phone.write(68, y + 24, text.phrase(rng, 2, 5)[:34], 13)
            phone.write(68, y + 42, text.phrase(rng, 6, 9)[:40], 12, phone.soft)
            phone.draw.line((68, y + 63, 360, y + 63), fill=phone.panel)
            y += 66
        return phone.image
    y = column(phone.draw, (18, 56, 344, 150), text.phrase(rng, 3, 7), font("sans", 20, True), phone.ink)
    draw_avatar(phone, rng, 18, y + 10, 42)
    phone.write(72, y + 12, text.person(rng), 15, None, True)
    phone.write(72, y + 33, "to me", 12, phone.soft)
    y += 74
    for _ in range(rng.randint(2, 5)):
        y = (
            column(phone.draw, (18, y, 344, phone.height - 80), text.paragraph(rng, 3), font("sans", 15), phone.ink)
            + 16
        )
    for x in (18, 190):
        phone.draw.rounded_rectangle((x, phone.height - 56, x + 150, phone.height - 18), 18, outline=phone.soft)
        phone.write(x + 75, phone.height - 37, "Reply" if x < 100 else "Forward", 14, anchor="mm")
    return phone.image


def home(rng: random.Random, photos: Photos) -> Image.Image:
    """A home screen: wallpaper, rows of app icons with names, a dock."""
    phone = blank_screen(rng)
    phone.image.paste(photo_or_drawing(rng, phone.width, phone.height, photos), (0, 0))
    draw_status_bar(phone, rng, (255, 255, 255))
    columns, size = rng.choice((4, 4, 5)), 52
    pitch = phone.width / columns
    rows = rng.randint(3, 6)
    first = phone.height - 150 - rows * 88 if rng.random() < 0.5 else 60
    if first > 180:
        phone.write(180, 90, text.clock(rng), 60, (255, 255, 255), anchor="ma")
    spots = [
        (column_number * pitch + (pitch - size) / 2, max(first, 50) + row * 88)
        for row in range(rows)
        for column_number in range(columns)
    ]
    phone.draw.rounded_rectangle((10, phone.height - 96, 350, phone.height - 12), 26, fill=phone.panel)
    dock = [(index * pitch + (pitch - size) / 2, phone.height - 80) for index in range(columns)]
    for index, (x, y) in enumerate(spots[: len(spots) - rng.randint(0, 3)] + dock):
        phone.draw.rounded_rectangle((x, y, x + size, y + size), 13, fill=rng.choice((*BRIGHT, (255, 255, 255))))
        inner, shape = rng.choice((*BRIGHT, (255, 255, 255))), rng.random()
        box = (x + 14, y + 14, x + 38, y + 38)
        if shape < 0.35:
            phone.draw.ellipse(box, fill=inner)
        elif shape < 0.6:
            phone.draw.polygon((x + 16, y + 14, x + 40, y + 26, x + 16, y + 38), fill=inner)
        else:
            phone.write(x + 26, y + 26, rng.choice(text.WORDS)[0].upper(), 26, inner, True, "mm")
        if index < len(spots):
            phone.write(
                x + size / 2,
                y + size + 4,
                rng.choice(text.WORDS).capitalize()[:8],
                11,
                (255, 255, 255),
                anchor="ma",
            )
    return phone.image


def social(rng: random.Random, photos: Photos) -> Image.Image:
    """A feed: posts with a name, a picture or text, likes and comments."""
    phone = blank_screen(rng)
    phone.write(18, 44, rng.choice(text.WORDS).capitalize() + "gram", 22, phone.accent, True)
    y = 84.0
    while y < phone.height - 40:
        draw_avatar(phone, rng, 14, y, 38)
        phone.write(62, y + 2, text.person(rng), 15, None, True)
        phone.write(62, y + 22, f"{rng.randint(2, 23)} h", 12, phone.soft)
        y += 46
        if rng.random() < 0.6:
            y = column(phone.draw, (14, y, 346, phone.height), text.paragraph(rng, 1), font("sans", 15), phone.ink) + 8
        if rng.random() < 0.75:
            tall = rng.choice((240, 360, 300))
            phone.image.paste(photo_or_drawing(rng, 360, tall, photos), (0, round(y)))
            y += tall + 8
        for index, count in enumerate((rng.randint(1, 9999), rng.randint(0, 300), rng.randint(0, 90))):
            x = 16 + index * 90
            phone.draw.ellipse((x, y + 2, x + 18, y + 20), outline=phone.soft if index else (230, 50, 70), width=2)
            phone.write(x + 24, y + 4, str(count), 13, phone.soft)
        phone.draw.line((0, y + 34, 360, y + 34), fill=phone.panel, width=6)
        y += 46
    return phone.image

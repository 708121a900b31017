"""Phone screens as the phone would save them: chat, settings, map, browser, mail, apps, feed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from distill.render import text
from distill.render.cards import BRIGHT, blot
from distill.render.graphics import streets
from distill.render.text import Colour, column, font

Photos = Sequence[Image.Image]


@dataclass(frozen=True)
class Screen:
    """A phone's screen with its status bar: the picture, its pen, its colours."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    ink: Colour
    soft: Colour
    panel: Colour
    accent: Colour

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.image.height

    def say(
        self,
        x: float,
        y: float,
        words: str,
        size: int,
        ink: Colour | None = None,
        bold: bool = False,
        anchor: str = "la",
    ) -> None:
        """Write a line in the system face."""
        self.draw.text((x, y), words, font=font("sans", size, bold), fill=ink or self.ink, anchor=anchor)


def screen(rng: random.Random, dark: float = 0.3) -> Screen:
    """An empty phone screen, dark or light, with the clock, signal and battery in its status bar."""
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
    made = Screen(image, ImageDraw.Draw(image), ink, soft, panel, rng.choice(BRIGHT))
    status(made, rng, ink)
    return made


def status(made: Screen, rng: random.Random, ink: Colour) -> None:
    """Clock, signal and battery along the top edge."""
    made.say(22, 10, text.clock(rng), 14, ink, True)
    for bar in range(4):
        made.draw.rectangle((270 + bar * 6, 22 - bar * 3, 273 + bar * 6, 24), fill=ink)
    made.draw.rounded_rectangle((312, 12, 338, 24), 3, outline=ink)
    made.draw.rectangle((314, 14, 314 + rng.randint(3, 22), 22), fill=ink)


def picture(rng: random.Random, width: int, height: int, photos: Photos) -> Image.Image:
    """A photo cut to the size, or a simple drawing where no photos were given."""
    if not len(photos):
        return blot(rng, width, height)
    photo = photos[rng.randrange(len(photos))].convert("RGB")
    scale = max(width / photo.width, height / photo.height)
    across, down = width / scale, height / scale
    left, top = rng.uniform(0, photo.width - across), rng.uniform(0, photo.height - down)
    return photo.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + across, top + down))


def avatar(made: Screen, rng: random.Random, x: float, y: float, size: int) -> None:
    """A round contact picture with an initial."""
    made.draw.ellipse((x, y, x + size, y + size), fill=rng.choice(BRIGHT))
    made.say(x + size / 2, y + size / 2, rng.choice(text.FIRST)[0], size // 2, (255, 255, 255), True, "mm")


def chat(rng: random.Random, photos: Photos) -> Image.Image:
    """A conversation in a messenger: bubbles left and right, a header with a name, an input field."""
    made = screen(rng)
    mine: Colour = rng.choice(((0, 122, 255), (52, 199, 89), (220, 248, 198), (110, 70, 220), (0, 92, 75)))
    own: Colour = (20, 20, 20) if sum(mine) > 480 else (255, 255, 255)
    made.draw.rectangle((0, 36, 360, 92), fill=made.panel)
    avatar(made, rng, 44, 44, 40)
    made.say(16, 52, "<", 20, made.accent, True)
    made.say(96, 48, text.person(rng), 16, None, True)
    made.say(96, 70, rng.choice(("online", "last seen 12:04", "typing...", "today")), 12, made.soft)
    y, face = 104.0, font("sans", 15)
    while y < made.height - 90:
        right = rng.random() < 0.5
        if rng.random() < 0.1 and made.height - y > 260:
            made.image.paste(picture(rng, 200, 150, photos), (148 if right else 12, round(y)))
            y += 160
            continue
        lines = text.wrap(text.phrase(rng, 1, 14) + rng.choice(("", "!", "?", " :)", ".")), face, 220)
        wide, tall = max(face.getlength(line) for line in lines) + 24, len(lines) * 20 + 14
        if y + tall > made.height - 64:
            break
        left = made.width - 12 - wide if right else 12
        made.draw.rounded_rectangle((left, y, left + wide, y + tall), 14, fill=mine if right else made.panel)
        for row, line in enumerate(lines):
            made.say(left + 12, y + 6 + row * 20, line, 15, own if right else made.ink)
        y += tall + rng.choice((4, 4, 14))
    made.draw.rounded_rectangle((44, made.height - 50, 310, made.height - 14), 18, outline=made.soft)
    made.say(60, made.height - 42, "Message", 14, made.soft)
    made.draw.ellipse((318, made.height - 50, 352, made.height - 16), fill=mine)
    return made.image


def settings(rng: random.Random, photos: Photos) -> Image.Image:
    """A list of settings with coloured icons, switches and arrows."""
    made = screen(rng)
    made.say(
        20,
        48,
        rng.choice(("Settings", "Account", "Privacy", "Network", "Display", "Notifications")),
        26,
        None,
        True,
    )
    y = 100
    while y < made.height - 60:
        if rng.random() < 0.18:
            y += 22
            made.say(22, y, text.phrase(rng, 1, 2).upper(), 11, made.soft)
            y += 22
        made.draw.rectangle((0, y, 360, y + 51), fill=made.panel if rng.random() < 0.9 else None)
        made.draw.rounded_rectangle((18, y + 10, 48, y + 40), 8, fill=rng.choice(BRIGHT))
        made.say(64, y + 8, text.phrase(rng, 1, 2), 15)
        made.say(64, y + 29, text.phrase(rng, 2, 4)[:30], 11, made.soft)
        if rng.random() < 0.45:
            on = rng.random() < 0.5
            made.draw.rounded_rectangle((296, y + 13, 342, y + 38), 12, fill=(52, 199, 89) if on else made.soft)
            x = 318 if on else 298
            made.draw.ellipse((x, y + 15, x + 21, y + 36), fill=(255, 255, 255))
        else:
            made.say(340, y + 16, ">", 16, made.soft, anchor="ra")
        y += 52
    return made.image


def maps(rng: random.Random, photos: Photos) -> Image.Image:
    """A map app: streets, a route or a pin, a search field, a panel at the foot."""
    made = screen(rng, 0.1)
    made.image.paste(streets(rng, made.width, made.height), (0, 0))
    draw = made.draw
    points = [(rng.uniform(60, 300), made.height * rng.uniform(0.2, 0.7)) for _ in range(2)]
    if rng.random() < 0.6:
        (x0, y0), (x1, y1) = points
        draw.line((x0, y0, x0, y1, x1, y1), fill=(60, 120, 245), width=8, joint="curve")
        draw.ellipse((x0 - 9, y0 - 9, x0 + 9, y0 + 9), fill=(60, 120, 245), outline=(255, 255, 255), width=3)
    x, y = points[1]
    draw.ellipse((x - 14, y - 42, x + 14, y - 14), fill=(230, 60, 50))
    draw.polygon((x - 12, y - 22, x + 12, y - 22, x, y), fill=(230, 60, 50))
    draw.ellipse((x - 5, y - 33, x + 5, y - 23), fill=(120, 20, 20))
    draw.rounded_rectangle((16, 44, 344, 88), 20, fill=(255, 255, 255), outline=(200, 200, 205))
    made.say(38, 56, f"{rng.choice(text.STREETS)} Street", 15, (60, 60, 70))
    foot = made.height - rng.randint(90, 170)
    draw.rounded_rectangle((0, foot, 360, made.height + 20), 18, fill=(255, 255, 255))
    made.say(24, foot + 20, f"{rng.randint(3, 58)} min ({rng.randint(1, 40)} km)", 21, (20, 130, 60), True)
    made.say(24, foot + 50, text.phrase(rng, 2, 4), 13, (110, 110, 120))
    status(made, rng, (20, 20, 24))
    return made.image


def browser(rng: random.Random, photos: Photos) -> Image.Image:
    """A web page in a browser: address bar, headline, pictures, paragraphs, links."""
    made = screen(rng, 0.15)
    made.draw.rectangle((0, 36, 360, 84), fill=made.panel)
    made.draw.rounded_rectangle((16, 42, 300, 78), 16, fill=made.image.getpixel((2, 2)))
    made.say(34, 52, f"{rng.choice(text.WORDS)}-{rng.choice(text.WORDS)}.com", 13, made.soft)
    y = 84.0
    if rng.random() < 0.6:
        made.draw.rectangle((0, y, 360, y + 46), fill=made.accent)
        made.say(18, y + 12, rng.choice(text.SHOPS).title(), 18, (255, 255, 255), True)
        y += 50
    y = column(
        made.draw,
        (18, y + 12, 344, 400),
        text.phrase(rng, 4, 9),
        font(rng.choice(("sans", "serif")), 24, True),
        made.ink,
        1.2,
    )
    face = font(rng.choice(("sans", "serif")), 15)
    while y < made.height - 60:
        if rng.random() < 0.5:
            tall = rng.randint(120, 210)
            made.image.paste(picture(rng, 324, tall, photos), (18, round(y + 12)))
            y += tall + 16
        ink = made.ink if rng.random() < 0.85 else (40, 90, 200)
        y = (
            column(
                made.draw,
                (18, y + 10, 344, made.height - 20),
                text.paragraph(rng, rng.randint(2, 5)),
                face,
                ink,
            )
            + 6
        )
    return made.image


def mail(rng: random.Random, photos: Photos) -> Image.Image:
    """An inbox or one opened mail."""
    made = screen(rng)
    y = 96.0
    if rng.random() < 0.55:
        made.say(20, 50, "Inbox", 28, None, True)
        while y < made.height - 30:
            avatar(made, rng, 14, y + 6, 42)
            made.say(68, y + 4, text.person(rng), 15, None, rng.random() < 0.5)
            made.say(346, y + 6, text.clock(rng), 11, made.soft, anchor="ra")
            made.say(68, y + 24, text.phrase(rng, 2, 5)[:34], 13)
            made.say(68, y + 42, text.phrase(rng, 6, 9)[:40], 12, made.soft)
            made.draw.line((68, y + 63, 360, y + 63), fill=made.panel)
            y += 66
        return made.image
    y = column(made.draw, (18, 56, 344, 150), text.phrase(rng, 3, 7), font("sans", 20, True), made.ink)
    avatar(made, rng, 18, y + 10, 42)
    made.say(72, y + 12, text.person(rng), 15, None, True)
    made.say(72, y + 33, "to me", 12, made.soft)
    y += 74
    for _ in range(rng.randint(2, 5)):
        y = column(made.draw, (18, y, 344, made.height - 80), text.paragraph(rng, 3), font("sans", 15), made.ink) + 16
    for x in (18, 190):
        made.draw.rounded_rectangle((x, made.height - 56, x + 150, made.height - 18), 18, outline=made.soft)
        made.say(x + 75, made.height - 37, "Reply" if x < 100 else "Forward", 14, anchor="mm")
    return made.image


def home(rng: random.Random, photos: Photos) -> Image.Image:
    """A home screen: wallpaper, rows of app icons with names, a dock."""
    made = screen(rng)
    made.image.paste(picture(rng, made.width, made.height, photos), (0, 0))
    status(made, rng, (255, 255, 255))
    columns, size = rng.choice((4, 4, 5)), 52
    pitch = made.width / columns
    rows = rng.randint(3, 6)
    first = made.height - 150 - rows * 88 if rng.random() < 0.5 else 60
    if first > 180:
        made.say(180, 90, text.clock(rng), 60, (255, 255, 255), anchor="ma")
    spots = [
        (column_ * pitch + (pitch - size) / 2, max(first, 50) + row * 88)
        for row in range(rows)
        for column_ in range(columns)
    ]
    made.draw.rounded_rectangle((10, made.height - 96, 350, made.height - 12), 26, fill=made.panel)
    dock = [(index * pitch + (pitch - size) / 2, made.height - 80) for index in range(columns)]
    for index, (x, y) in enumerate(spots[: len(spots) - rng.randint(0, 3)] + dock):
        made.draw.rounded_rectangle((x, y, x + size, y + size), 13, fill=rng.choice((*BRIGHT, (255, 255, 255))))
        inner, shape = rng.choice((*BRIGHT, (255, 255, 255))), rng.random()
        box = (x + 14, y + 14, x + 38, y + 38)
        if shape < 0.35:
            made.draw.ellipse(box, fill=inner)
        elif shape < 0.6:
            made.draw.polygon((x + 16, y + 14, x + 40, y + 26, x + 16, y + 38), fill=inner)
        else:
            made.say(x + 26, y + 26, rng.choice(text.WORDS)[0].upper(), 26, inner, True, "mm")
        if index < len(spots):
            made.say(
                x + size / 2,
                y + size + 4,
                rng.choice(text.WORDS).capitalize()[:8],
                11,
                (255, 255, 255),
                anchor="ma",
            )
    return made.image


def social(rng: random.Random, photos: Photos) -> Image.Image:
    """A feed: posts with a name, a picture or words, likes and comments."""
    made = screen(rng)
    made.say(18, 44, rng.choice(text.WORDS).capitalize() + "gram", 22, made.accent, True)
    y = 84.0
    while y < made.height - 40:
        avatar(made, rng, 14, y, 38)
        made.say(62, y + 2, text.person(rng), 15, None, True)
        made.say(62, y + 22, f"{rng.randint(2, 23)} h", 12, made.soft)
        y += 46
        if rng.random() < 0.6:
            y = column(made.draw, (14, y, 346, made.height), text.paragraph(rng, 1), font("sans", 15), made.ink) + 8
        if rng.random() < 0.75:
            tall = rng.choice((240, 360, 300))
            made.image.paste(picture(rng, 360, tall, photos), (0, round(y)))
            y += tall + 8
        for index, count in enumerate((rng.randint(1, 9999), rng.randint(0, 300), rng.randint(0, 90))):
            x = 16 + index * 90
            made.draw.ellipse((x, y + 2, x + 18, y + 20), outline=made.soft if index else (230, 50, 70), width=2)
            made.say(x + 24, y + 4, str(count), 13, made.soft)
        made.draw.line((0, y + 34, 360, y + 34), fill=made.panel, width=6)
        y += 46
    return made.image

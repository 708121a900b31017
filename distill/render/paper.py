"""Receipts, letters, forms, invoices, notes and book pages, drawn flat.

Every page function takes the random source of one picture and returns an RGB page, which
`camera.photograph` turns into a photo.
"""

from __future__ import annotations

import random
from itertools import pairwise

import segno
from PIL import Image, ImageDraw

from distill.render import text
from distill.render.handwriting import Handwriting
from distill.render.text import Color, column, draw_centered, font

BLACK: Color = (25, 25, 28)


def blank_sheet(
    rng: random.Random, width: int, height: int, tint: Color | None = None
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty sheet, white to cream unless a tint is given, and a drawing context for it."""
    white = rng.randint(232, 252)
    sheet = Image.new("RGB", (width, height), tint or (white, white - rng.randint(0, 4), white - rng.randint(0, 16)))
    return sheet, ImageDraw.Draw(sheet)


def draw_barcode(
    draw: ImageDraw.ImageDraw, rng: random.Random, box: tuple[float, float, float, float], unit: float
) -> None:
    """Draw a barcode into a box (left, top, right, bottom); `unit` is the thinnest stripe in pixels."""
    x = box[0]
    while x < box[2] - 4 * unit:
        wide = rng.choice((1, 1, 1, 2, 2, 3)) * unit
        draw.rectangle((x, box[1], x + wide - 1, box[3]), fill=(15, 15, 15))
        x += wide + rng.choice((1, 1, 2, 3)) * unit


def qr_code(rng: random.Random, size: int, ink: Color = (0, 0, 0), ground: Color = (255, 255, 255)) -> Image.Image:
    """Draw a readable QR code with its quiet zone, `size` pixels wide."""
    link = f"https://example.org/{rng.choice(text.WORDS)}/{rng.getrandbits(rng.choice((32, 64, 160, 400))):x}"
    rows = [[bool(cell) for cell in row] for row in segno.make_qr(link, error="m").matrix_iter(border=3)]
    code = Image.new("RGB", (len(rows), len(rows)), ground)
    for y, row in enumerate(rows):
        for x, dark in enumerate(row):
            if dark:
                code.putpixel((x, y), ink)
    return code.resize((size, size), Image.Resampling.NEAREST)


def receipt(rng: random.Random) -> Image.Image:
    """A store receipt: shop, items with prices, total, tax and sometimes a barcode."""
    items = rng.randint(2, 18)
    size = rng.choice((15, 16, 18))
    width, step = 340, round(size * rng.uniform(1.2, 1.5))
    height = step * (items + rng.randint(15, 22)) + rng.choice((0, 60))
    sheet, draw = blank_sheet(rng, width, height)
    gray = rng.randint(15, 95)
    ink = (gray, gray, gray + rng.choice((0, 0, 25)))
    face, bold = (
        font(rng.choice(("mono", "mono", "typewriter", "sans")), size),
        font("mono", round(size * 1.4), True),
    )
    sign, comma = rng.choice(("", "", "$", "€", "£")), rng.random() < 0.4
    sign = sign if face.getname()[0] != "cmtt10" else ""
    street, town = text.address(rng)
    y = step * rng.uniform(0.6, 1.6)
    draw_centered(draw, width / 2, y, rng.choice(text.SHOPS)[:16], bold, ink)
    y += step * 1.8
    for line in (street, town, f"TEL {rng.randint(10**8, 10**9)}", f"{text.date(rng)}  {text.clock(rng)}"):
        draw_centered(draw, width / 2, y, line, face, ink)
        y += step

    def row(left: str, right: str, y: float, used: text.Font = face) -> None:
        draw.text((18, y), left, font=used, fill=ink)
        draw.text((width - 18, y), right, font=used, fill=ink, anchor="ra")

    rule = rng.choice(("-" * 28, "=" * 28, "*" * 26, ""))
    draw_centered(draw, width / 2, y, rule, face, ink)
    y += step
    total = 0.0
    for _ in range(items):
        value = text.price(rng, 25)
        total += value
        name = rng.choice(text.GOODS)
        row(
            name if rng.random() < 0.7 else f"{rng.randint(2, 4)} x {name}"[:20],
            text.money(value, "", comma),
            y,
        )
        y += step
    draw_centered(draw, width / 2, y, rule, face, ink)
    row(
        rng.choice(("TOTAL", "TOTAL", "SUMME", "IMPORTE", "AMOUNT DUE"))[:9],
        text.money(total, sign, comma),
        y + step,
        bold,
    )
    y += step * 2.8
    for left, right in (("CARD", total), ("TAX 7%", total * 0.07), ("NET", total * 0.93)):
        row(left, text.money(right, sign, comma), y)
        y += step
    for line in (
        rng.choice(("THANK YOU!", "THANKS FOR SHOPPING", "VIELEN DANK", "MERCI")),
        f"NO {rng.randint(10**5, 10**8)}",
    ):
        draw_centered(draw, width / 2, y + step * 0.5, line, face, ink)
        y += step
    if height - y > step * 4:
        draw_barcode(draw, rng, (60, y + step, width - 60, y + step * 3), 2)
    return sheet


def letter(rng: random.Random) -> Image.Image:
    """A printed letter: sender, recipient, date, subject, paragraphs, signature."""
    sheet, draw = blank_sheet(rng, 620, 876)
    family = rng.choice(("serif", "sans", "roman", "light", "book", "typewriter"))
    size = rng.choice((15, 16, 18))
    face, ink = font(family, size), (rng.randint(10, 60),) * 3
    if rng.random() < 0.5:
        brand = rng.choice(((20, 60, 140), (160, 30, 40), (20, 110, 80), (40, 40, 40)))
        draw.text((70, 44), rng.choice(text.SHOPS).title(), font=font("sans", 26, True), fill=brand)
        draw.line((70, 84, 550, 84), fill=brand, width=2)
    for row, line in enumerate((text.person(rng), *text.address(rng))):
        draw.text((70, 120 + row * size * 1.3), line, font=face, fill=ink)
    draw.text((550, 190), text.date(rng), font=face, fill=ink, anchor="ra")
    draw.text((70, 230), text.phrase(rng, 3, 7), font=font(family, size, True), fill=ink)
    y = 270.0
    draw.text((70, y), f"Dear {rng.choice(text.LAST)},", font=face, fill=ink)
    for _ in range(rng.randint(2, 5)):
        y = column(draw, (70, y + size * 1.6, 550, 740), text.paragraph(rng, rng.randint(2, 5)), face, ink, 1.35)
    draw.text((70, min(y + 20, 750)), "Kind regards,", font=face, fill=ink)
    Handwriting(rng, 12, rng.choice(text.INKS)).write(draw, 75, min(y + 75, 815), text.person(rng))
    return sheet


def form(rng: random.Random) -> Image.Image:
    """A form with a heading, labeled boxes and lines, and check boxes, partly filled in by hand."""
    sheet, draw = blank_sheet(rng, 620, 876)
    accent: Color = rng.choice(((30, 30, 30), (30, 70, 130), (20, 100, 90), (140, 40, 40)))
    face = font(rng.choice(("sans", "light", "serif")), 14)
    draw.rectangle((40, 40, 580, 84), fill=accent if rng.random() < 0.6 else None, outline=accent, width=2)
    heading = (255, 255, 255) if sheet.getpixel((45, 78)) == accent else accent
    draw.text((54, 50), text.phrase(rng, 2, 4), font=font("sans", 22, True), fill=heading)
    hand = Handwriting(rng, 9, rng.choice(text.INKS), 2)
    filled = rng.random() * 1.2
    y = 104
    boxed = rng.random() < 0.5
    while y < 800:
        if rng.random() < 0.15:
            draw.rectangle((40, y, 580, y + 22), fill=(225, 228, 232))
            draw.text((48, y + 3), text.phrase(rng, 2, 4), font=font("sans", 13, True), fill=accent)
            y += 32
            continue
        edges = rng.choice(((40, 580), (40, 300, 580), (40, 210, 400, 580)))
        for left, right in pairwise(edges):
            label = text.phrase(rng, 1, 2)
            draw.text((left + 6, y + 2), label, font=face, fill=(80, 80, 90))
            if boxed:
                draw.rectangle((left, y, right, y + 46), outline=(90, 95, 105))
            else:
                draw.line((left + 6, y + 46, right - 10, y + 46), fill=(90, 95, 105))
            if rng.random() < 0.2:
                for tick in range(2):
                    x = left + 20 + tick * 70
                    draw.rectangle((x, y + 24, x + 14, y + 38), outline=(60, 60, 60))
                    if tick and filled > 0.5:
                        draw.line((x, y + 24, x + 14, y + 38, x + 14, y + 24, x, y + 38), fill=hand.ink, width=2)
            elif rng.random() < filled:
                hand.write(draw, left + 12, y + 40, rng.choice((*text.FIRST, *text.TOWNS, str(rng.randint(1, 9999)))))
        y += 54 if boxed else 58
    return sheet


def invoice(rng: random.Random) -> Image.Image:
    """An invoice: seller, customer, number, line items and the total."""
    sheet, draw = blank_sheet(rng, 620, 876)
    accent: Color = rng.choice(((30, 30, 30), (25, 80, 160), (200, 90, 30), (20, 120, 90), (110, 50, 140)))
    family = rng.choice(("sans", "light", "serif"))
    face, bold, sign = (
        font(family, 15),
        font(family, 16, True),
        rng.choice(("$", "€", "£") if family != "light" else ("$",)),
    )
    draw.text((50, 44), rng.choice(text.SHOPS).title(), font=font("sans", 24, True), fill=accent)
    draw.text(
        (570, 44),
        rng.choice(("INVOICE", "INVOICE", "Invoice", "RECHNUNG", "FACTURE")),
        font=font("sans", 28, True),
        fill=accent,
        anchor="ra",
    )
    for row, line in enumerate((text.person(rng), *text.address(rng))):
        draw.text((50, 120 + row * 20), line, font=face, fill=BLACK)
    for row, line in enumerate(
        (f"No. {rng.randint(1000, 99999)}", text.date(rng), f"Customer {rng.randint(100, 9999)}")
    ):
        draw.text((570, 120 + row * 20), line, font=face, fill=BLACK, anchor="ra")
    draw.rectangle((50, 230, 570, 258), fill=accent)
    for x, name in ((60, "Description"), (380, "Qty"), (460, "Price")):
        draw.text((x, 235), name, font=bold, fill=(255, 255, 255))
    y, total = 264, 0.0
    for row in range(rng.randint(2, 12)):
        value = text.price(rng, 400)
        total += value
        if row % 2:
            draw.rectangle((50, y, 570, y + 28), fill=(238, 240, 243))
        draw.text((60, y + 5), text.phrase(rng, 2, 4)[:34], font=face, fill=BLACK)
        draw.text((392, y + 5), str(rng.randint(1, 9)), font=face, fill=BLACK)
        draw.text((560, y + 5), text.money(value), font=face, fill=BLACK, anchor="ra")
        y += 28
    draw.line((380, y + 10, 570, y + 10), fill=accent, width=2)
    for row, (name, value) in enumerate((("Subtotal", total), ("Tax", total * 0.2), ("Total", total * 1.2))):
        used = bold if name == "Total" else face
        draw.text((390, y + 18 + row * 24), name, font=used, fill=BLACK)
        draw.text((560, y + 18 + row * 24), text.money(value, sign), font=used, fill=BLACK, anchor="ra")
    column(draw, (50, 780, 570, 850), text.paragraph(rng, 2), font(family, 12), (110, 110, 110))
    return sheet


def handwriting(rng: random.Random) -> Image.Image:
    """A handwritten note: a list, a letter or notes, on plain, lined, squared or sticky paper."""
    size = rng.uniform(9, 17)
    sticky = rng.random() < 0.25
    width, height = (420, 420) if sticky else rng.choice(((480, 640), (520, 700), (560, 420)))
    tint = rng.choice(((252, 236, 120), (255, 190, 205), (170, 225, 250), (200, 240, 150))) if sticky else None
    sheet, draw = blank_sheet(rng, width, height, tint)
    step = round(size * rng.uniform(2.6, 3.4))
    style = "plain" if sticky else rng.choice(("lines", "lines", "squares", "plain"))
    if style != "plain":
        for y in range(step, height, step if style == "lines" else step // 2):
            draw.line((0, y, width, y), fill=(170, 190, 220))
    if style == "squares":
        for x in range(0, width, step // 2):
            draw.line((x, 0, x, height), fill=(185, 200, 225))
    margin = rng.randint(24, 70)
    if style == "lines" and rng.random() < 0.6:
        draw.line((margin - 10, 0, margin - 10, height), fill=(225, 120, 130), width=2)
    hand = Handwriting(rng, size, rng.choice(text.INKS), rng.choice((2, 2, 3)))
    listed = rng.random() < 0.45
    y, last = step * 2, height - rng.choice((step, step, height // 3))
    while y < last:
        if listed:
            line = f"- {rng.choice(text.TODO)}"
            end = hand.write(draw, margin, y, line)
            if rng.random() < 0.2:
                draw.line((margin, y - size / 2, end, y - size), fill=hand.ink, width=hand.pen)
        else:
            line = rng.choice(text.FIRST) if y == step * 2 and rng.random() < 0.3 else ""
            while not line or hand.width(line) < width - margin * 1.3 - size * 10:
                line += (" " if line else "") + rng.choice(text.WORDS)
            hand.write(draw, margin, y, line.capitalize() if rng.random() < 0.3 else line)
        y += step
    return sheet


def book_page(rng: random.Random) -> Image.Image:
    """One or two book pages with running head, page number and justified text."""
    spread = rng.random() < 0.45
    width, height = 460, rng.randint(640, 720)
    family = rng.choice(("serif", "serif", "book", "roman"))
    tint: Color = rng.choice(((244, 238, 220), (250, 248, 240), (236, 226, 200)))
    sheet, draw = blank_sheet(rng, width * (2 if spread else 1), height, tint)
    face = font(family, rng.choice((16, 17, 19)))
    for side in range(2 if spread else 1):
        left, right = side * width + 52, (side + 1) * width - 52
        draw.text(
            ((left + right) / 2, 30),
            text.phrase(rng, 2, 4).upper(),
            font=font(family, 12),
            fill=BLACK,
            anchor="ma",
        )
        y = 64.0
        if rng.random() < 0.25:
            y += 50
            draw_centered(draw, (left + right) / 2, y, f"Chapter {rng.randint(1, 30)}", font(family, 26, True), BLACK)
            y += 70
        while y < height - 80:
            y = column(
                draw,
                (left, y, right, height - 60),
                text.paragraph(rng, rng.randint(3, 7)),
                face,
                BLACK,
                1.28,
                True,
            )
            y += face.size * rng.choice((0, 0.4))
        draw_centered(draw, (left + right) / 2, height - 42, str(rng.randint(2, 500)), font(family, 13), BLACK)
    if spread:  # the pages bend down into the fold
        for x in range(-46, 46):
            dark = Image.new("RGB", (1, height), (60, 50, 40))
            sheet.paste(dark, (width + x, 0), Image.new("L", (1, height), round(110 * (1 - abs(x) / 46) ** 2)))
    return sheet

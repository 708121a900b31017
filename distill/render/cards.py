"""Newspapers, menus, cards, tickets, whiteboards and barcodes, drawn flat."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from distill.render import text
from distill.render.handwriting import Handwriting
from distill.render.paper import BLACK, blank_sheet, draw_barcode, qr_code
from distill.render.text import Color, column, draw_centered, font

WHITE: Color = (255, 255, 255)
BRIGHT: tuple[Color, ...] = (
    (30, 90, 180), (200, 50, 50), (20, 130, 100), (230, 150, 30), (110, 60, 160), (40, 40, 50), (0, 150, 190),
    (220, 90, 140),
)  # fmt: skip


def abstract_picture(rng: random.Random, width: int, height: int) -> Image.Image:
    """Draw a placeholder for a printed picture: sky, ground and a few shapes."""
    sky, ground = rng.choice(BRIGHT), rng.choice(BRIGHT)
    picture = Image.new("RGB", (width, height), tuple(min(255, v + 90) for v in sky))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, height * rng.uniform(0.5, 0.8), width, height), fill=ground)
    for _ in range(rng.randint(2, 6)):
        x, y, r = rng.uniform(0, width), rng.uniform(height * 0.3, height), rng.uniform(0.06, 0.2) * width
        box = (x - r, y - r, x + r, y + r)
        draw.ellipse(box, fill=rng.choice(BRIGHT)) if rng.random() < 0.5 else draw.rectangle(
            box, fill=rng.choice(BRIGHT)
        )
    return picture


def newspaper(rng: random.Random) -> Image.Image:
    """A newspaper or magazine page: title, headlines, narrow columns, pictures."""
    width, height = 680, rng.choice((900, 860, 520))
    sheet, draw = blank_sheet(rng, width, height, rng.choice(((232, 228, 216), (240, 238, 230), (245, 222, 200))))
    y = 24.0
    if rng.random() < 0.6:
        draw_centered(
            draw,
            width / 2,
            y,
            f"The {rng.choice(text.TOWNS)} {rng.choice(('Times', 'Post', 'News', 'Herald'))}",
            font("serif", 54, True),
            BLACK,
        )
        draw.line((30, y + 72, width - 30, y + 72), fill=BLACK, width=2)
        draw_centered(draw, width / 2, y + 76, text.date(rng), font("serif", 14), BLACK)
        y += 100
    count = rng.choice((3, 4, 5))
    pitch = (width - 50) / count
    head = font(rng.choice(("serif", "book", "sans")), 34, True)
    y = column(draw, (30, y, width - 30, height), text.phrase(rng, 5, 9), head, BLACK, 1.15) + 10
    face = font("serif", 13)
    for index in range(count):
        left, top = 30 + index * pitch, y
        while top < height - 60:
            if rng.random() < 0.3 and height - top > 200:
                picture = abstract_picture(rng, round(pitch - 16), round(pitch * 0.7))
                sheet.paste(
                    picture.convert("L").convert("RGB") if rng.random() < 0.5 else picture,
                    (round(left), round(top)),
                )
                top += pitch * 0.7 + 8
            if rng.random() < 0.4:
                top = (
                    column(
                        draw,
                        (left, top, left + pitch - 16, height - 30),
                        text.phrase(rng, 3, 5),
                        font("serif", 20, True),
                        BLACK,
                        1.1,
                    )
                    + 6
                )
            body = text.paragraph(rng, rng.randint(4, 9))
            top = column(draw, (left, top, left + pitch - 16, height - 30), body, face, (50, 48, 46), 1.18, True) + 10
    return sheet


def menu(rng: random.Random) -> Image.Image:
    """A restaurant menu on light or dark board, with dishes and prices."""
    dark = rng.random() < 0.3
    sheet, draw = blank_sheet(rng, 520, 760, rng.choice(((35, 38, 40), (28, 50, 44), (60, 30, 30))) if dark else None)
    ink: Color = (238, 232, 215) if dark else BLACK
    accent: Color = (230, 190, 110) if dark else rng.choice(BRIGHT)
    family = rng.choice(("serif", "italic", "book", "sans"))
    if rng.random() < 0.5:
        draw.rectangle((16, 16, 504, 744), outline=accent, width=rng.choice((1, 3)))
    name = rng.choice(("MENU", "Menu", rng.choice(text.SHOPS).title(), "Speisekarte", "Carta", "Lunch"))
    draw_centered(draw, 260, 40, name, font(rng.choice(("italic", "serif")), 44, True), accent)
    y, face = 110, font(family, rng.choice((17, 19)))
    sign = rng.choice(("", "", "$", "€", "£"))
    middle = rng.random() < 0.25
    for part in rng.sample(("Starters", "Soups", "Mains", "Pizza", "Pasta", "Desserts", "Drinks", "Specials"), 4):
        if y > 640:
            break
        draw_centered(draw, 260, y, part, font(family, 25, True), accent)
        y += 42
        for dish in rng.sample(text.DISHES, rng.randint(3, 6)):
            cost = text.money(4 + text.price(rng, 20), sign)
            if middle:
                draw_centered(draw, 260, y, f"{dish}  {cost}", face, ink)
            else:
                draw.text((50, y), dish, font=face, fill=ink)
                draw.text((470, y), cost, font=face, fill=ink, anchor="ra")
            y += 27
            if rng.random() < 0.3:
                draw.text((58, y - 4), text.phrase(rng, 3, 6).lower()[:44], font=font("italic", 14), fill=ink)
                y += 18
            if y > 700:
                return sheet
        y += 14
    return sheet


def business_card(rng: random.Random) -> Image.Image:
    """A business card: logo, name, profession, phone number, email."""
    ground = rng.choice((WHITE, WHITE, (246, 242, 232), *BRIGHT))
    sheet, draw = blank_sheet(rng, 520, 300, ground)
    ink: Color = BLACK if sum(ground) > 480 else WHITE
    accent: Color = rng.choice(BRIGHT) if ink == BLACK else (245, 220, 150)
    if rng.random() < 0.5:
        draw.rectangle(
            rng.choice(((0, 0, 24, 300), (0, 270, 520, 300), (360, 0, 520, 300), (0, 0, 520, 18))),
            fill=accent,
        )
    x, r = rng.choice((80, 430)), rng.randint(24, 44)
    if rng.random() < 0.7:
        box = (x - r, 70 - r + 20, x + r, 70 + r + 20)
        rng.choice((draw.ellipse, draw.rectangle))(box, outline=accent, width=6)
        draw.text((x, 90), rng.choice(text.LAST)[0], font=font("serif", r + 10, True), fill=accent, anchor="mm")
    name = text.person(rng)
    left = 40 if x > 200 else 150
    family = rng.choice(("sans", "serif", "light", "book"))
    draw.text((left, 44), name, font=font(family, 30, True), fill=ink)
    trade = rng.choice(
        ("Architect", "Sales Manager", "Photographer", "Dentist", "Lawyer", "Designer", "Plumber", "Engineer")
    )
    draw.text((left, 88), trade, font=font(family, 18), fill=accent)
    mail = f"{name.split()[0].lower()}@{rng.choice(text.TOWNS).lower()}.com"
    for row, line in enumerate(
        (
            f"+{rng.randint(1, 49)} {rng.randint(100, 999)} {rng.randint(10**5, 10**7)}",
            mail,
            *text.address(rng),
        )
    ):
        draw.text((left, 160 + row * 27), line, font=font(family, 17), fill=ink)
    return sheet


def id_card(rng: random.Random) -> Image.Image:
    """An identity, member or bank card with made-up data and a silhouette."""
    bank = rng.random() < 0.35
    tone = rng.choice(BRIGHT)
    light: Color = tuple(min(255, 170 + v // 3) for v in tone)  # type: ignore[assignment]
    sheet, draw = blank_sheet(rng, 540, 340, tone if bank else light)
    for index in range(0, 540, 9):
        draw.arc(
            (index - 300, -120, index + 260, 420),
            0,
            360,
            fill=tuple(min(255, v + 18) for v in (tone if bank else light)),
        )
    if bank:
        draw.text((34, 30), rng.choice(text.TOWNS) + " Bank", font=font("sans", 28, True), fill=WHITE)
        draw.rounded_rectangle((44, 110, 118, 166), 10, fill=(214, 186, 110), outline=(150, 120, 60))
        draw.text(
            (40, 196),
            " ".join(str(rng.randint(1000, 9999)) for _ in range(4)),
            font=font("mono", 32),
            fill=WHITE,
        )
        draw.text((40, 280), text.person(rng).upper(), font=font("mono", 22), fill=WHITE)
        draw.ellipse((410, 250, 470, 310), fill=(230, 60, 50))
        draw.ellipse((446, 250, 506, 310), fill=(245, 170, 40))
        return sheet
    draw.rectangle((0, 0, 540, 52), fill=tone)
    title = rng.choice(("IDENTITY CARD", "DRIVING LICENCE", "STUDENT ID", "MEMBER CARD", "LIBRARY CARD", "VISITOR"))
    draw.text((20, 10), title, font=font("sans", 26, True), fill=WHITE)
    draw.rectangle((26, 76, 176, 270), fill=(205, 212, 220))
    skin = rng.choice(((232, 190, 160), (200, 150, 115), (120, 80, 60)))
    hair = rng.choice(((50, 35, 25), (20, 20, 20), (190, 150, 80), (120, 120, 120)))
    draw.ellipse((58, 90, 144, 200), fill=hair)
    draw.pieslice((36, 214, 166, 340), 180, 360, fill=rng.choice(BRIGHT))
    draw.ellipse((68, 108, 134, 204), fill=skin)
    draw.rectangle((26, 271, 176, 300), fill=light)
    for row, label in enumerate(("Name", "Given name", "Born", "Number", "Valid until")):
        value = (
            rng.choice(text.LAST),
            rng.choice(text.FIRST),
            text.date(rng),
            f"{rng.getrandbits(36):X}",
            text.date(rng),
        )[row]
        draw.text((200, 74 + row * 44), label, font=font("sans", 12), fill=(70, 70, 80))
        draw.text((200, 88 + row * 44), value, font=font("sans", 19, True), fill=BLACK)
    draw.text((26, 306), f"ID<{rng.getrandbits(90):X}<<<{rng.randint(0, 9)}", font=font("mono", 19), fill=BLACK)
    return sheet


def ticket(rng: random.Random) -> Image.Image:
    """A train, flight, cinema or concert ticket with a stub and a code."""
    ground: Color = rng.choice(((250, 250, 248), (255, 240, 205), (215, 235, 250), (250, 225, 225), (225, 245, 225)))
    sheet, draw = blank_sheet(rng, 640, 270, ground)
    accent = rng.choice(BRIGHT)
    draw.rectangle((0, 0, 640, 52), fill=accent)
    kind = rng.choice(
        ("BOARDING PASS", "TRAIN TICKET", "ADMIT ONE", "CONCERT", "CINEMA", "MUSEUM", "DAY TICKET", "PARKING")
    )
    draw.text((20, 10), kind, font=font("sans", 27, True), fill=WHITE)
    face, bold = font("sans", 13), font(rng.choice(("sans", "mono")), 24, True)
    if kind in ("BOARDING PASS", "TRAIN TICKET"):
        draw.text((24, 70), f"{rng.choice(text.TOWNS)}  >  {rng.choice(text.TOWNS)}", font=bold, fill=BLACK)
    else:
        draw.text((24, 70), text.phrase(rng, 2, 3).upper(), font=bold, fill=BLACK)
    for index, label in enumerate(("DATE", "TIME", "SEAT", "GATE", "CLASS", "PRICE")):
        value = (
            text.date(rng)[:10],
            text.clock(rng),
            f"{rng.randint(1, 40)}{rng.choice('ABCDEF')}",
            str(rng.randint(1, 60)),
            str(rng.randint(1, 2)),
            text.money(text.price(rng, 90)),
        )[index]
        x, y = 24 + index % 3 * 140, 122 + index // 3 * 66
        draw.text((x, y), label, font=face, fill=(110, 110, 115))
        draw.text((x, y + 18), value, font=font("sans", 20, True), fill=BLACK)
    for y in range(4, 270, 12):
        draw.line((455, y, 455, y + 6), fill=(120, 120, 120), width=2)
    if rng.random() < 0.5:
        sheet.paste(qr_code(rng, 150, ground=ground), (474, 74))
    else:
        draw_barcode(draw, rng, (480, 74, 615, 210), 2)
        draw.text((548, 222), str(rng.randint(10**9, 10**10)), font=font("mono", 14), fill=BLACK, anchor="ma")
    return sheet


def whiteboard(rng: random.Random) -> Image.Image:
    """A whiteboard or blackboard with writing, boxes, arrows and a sketched graph."""
    black = rng.random() < 0.2
    width, height = rng.choice(((760, 520), (700, 560), (900, 500)))
    board: Color = rng.choice(((38, 62, 50), (40, 42, 46))) if black else (238, 241, 243)
    sheet, draw = blank_sheet(rng, width, height, board)
    inks = ((240, 240, 235), (240, 220, 130)) if black else ((25, 25, 30), (20, 60, 170), (200, 35, 40), (20, 130, 60))
    pens = [Handwriting(rng, rng.uniform(12, 18), ink, rng.choice((3, 4))) for ink in inks]
    rng.choice(pens).write(draw, width * 0.1, 70, text.phrase(rng, 1, 3))
    places = [(x, y) for x in (0.06, 0.38, 0.7) for y in (0.3, 0.55, 0.85)]
    for right, down in rng.sample(places, rng.randint(3, 8)):
        pen, x, y = (
            rng.choice(pens),
            (right + rng.uniform(-0.02, 0.05)) * width,
            (down + rng.gauss(0, 0.03)) * height,
        )
        what = rng.random()
        if what < 0.4:
            for row in range(rng.randint(1, 3)):
                pen.write(draw, x, y + row * pen.size * 2.7, f"- {rng.choice(text.WORDS)}")
        elif what < 0.7:
            word = rng.choice(text.WORDS)
            end = pen.write(draw, x, y, word)
            rng.choice((draw.rectangle, draw.ellipse))(
                (x - 18, y - 3 * pen.size, end + 18, y + 1.6 * pen.size), outline=pen.ink, width=pen.pen
            )
            draw.line((end + 18, y - 10, end + 100, y - 10, end + 86, y - 22), fill=pen.ink, width=pen.pen)
        elif what < 0.85:
            draw.line((x, y - 100, x, y, x + 150, y), fill=pen.ink, width=pen.pen)
            line = [(x + step * 15, y - abs(rng.gauss(step * 8, 12))) for step in range(10)]
            draw.line(line, fill=rng.choice(inks), width=pen.pen, joint="curve")
        else:
            pen.write(
                draw,
                x,
                y,
                f"{rng.choice('xyabf')} = {rng.randint(2, 99)}{rng.choice('xyz')} + {rng.randint(1, 99)}",
            )
    edge: Color = rng.choice(((180, 184, 188), (120, 90, 60), (70, 74, 80)))
    draw.rectangle((0, 0, width - 1, height - 1), outline=edge, width=rng.choice((8, 14)))
    return sheet


def barcode(rng: random.Random) -> Image.Image:
    """A package label with a barcode, its number and a few words."""
    ground: Color = rng.choice((WHITE, WHITE, WHITE, (240, 225, 190), rng.choice(BRIGHT)))
    sheet, draw = blank_sheet(rng, 460, rng.choice((300, 360)), ground)
    box = (50, 60, 410, sheet.height - rng.choice((70, 120)))
    draw.rectangle((box[0] - 16, box[1] - 14, box[2] + 16, box[3] + 44), fill=WHITE)
    draw_barcode(draw, rng, box, rng.choice((3, 4)))
    number = "  ".join(str(rng.randint(10**5, 10**6 - 1)) for _ in range(2))
    draw.text((230, box[3] + 6), number, font=font("mono", 26), fill=BLACK, anchor="ma")
    ink: Color = BLACK if sum(ground) > 480 else WHITE
    draw.text((50, 12), text.phrase(rng, 1, 3).upper(), font=font("sans", 22, True), fill=ink)
    return sheet

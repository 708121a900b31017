"""Fonts, made-up words and typesetting for rendered pictures.

The fonts are those that Matplotlib includes (DejaVu, STIX, Computer Modern), so none is downloaded.
"""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageDraw, ImageFont

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont


def _words(line: str, between: str | None = None) -> tuple[str, ...]:
    return tuple(line.split(between))


FACES = {
    "sans": ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"),
    "serif": ("STIXGeneral.ttf", "STIXGeneralBol.ttf"),
    "book": ("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf"),
    "mono": ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"),
    "roman": ("cmr10.ttf", "cmb10.ttf"),
    "light": ("cmss10.ttf", "DejaVuSans-Bold.ttf"),
    "typewriter": ("cmtt10.ttf", "DejaVuSansMono-Bold.ttf"),
    "italic": ("STIXGeneralItalic.ttf", "STIXGeneralBolIta.ttf"),
}

WORDS = _words(
    "about above after again air all along also always among answer area ask back before begin being "
    "best better between black body book both bring build call came care carry case change children city "
    "close cold come common country course cross cut dark day deep did different door down draw dry "
    "during each early earth east easy end enough even every example eye face family far feel few field "
    "figure final fine fire first follow food form found four free friend from full garden gave give "
    "good great green ground group grow half hand hard hear heat help high hold home hour house idea "
    "inch island keep kind king knew land large last late learn leave left letter life light line list "
    "little live long look love low machine main make map mark mean measure might mile mind minute moon "
    "more morning most mother mountain move much music name near need never new next night north note "
    "notice number object ocean often old once open order other over own page paper part pass pattern "
    "people perhaps piece place plain plan plant play point power present press problem produce product "
    "pull question quick rain reach read ready real record red remember rest right river road rock room "
    "round rule run said same school science sea second see sentence serve set several shape ship short "
    "show side simple since size sleep slow small snow some song soon sound south space speak special "
    "spell stand star start state stay step still stone stop story street strong study such summer sun "
    "sure surface table take talk teach tell test than thing think thought thousand through time "
    "together told took town travel tree true turn under unit until usual valley very voice wait walk "
    "wall warm watch water week weight west wheel white whole wind winter wood word work world write "
    "year young"
)
FIRST = _words(
    "Anna Ben Clara David Emma Felix Grace Hugo Ines Jonas Karim Lea Maria Noah Olga Paul Rosa Sam Tara "
    "Yuki Amir Lucia Peter Sofia Tom Nina Max Eva Leo Priya"
)
LAST = _words(
    "Adams Bauer Costa Dubois Evans Fischer Garcia Hansen Ito Jensen Keller Lopez Moreau Novak Okafor "
    "Patel Rossi Schmidt Silva Taylor Turner Weber Wilson Young Kowalski Lindgren"
)
STREETS = _words("Oak Mill Station Church Park Lake Garden High Bridge Market Rose Hill River School Forest")
TOWNS = _words("Ashford Millbrook Neustadt Rivera Lakewood Fairview Bergen Salem Montclair Arlon Kingsley Porto Verde")
SHOPS = _words(
    "FRESH MARKET|CITY GROCER|SUPER 24|BAKERY ROSA|HOME & TOOLS|CAFE LUNA|GREEN VALLEY|MINI MART|"
    "PIZZERIA NAPOLI|DROGERIE KLEIN|THE BOOK CORNER|URBAN COFFEE|ALPHA FUEL|MERCADO SOL|SUPERMARCHE BON|"
    "BLUE PHARMACY|SPORT HAUS",
    "|",
)
GOODS = _words(
    "MILK 1L|BREAD WHOLE|BUTTER|EGGS 10 PCS|APPLES KG|BANANAS|TOMATOES|COFFEE 500G|TEA BAGS|PASTA|"
    "RICE 1KG|CHEESE|YOGHURT|CHICKEN|SALMON|ORANGE JUICE|WATER 6X|BEER 0.5|RED WINE|SOAP|SHAMPOO|"
    "PAPER TOWEL|BAG|CHOCOLATE|SUGAR|OLIVE OIL|SALAD|ONIONS|POTATOES|ICE CREAM|CEREAL|HONEY|VOLLMILCH|"
    "BROETCHEN|KAESE|JAMBON|BAGUETTE|FROMAGE|LECHE|PAN|QUESO|BATTERIES AA|LIGHT BULB|NAPKINS|MUSTARD|"
    "PEPPER|FLOUR|CAT FOOD",
    "|",
)
DISHES = _words(
    "Tomato soup|Onion soup|Green salad|Caesar salad|Grilled salmon|Roast chicken|Beef burger|"
    "Veggie burger|Spaghetti|Lasagne|Risotto|Pizza Margherita|Pizza Funghi|Fish and chips|Steak frites|"
    "Mushroom pasta|Curry|Pad Thai|Tacos|Falafel plate|Omelette|Cheese board|Apple pie|Chocolate cake|"
    "Ice cream|Tiramisu|Espresso|Cappuccino|Lemonade|House wine|Draft beer|Mint tea|Fresh juice|"
    "Garlic bread|Olives|Bruschetta",
    "|",
)
TODO = _words(
    "milk|eggs|bread|call mum|pay rent|post office|dentist 3pm|buy stamps|apples|coffee|wash car|gym|"
    "email Tom|water plants|book train|fix bike|cheese|onions|batteries|birthday card|read chapter 4|"
    "laundry|rice|tea|meeting 10.30|pick up kids|tomatoes|new shoes|ask Anna|cat food",
    "|",
)
MONTHS = _words("January February March April May June July August September October November December")
INKS: tuple[Color, ...] = (
    (25, 35, 110),
    (20, 20, 30),
    (40, 60, 150),
    (30, 30, 60),
    (150, 30, 40),
    (20, 90, 60),
)


@lru_cache(maxsize=512)
def font(face: str, size: int, bold: bool = False) -> Font:
    """Load a font of `FACES` at a size in pixels."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / FACES[face][bold]), max(size, 5))


def person(rng: random.Random) -> str:
    """A made-up first and last name."""
    return f"{rng.choice(FIRST)} {rng.choice(LAST)}"


def address(rng: random.Random) -> tuple[str, str]:
    """Return the street line and the town line of a made-up address."""
    return (
        f"{rng.randint(1, 240)} {rng.choice(STREETS)} Street",
        f"{rng.randint(10000, 99999)} {rng.choice(TOWNS)}",
    )


def price(rng: random.Random, top: float = 60.0) -> float:
    """Return an amount of money; small amounts are more likely."""
    return round(0.4 + top * rng.random() ** 2.5, 2)


def money(value: float, sign: str = "", comma: bool = False) -> str:
    """Format an amount with two decimals, after a point or a comma, and with its currency sign in front."""
    text = f"{value:.2f}"
    return sign + (text.replace(".", ",") if comma else text)


def date(rng: random.Random) -> str:
    """Return a random date in one of five common formats."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2009, 2026)
    return rng.choice(
        (
            f"{day:02}.{month:02}.{year}",
            f"{month:02}/{day:02}/{year}",
            f"{day} {MONTHS[month - 1]} {year}",
            f"{year}-{month:02}-{day:02}",
            f"{MONTHS[month - 1]} {day}, {year}",
        )
    )


def clock(rng: random.Random) -> str:
    """A time of the day, hours and minutes."""
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"


def phrase(rng: random.Random, low: int = 2, high: int = 6) -> str:
    """A few random words with a capital first letter."""
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high))).capitalize()


def sentence(rng: random.Random) -> str:
    """A made-up sentence of 5 to 16 words."""
    text = phrase(rng, 5, 16)
    return text + rng.choice("......?!") if rng.random() < 0.7 else text.replace(" ", ", ", 1) + "."


def paragraph(rng: random.Random, sentences: int) -> str:
    """Sentences, one after another."""
    return " ".join(sentence(rng) for _ in range(sentences))


def wrap(text: str, face: Font, width: float) -> list[str]:
    """Break a text into lines no wider than `width` pixels; widths are summed word by word."""
    space = face.getlength(" ")
    lines: list[str] = []
    line: list[str] = []
    used = 0.0
    for word in text.split():
        length = face.getlength(word)
        if line and used + space + length > width:
            lines.append(" ".join(line))
            line, used = [], 0.0
        used += length + (space if line else 0.0)
        line.append(word)
    return [*lines, " ".join(line)] if line else lines


def column(
    draw: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    text: str,
    face: Font,
    ink: Color,
    leading: float = 1.3,
    justify: bool = False,
) -> float:
    """Typeset a text in the box (left, top, right, bottom) and return the y where it ended."""
    left, y, right, bottom = box
    step = face.size * leading
    lines = wrap(text, face, right - left)
    for index, line in enumerate(lines):
        if y + step > bottom:
            break
        words = line.split()
        if justify and len(words) > 2 and index < len(lines) - 1:
            gap = (right - left - sum(face.getlength(word) for word in words)) / (len(words) - 1)
            x = left
            for word in words:
                draw.text((x, y), word, font=face, fill=ink)
                x += face.getlength(word) + gap
        else:
            draw.text((left, y), line, font=face, fill=ink)
        y += step
    return y


def draw_centered(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, face: Font, ink: Color) -> None:
    """Draw one line, centered at x, with its top at y."""
    draw.text((x, y), text, font=face, fill=ink, anchor="ma")

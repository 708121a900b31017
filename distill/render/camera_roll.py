"""Render pictures that fill camera rolls but that photo sets lack: receipts, documents, screens, memes, textures.

A kind, a seed and the background photos determine a picture completely.

    python -m distill.render OUT --per-kind 60 --seed 0 --backgrounds PHOTOS

writes OUT/images/*.webp, OUT/captions.jsonl (file, caption) and OUT/labels.csv (file, label, split).
README.md in `distill` has an example with Flickr8k.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from distill.data.sources import read_splits
from distill.data.tables import DataError
from distill.render import cards, desktop, graphics, textures
from distill.render import paper as papers
from distill.render import phone_screens as screens
from distill.render.camera import compress, photograph, surface
from mobileclip.files import PHOTO_SUFFIXES, PathLike

KINDS: Mapping[str, tuple[str, ...]] = {
    "receipt": (
        "a photo of a till receipt",
        "a paper receipt from a shop with prices and a total",
        "a photo of a crumpled receipt on a table",
    ),
    "letter": ("a photo of a printed letter", "a typed document on white paper", "a letter with a signature"),
    "form": ("a photo of a form", "a document with boxes to fill in", "a filled-in paper form"),
    "invoice": (
        "a photo of an invoice",
        "a bill with a table of amounts and a total",
        "a printed invoice document",
    ),
    "handwriting": (
        "a photo of a handwritten note",
        "handwriting on a sheet of paper",
        "a handwritten list on paper",
    ),
    "book page": (
        "a photo of a page of a book",
        "an open book with printed text",
        "a page of text in a book",
    ),
    "newspaper": (
        "a photo of a newspaper",
        "a newspaper page with columns and headlines",
        "a page of a magazine",
    ),
    "chart": ("a chart", "a graph with axes and a title", "a diagram that shows numbers as a chart"),
    "map": ("a map", "a map with roads and names", "a photo of a map"),
    "business card": ("a photo of a business card", "a visiting card with a name and a telephone number"),
    "id card": (
        "a photo of an identity card",
        "a plastic card with a name and a number",
        "a member card or bank card",
    ),
    "ticket": ("a photo of a ticket", "a travel ticket with a date and a seat", "a paper ticket with a code"),
    "menu": ("a photo of a restaurant menu", "a menu card with dishes and prices"),
    "whiteboard": (
        "a photo of a whiteboard",
        "writing and drawings on a whiteboard",
        "a board with marker writing",
    ),
    "slide": (
        "a presentation slide",
        "a slide with a title and bullet points",
        "a photo of a projected slide",
    ),
    "spreadsheet": ("a spreadsheet", "a table of numbers in rows and columns", "a table on a screen"),
    "calendar": ("a calendar", "a calendar page with the days of a month"),
    "qr code": ("a QR code", "a square black and white code to scan", "a photo of a QR code"),
    "barcode": (
        "a barcode",
        "a photo of a barcode on a package",
        "black and white stripes with a number below",
    ),
    "screenshot-chat": ("a screenshot of a chat on a phone", "a screenshot of text messages in bubbles"),
    "screenshot-settings": (
        "a screenshot of a settings list on a phone",
        "a phone screen with switches and options",
    ),
    "screenshot-map": ("a screenshot of a map app on a phone", "a phone screen with a map and a route"),
    "screenshot-browser": ("a screenshot of a web page on a phone", "a news article in a phone's browser"),
    "screenshot-mail": ("a screenshot of e-mail on a phone", "an e-mail inbox on a phone screen"),
    "screenshot-home": ("a screenshot of a phone's home screen", "a phone screen full of app icons"),
    "screenshot-code": ("a screenshot of computer code", "source code in an editor on a screen"),
    "screenshot-social": ("a screenshot of a social media feed", "a post with likes and comments on a phone"),
    "meme": (
        "a meme",
        "a funny picture with big white words at the top and bottom",
        "an internet meme with a caption",
    ),
    "brick wall": ("a brick wall", "a close-up photo of a brick wall", "a wall of bricks or tiles"),
    "grass": ("grass from above", "a close-up photo of grass", "the texture of grass"),
    "ground": ("sand, gravel or plaster", "a close-up photo of the ground", "a rough surface without any object"),
    "surface": ("a plain surface", "a close-up photo of wood, cloth or stone", "the texture of a material"),
    "night sky": ("stars in the night sky", "a photo of stars and galaxies", "the sky through a telescope"),
    "moon": ("the moon", "a photo of the moon", "a close-up photo of the moon's craters"),
}


@dataclass(frozen=True)
class _Capture:
    """How to draw a page and turn it into a picture: `photographed` is the chance of a photo; see `photograph`."""

    draw: Callable[[random.Random], Image.Image]
    photographed: float = 1.0
    crumple: float = 0.03
    held: float = 0.05
    far: float = 0.3
    hung: bool = False
    bezel: float = 0.0  # chance that a photographed page has a monitor's frame around it


_PAGES: Mapping[str, _Capture] = {
    "receipt": _Capture(papers.receipt, crumple=0.06, held=0.3),
    "letter": _Capture(papers.letter, 0.9),
    "form": _Capture(papers.form, 0.9),
    "invoice": _Capture(papers.invoice, 0.8),
    "handwriting": _Capture(papers.handwriting, crumple=0.04, held=0.1),
    "book page": _Capture(papers.book_page, crumple=0.02, held=0.1, far=0.15),
    "newspaper": _Capture(cards.newspaper, crumple=0.05, far=0.2),
    "chart": _Capture(desktop.chart, 0.25, 0.0, 0.0, 0.1, bezel=0.5),
    "map": _Capture(graphics.town_map, 0.45, 0.05, 0.05, 0.2),
    "business card": _Capture(cards.business_card, crumple=0.0, held=0.25, far=0.4),
    "id card": _Capture(cards.id_card, crumple=0.0, held=0.25, far=0.4),
    "ticket": _Capture(cards.ticket, crumple=0.02, held=0.3),
    "menu": _Capture(cards.menu, crumple=0.01, held=0.1),
    "whiteboard": _Capture(cards.whiteboard, crumple=0.0, held=0.0, far=0.2, hung=True),
    "slide": _Capture(desktop.slide, 0.5, 0.0, 0.0, 0.3, True, 0.4),
    "spreadsheet": _Capture(desktop.table, 0.35, 0.0, 0.0, 0.1, True, 0.8),
    "calendar": _Capture(graphics.calendar, 0.5, 0.01, 0.0, 0.3, True),
    "qr code": _Capture(graphics.qr_poster, 0.65, 0.01, 0.1, 0.4),
    "barcode": _Capture(cards.barcode, 0.9, 0.02, 0.1, 0.3),
    "screenshot-code": _Capture(desktop.code, 0.12, 0.0, 0.0, 0.1, True, 1.0),
}
_SCREENS: Mapping[str, Callable[[random.Random, Sequence[Image.Image]], Image.Image]] = {
    "screenshot-chat": screens.chat,
    "screenshot-settings": screens.settings,
    "screenshot-map": screens.maps,
    "screenshot-browser": screens.browser,
    "screenshot-mail": screens.mail,
    "screenshot-home": screens.home,
    "screenshot-social": screens.social,
}

_TEXTURES: Mapping[str, Callable[[random.Random], Image.Image]] = {
    "brick wall": textures.bricks,
    "grass": textures.grass,
    "ground": textures.ground,
    "surface": textures.cloth,
    "night sky": textures.night_sky,
    "moon": textures.moon,
}

BEZELS = ((18, 18, 20), (40, 42, 45), (170, 172, 176))


def _shrink(picture: Image.Image, short: int) -> Image.Image:
    scale = short / min(picture.size)
    size = max(round(picture.width * scale), short), max(round(picture.height * scale), short)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _plain_photo(rng: random.Random) -> Image.Image:
    """Draw a blurred background for a meme if no photos are given."""
    made = surface(np.random.default_rng(rng.getrandbits(64)), 320, 320)
    made.paste(cards.abstract_picture(rng, 200, 200), (60, 80))
    return made.filter(ImageFilter.GaussianBlur(2))


def render(kind: str, seed: int, backgrounds: Sequence[Image.Image] = ()) -> Image.Image:
    """Render one picture.

    Args:
        kind: a key of `KINDS`.
        seed: the same kind, seed and backgrounds give the same pixels.
        backgrounds: photos for surfaces, memes, feeds and wallpapers; without them, these are drawn.

    Returns:
        RGB picture; the shorter side is 256 to 384 pixels.

    Raises:
        KeyError: the kind is unknown.
    """
    if kind not in KINDS:
        raise KeyError(f"unknown kind {kind!r}; choose from {', '.join(KINDS)}")
    rng = random.Random(f"{kind} {seed}")
    if kind in _PAGES:
        capture = _PAGES[kind]
        page = capture.draw(rng)
        if rng.random() < capture.photographed:
            if rng.random() < capture.bezel:
                page = ImageOps.expand(page, rng.randint(10, 26), rng.choice(BEZELS))
            look = {"crumple": capture.crumple, "held": capture.held, "far": capture.far}
            return photograph(page, rng, backgrounds, hung=capture.hung, **look)
    elif kind in _SCREENS:
        page = _SCREENS[kind](rng, backgrounds)
    elif kind in _TEXTURES:
        page = _TEXTURES[kind](rng)
    else:
        page = graphics.meme(rng, rng.choice(backgrounds) if len(backgrounds) else _plain_photo(rng))
    page = _shrink(page, rng.randint(256, 384))
    return compress(page, rng.randint(60, 95)) if rng.random() < 0.6 else page


def write(out: PathLike, per_kind: int, seed: int, backgrounds: Sequence[Image.Image] = ()) -> int:
    """Render `per_kind` pictures of every kind into a folder and return how many were written.

    Files: images/*.webp, captions.jsonl (one caption per line), labels.csv (file, label, split; 15 % test).
    """
    out = Path(out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        (out / "captions.jsonl").open("w", encoding="utf-8") as captions,
        (out / "labels.csv").open("w", encoding="utf-8", newline="") as labels,
    ):
        rows = csv.writer(labels, lineterminator="\n")
        rows.writerow(("file", "label", "split"))
        for kind, texts in KINDS.items():
            for index in range(per_kind):
                number = seed * 1_000_003 + index
                file = f"images/{kind.replace(' ', '-')}-{seed}-{index:04}.webp"
                render(kind, number, backgrounds).save(out / file, "WEBP", quality=82, method=2)
                chance = random.Random(f"split {kind} {number}")
                captions.write(json.dumps({"file": file, "caption": chance.choice(texts)}) + "\n")
                rows.writerow((file, kind, "test" if chance.random() < 0.15 else "train"))
                count += 1
    return count


def _photos(folder: Path | None, listed: Path | None, most: int, seed: int) -> list[Image.Image]:
    """Load up to `most` photos of a folder, chosen by the seed and scaled to at most 512 pixels.

    Raises:
        DataError: the folder or the table of splits is missing.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
    if listed is not None:
        train = {Path(file).name for file, split in read_splits(listed).items() if split == "train"}
        files = [path for path in files if path.name in train]
    chosen = random.Random(seed).sample(files, min(most, len(files)))
    photos = []
    for path in chosen:
        with Image.open(path) as photo:
            small = photo.convert("RGB")
            small.thumbnail((512, 512))
            photos.append(small)
    return photos


def main(arguments: Sequence[str] | None = None) -> None:
    """Render training pictures of receipts, documents, cards, screens and memes into a folder."""
    parser = argparse.ArgumentParser(prog="python -m distill.render", description=main.__doc__)
    parser.add_argument("out", type=Path, help="folder for images/, captions.jsonl and labels.csv")
    parser.add_argument("--per-kind", type=int, default=60, help="pictures per kind (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same pictures (default: 0)")
    parser.add_argument("--backgrounds", type=Path, help="folder of photos to use as backgrounds")
    parser.add_argument("--splits", type=Path, help="CSV with file,split: only use backgrounds of the split train")
    parser.add_argument("--most-backgrounds", type=int, default=400, help="load at most this many backgrounds")
    args = parser.parse_args(arguments)
    try:
        photos = _photos(args.backgrounds, args.splits, args.most_backgrounds, args.seed)
    except DataError as error:
        parser.error(str(error))
    print(f"{write(args.out, args.per_kind, args.seed, photos)} pictures in {args.out}")

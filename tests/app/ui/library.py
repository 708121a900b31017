"""A folder of photographs with dates and subfolders, made from the few that freely licensed packages contain."""

import os
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

PHOTOS = {
    "skimage": (
        "data",
        ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "moon.png", "motorcycle_left.png",
         "hubble_deep_field.jpg", "coins.png", "page.png", "brick.png", "grass.png"),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip
OFTEN = ("china", "flower", "astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "coins")
NEWEST = datetime(2026, 3, 14, 17, 20)


@cache
def originals() -> dict[str, Image.Image]:
    """Every photograph by its name."""
    found = {}
    for package, (folder, names) in PHOTOS.items():
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        for name in names:
            path = Path(spec.submodule_search_locations[0], folder, name)
            if path.exists():
                found[path.stem] = Image.open(path).convert("RGB")
    return found


def variations(seed: int = 0) -> Iterator[tuple[str, Image.Image]]:
    """Endlessly: each photograph whole at first, then parts of it in other light."""
    rng = random.Random(seed)
    pictures = originals()
    yield from pictures.items()
    often = [name for name in OFTEN if name in pictures]
    while True:
        name = rng.choice(often)
        picture = pictures[name]
        share = rng.uniform(0.55, 0.95)
        width, height = int(picture.width * share), int(picture.height * rng.uniform(max(0.5, share - 0.2), share))
        left, top = rng.randrange(picture.width - width + 1), rng.randrange(picture.height - height + 1)
        part = picture.crop((left, top, left + width, top + height))
        if rng.random() < 0.5:
            part = ImageOps.mirror(part)
        part = ImageEnhance.Brightness(part).enhance(rng.uniform(0.75, 1.2))
        yield name, ImageEnhance.Color(part).enhance(rng.uniform(0.6, 1.3))


def write_photos(
    folder: Path, count: int, seed: int = 0, longest: int = 640, a_day: Sequence[int] = (1, 2, 4, 7, 11)
) -> list[Path]:
    """Write JPEGs into three folders, some days with many photos and some with few; `a_day` is drawn from.

    The date is in the EXIF of four out of five; the fifth has it as the date of its file.
    """
    rng = random.Random(seed)
    paths = []
    when = NEWEST
    days = [rng.choice(a_day) for _ in range(count)]
    left = days.pop()
    for number, (name, picture) in zip(range(count), variations(seed), strict=False):
        if left == 0:
            left = days.pop() if days else 3
            when -= timedelta(days=rng.choice((1, 2, 5, 9, 26)))
        left -= 1
        taken = when - timedelta(minutes=13 * left)
        place = folder / ("Travel", "Home", "Camera")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"IMG_{number:04d}_{name}.jpg"
        picture = picture.copy()
        picture.thumbnail((longest, longest))
        exif = Image.Exif()
        if number % 5:
            exif[0x0110] = "Pocket One"
            exif[0x8769] = {0x9003: taken.strftime("%Y:%m:%d %H:%M:%S")}
        picture.save(path, quality=85, exif=exif)
        os.utime(path, (taken.timestamp(),) * 2)
        paths.append(path)
    return paths

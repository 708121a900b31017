"""Screenshots of every screen, in windows that need no display: `python -m tests.app.ui.screenshots [--readme]`.

A library of photographs out of scikit-image and scikit-learn, and of parts of them, is indexed with a real bundle and
shown in a phone's and in a desktop's size, light and dark, with two pixels to a dp. All of them go into
build/screenshots; the few that the README shows also go, smaller and with a palette, into app/ui/screenshots.
"""

import argparse
import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("KIVY_METRICS_DENSITY", "2")

from tests.app.ui.driver import Driver  # first: it tells Kivy what to leave alone

# isort: split
from PIL import Image

import mobileclip
from app.library.gallery import Query
from app.ui.kit.theme import theme
from app.ui.screens.custom_label.dialog import CustomLabelDialog
from tests.app.ui.library import write_photos

SIZES = {"phone": (780, 1600), "desktop": (2360, 1480)}
PHOTOS = 120
SHOWN = Path("app/ui/screenshots")
WORDS, IN_PHOTO, WHERE = "a motorcycle", "china", "building"

# What the README shows: file, and its width there in pixels.
IN_README = {
    "phone-light-photos": 300,
    "phone-light-search": 300,
    "phone-dark-photo": 300,
    "phone-dark-review": 300,
    "desktop-light-where": 620,
}
MOST_BYTES = 150_000


class Shots:
    """Takes pictures of one driver in one size."""

    def __init__(self, driver: Driver, size: tuple[int, int]) -> None:
        self.driver, self.app = driver, driver.app
        driver.resize(*size)
        driver.rest(0.3)

    def take(self) -> Image.Image:
        """The window when everything has arrived."""
        self.driver.until(lambda: not self.app.pictures.waiting)
        self.driver.rest(0.8)
        return self.driver.picture()

    def all(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Image.Image]]:
        """Every wanted screen with its name."""
        for name in ("photos", "albums", "review", "settings"):
            if wanted(name):
                yield name, self.main_screen(name)
        others = {
            "selection": self.selection,
            "start": self.start,
            "search": lambda: self.search(WORDS),
            "custom-label": self.custom_label,
            "album": self.album,
        }
        for name, take in others.items():
            if wanted(name):
                yield name, take()
        if any(wanted(name) for name in ("photo", "panel", "where")):
            yield from self.photo()

    def main_screen(self, name: str) -> Image.Image:
        """A screen of the navigation."""
        self.app.go(name)
        self.driver.rest(0.5)
        if name == "review":
            self.driver.until(lambda: self.driver.shell.screen.model.doubt)
        return self.take()

    def selection(self) -> Image.Image:
        """Some photos selected."""
        self.app.go("photos")
        grid = self.driver.shell.screen.grid
        for index in (0, 2, 3):
            grid.selection.toggle(int(grid.ids_shown[index]))
        picture = self.take()
        grid.selection.clear()
        return picture

    def start(self) -> Image.Image:
        """The search screen before a search."""
        self.app.search(Query())
        return self.take()

    def search(self, words: str) -> Image.Image:
        """The results of a search."""
        self.app.go("search")
        screen = self.driver.shell.screen
        screen.field.text = words
        self.driver.until(lambda: screen.model.results is not None and not screen.model.working)
        picture = self.take()
        screen.model.submit()
        screen.clear()
        screen.field.focus = False
        return picture

    def photo(self) -> Iterator[tuple[str, Image.Image]]:
        """One photo, and with a heat map if the model can localize."""
        self.app.go("photos")
        grid = self.driver.shell.screen.grid
        ids = grid.ids_shown.tolist()
        photos = self.app.actions.photos_of(ids)
        index = next(ids.index(photo.id) for photo in photos if IN_PHOTO in photo.path)
        self.app.open_photo(grid.ids_shown, index, None)
        layer = self.driver.shell.top_layer
        self.driver.until(lambda: layer.model.details and layer.model.similar and not layer._tickets)
        yield "photo", self.take()
        if not layer.panel_open:
            layer.toggle_panel()
            yield "panel", self.take()
        if self.app.session.can_localize:
            layer.verbs.find(WHERE)
            self.driver.until(lambda: layer.model.where is not None)
            yield "where", self.take()
        layer.close()

    def custom_label(self) -> Image.Image:
        """The dialog for a new label."""
        self.app.go("albums")
        self.app.edit_label()
        dialog = self.driver.shell.top_layer
        assert isinstance(dialog, CustomLabelDialog)
        dialog.name_field.text, dialog.phrase_field.text = "Breakfast", "a cup of coffee; a spoon on a table"
        dialog.slider.value = 0.7
        self.driver.rest(0.5)
        self.driver.until(lambda: dialog.shown is not None)
        picture = self.take()
        dialog.close()
        return picture

    def album(self) -> Image.Image:
        """The photos of one label."""
        self.app.go("albums")
        self.driver.until(lambda: self.driver.shell.screen.cards)
        card = self.driver.shell.screen.cards[0]
        self.app.open_album(card.album.label, card.album.own)
        return self.take()


def first_run(home: Path) -> Iterator[tuple[str, Image.Image]]:
    """The welcome of an empty home, in both sizes and themes."""
    driver = Driver(home, functools.partial(mobileclip.load, "pocket"), SIZES["phone"])
    for size in SIZES:
        for dark in (False, True):
            theme.dark = dark
            yield f"{size}-{'dark' if dark else 'light'}-welcome", Shots(driver, SIZES[size]).take()
    theme.dark = False
    driver.close()


def small(picture: Image.Image, width: int) -> Image.Image:
    """For a README: reduced, with a palette."""
    size = width, round(picture.height * width / picture.width)
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def save_small(picture: Image.Image, width: int, path: Path) -> None:
    """Write a PNG with as many colors as fit into its share of a clone."""
    reduced = small(picture, width)
    for colors in (256, 192, 128, 96, 64, 48):
        # Small areas keep their colors by k-means, and the heat of a map its even slope by dithering.
        palette = reduced.quantize(colors, Image.Quantize.MEDIANCUT, kmeans=3)
        reduced.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise SystemExit(f"{path} does not fit into {MOST_BYTES} bytes; make it less wide")


def main() -> None:
    """Write all screenshots into a folder, and those of the README into its folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/screenshots"))
    parser.add_argument("--model", default="pocket", help="a bundle's name or path")
    parser.add_argument("--readme", action="store_true", help="only what the README shows")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    SHOWN.mkdir(parents=True, exist_ok=True)

    def keep(name: str, picture: Image.Image) -> None:
        picture.save(given.folder / f"{name}.png")
        if name in IN_README:
            save_small(picture, IN_README[name], SHOWN / f"{name}.png")

    with tempfile.TemporaryDirectory() as name:
        home, photos = Path(name, "home"), Path(name, "Pictures")
        if not given.readme:
            for shot in first_run(Path(name, "empty")):
                keep(*shot)
        write_photos(photos, PHOTOS, a_day=(5, 6, 9, 12))
        driver = Driver(home, functools.partial(mobileclip.load, given.model), SIZES["phone"], roots=[str(photos)])
        driver.until(lambda: driver.app.session.labels and not driver.app.session.indexing)
        for size in SIZES:
            for looks in ("light", "dark"):
                stem = f"{size}-{looks}-"
                theme.dark = looks == "dark"
                shots = Shots(driver, SIZES[size])
                for screen, picture in shots.all(lambda n, stem=stem: not given.readme or stem + n in IN_README):
                    keep(stem + screen, picture)
        theme.dark = False
        driver.close()
    print(*sorted(given.folder.glob("*.png")), sep="\n")


if __name__ == "__main__":
    main()

"""Screenshots of every screen for the README: `python -m tests.ui.screenshots FOLDER [MODEL]`, or `make screenshots`.

A library of photographs out of scikit-image and scikit-learn and parts of them is indexed with a real bundle, and
shown in a window of a phone's and of a desktop's size, with two pixels to a dp. No screen is needed.
"""

import functools
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KIVY_METRICS_DENSITY", "2")

from PIL import Image

import mobileclip
from app.ui.theme import theme
from tests.ui.driver import Driver
from tests.ui.library import write_photos

PHONE, DESKTOP = (780, 1600), (2360, 1480)
PHOTOS = 120


class Shots:
    """Takes pictures of one driver."""

    def __init__(self, driver: Driver, size: tuple[int, int]) -> None:
        self.driver = driver
        driver.resize(*size)
        driver.rest(0.3)

    def take(self) -> Image.Image:
        """The window when everything has arrived."""
        self.driver.until(lambda: not self.driver.app.pictures.waiting)
        self.driver.rest(0.8)
        return self.driver.picture()

    def place(self, name: str) -> Image.Image:
        """One place of the navigation."""
        self.driver.app.go(name)
        self.driver.rest(0.5)
        if name == "review":
            self.driver.until(lambda: self.driver.stage.place.model.doubt)
        return self.take()

    def search(self, words: str) -> Image.Image:
        """What is found for some words."""
        self.driver.app.go("search")
        place = self.driver.stage.place
        place.field.text = words
        self.driver.until(lambda: place.model.results is not None and not place.model.working)
        return self.take()

    def photo(self, name: str, where: str) -> Image.Image:
        """One photo, with the map of where something is if the model can tell."""
        self.driver.app.go("photos")
        grid = self.driver.stage.place.grid
        ids = grid.ids_shown.tolist()
        photos = self.driver.app.photos_of(ids)
        index = next(ids.index(photo.id) for photo in photos if name in photo.path)
        self.driver.app.open_photo(grid.ids_shown, index, None)
        layer = self.driver.stage.uppermost
        self.driver.until(lambda: layer.model.details and layer.model.similar and not layer._tickets)
        if self.driver.app.session.can_localize:
            layer.act("where", where)
            self.driver.until(lambda: layer.model.where is not None)
        picture = self.take()
        layer.close()
        return picture


def beside(pictures: list[Image.Image], height: int, gap: int = 24) -> Image.Image:
    """Pictures in a row, on white."""
    scaled = [picture.resize((picture.width * height // picture.height, height)) for picture in pictures]
    row = Image.new("RGB", (sum(one.width for one in scaled) + gap * (len(scaled) - 1), height), "white")
    x = 0
    for one in scaled:
        row.paste(one, (x, 0))
        x += one.width + gap
    return row


def main(folder: Path, model: str) -> None:
    """Write the screenshots into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        home, photos = Path(name, "home"), Path(name, "Pictures")
        write_photos(photos, PHOTOS)
        load = functools.partial(mobileclip.load, model)
        driver = Driver(home, load, PHONE, folders=[str(photos)])
        driver.until(lambda: driver.app.session.labels and not driver.app.session.indexing)
        phone = Shots(driver, PHONE)
        shots = [phone.place("photos"), phone.search("a cup of coffee"), phone.photo("astronaut", "a helmet")]
        shots += [phone.place("albums"), phone.place("review")]
        beside(shots, 1000).save(folder / "phone.jpg", quality=86)
        desktop = Shots(driver, DESKTOP)
        desktop.photo("motorcycle", "a wheel").resize((1180, 740)).save(folder / "photo.jpg", quality=86)
        theme.dark = True
        beside([desktop.place("photos"), desktop.place("settings")], 560).save(folder / "dark.jpg", quality=86)
        driver.close()
    print(*sorted(folder.glob("*.jpg")), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "pocket")

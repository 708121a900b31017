"""Every screen draws real photos in every size and both themes: nothing is blank, and each tile shows its own photo."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageOps

from app.ui.kit.theme import theme
from tests.app.ui.driver import Driver
from tests.app.ui.model import ColorModel

SIZES = [(360, 640), (640, 360), (768, 1024), (1920, 1080)]


def texture_of(picture: Image.Image) -> tuple[int, float]:
    """How many colors a picture has, and how much they differ: hardly any, and hardly at all, if it is blank."""
    small = np.asarray(picture.resize((96, 96)), np.float32)
    return len({tuple(pixel) for pixel in (small.reshape(-1, 3) // 16).astype(int).tolist()}), float(small.std())


def open_screen(driver: Driver, name: str) -> None:
    """Open a main screen, and wait until everything on it has arrived."""
    driver.app.go(name)
    screen = driver.shell.screen
    there = {
        "photos": lambda: screen.grid.tiles,
        "search": lambda: screen.start.column.children,
        "albums": lambda: screen.cards,
        "review": lambda: screen.asking and not screen.waiting,
        "settings": lambda: screen.ids.storage.children,
    }
    driver.until(there[name], name)
    driver.rest(0.3)
    driver.until(lambda: not driver.app.pictures.waiting, "pictures")


def check_tiles(driver: Driver, picture: Image.Image) -> int:
    """Compare every fully visible tile with its own file, read independently; returns how many there were."""
    grid, checked = driver.shell.screen.grid, 0
    for tile in grid.tiles:
        x, y = tile.to_window(*tile.pos)
        top = picture.height - y - tile.height
        box = (round(x), round(top), round(x + tile.width), round(top + tile.height))
        heading = picture.height - grid.to_window(0, grid.top)[1] + grid.sticky.height
        if box[1] < heading or box[3] > picture.height - grid.to_window(*grid.pos)[1]:
            continue
        shown = np.asarray(picture.crop(box).resize((8, 8), Image.Resampling.BOX), np.float32)
        with Image.open(tile.photo.path) as file:
            whole = ImageOps.exif_transpose(file).convert("RGB")
        expected = ImageOps.fit(whole, (8, 8), Image.Resampling.BOX, centering=(0.5, 0.4))
        assert np.abs(shown - np.asarray(expected, np.float32)).mean() < 14, tile.photo.path
        checked += 1
    return checked


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_each_screen_draws_in_every_size(gallery: Driver, size: tuple[int, int]) -> None:
    gallery.resize(*size)
    pictures: dict[str, Image.Image] = {}
    for name in ("photos", "search", "albums", "review", "settings"):
        open_screen(gallery, name)
        pictures[name] = gallery.picture()
        colors, contrast = texture_of(pictures[name])
        assert pictures[name].size == size and colors > 8 and contrast > 6, name
    for first, second in itertools.combinations(pictures, 2):
        difference = np.abs(np.asarray(pictures[first], int) - np.asarray(pictures[second], int)).mean()
        assert difference > 2, (first, second)


def test_every_tile_shows_its_own_photo_even_after_scrolling(gallery: Driver) -> None:
    grid = gallery.shell.screen.grid
    assert check_tiles(gallery, gallery.picture()) >= 4
    for at in (0.0, 0.5, 0.9):
        grid.scroll.scroll_y = at
        gallery.until(lambda: not gallery.app.pictures.waiting)
        gallery.rest(0.2)
        assert check_tiles(gallery, gallery.picture()) >= 4


def test_turning_the_device_keeps_the_photo_at_the_top(gallery: Driver) -> None:
    grid = gallery.shell.screen.grid
    grid.scroll.scroll_y = 0.4
    gallery.rest(0.2)
    first = int(grid.ids_shown[grid.viewport.rows.span(grid.viewport.top, grid.viewport.top + 10)[0]])
    gallery.resize(640, 400)
    gallery.rest(0.3)
    seen = grid.viewport.rows.span(grid.viewport.top, grid.viewport.top + grid.scroll.height)
    assert first in grid.ids_shown[seen.start : seen.stop].tolist()
    gallery.resize(900, 900)
    gallery.until(lambda: not gallery.app.pictures.waiting)
    gallery.rest(0.2)
    assert check_tiles(gallery, gallery.picture()) >= 4


def test_dark_is_dark_everywhere(gallery: Driver) -> None:
    gallery.app.go("settings")
    gallery.rest(0.3)
    light = np.asarray(gallery.picture()).mean()
    switch = gallery.shell.screen.ids.dark
    gallery.tap(switch)
    gallery.rest(0.3)
    try:
        assert theme.dark and gallery.app.session.settings.dark
        assert np.asarray(gallery.picture()).mean() < 60 < 180 < light
    finally:
        theme.dark = False


def test_one_photo_and_where_something_is_in_it(gallery: Driver) -> None:
    grid = gallery.shell.screen.grid
    flower = next(tile for tile in grid.tiles if "flower" in tile.photo.path)
    gallery.app.open_photo(grid.ids_shown, flower.index, grid)
    layer = gallery.shell.top_layer
    gallery.until(lambda: layer.model.details and not layer._tickets, "the photo")
    gallery.rest(0.4)
    plain = np.asarray(gallery.picture(), np.float32)
    layer.verbs.find("orange")
    gallery.until(lambda: layer.model.where is not None, "the map")
    gallery.rest(0.5)
    mapped = np.asarray(gallery.picture(), np.float32)
    x, y, width, height = layer.view.frame()
    heat = layer.model.where.heat
    # What is not orange is dimmed: the picture changes most where the map is coldest.
    change = np.abs(mapped - plain).mean(axis=2)[::-1]
    rows, columns = np.mgrid[0 : heat.shape[0], 0 : heat.shape[1]]
    ys = np.clip(y + (1 - (rows + 0.5) / heat.shape[0]) * height, 0, change.shape[0] - 1).astype(int)
    xs = np.clip(x + (columns + 0.5) / heat.shape[1] * width, 0, change.shape[1] - 1).astype(int)
    assert change.max() > 20 and change[ys, xs].std() > 3
    assert "orange" in layer.legend_text
    gallery.key("escape")
    assert layer.model.where is None and gallery.shell.top_layer is layer
    gallery.key("escape")
    assert gallery.shell.top_layer is None


def test_a_model_that_cannot_say_where_says_so(library, open_gallery) -> None:
    class Blind(ColorModel):
        def __init__(self) -> None:
            super().__init__()
            self.seeing, self.head = self.head, None

        def encode_features(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.head = self.seeing
            try:
                return super().encode_features(pixels)
            finally:
                self.head = None

    driver = open_gallery(library.home, load_model=Blind)
    driver.until(lambda: driver.app.session.model and driver.shell.screen.grid.tiles)
    driver.app.open_photo(driver.shell.screen.grid.ids_shown, 0, None)
    layer = driver.shell.top_layer
    layer.verbs.find("red")
    driver.until(lambda: layer.model.trouble)
    assert "cannot" in layer.model.trouble and not layer.panel.can_localize

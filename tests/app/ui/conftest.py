"""An indexed library of real photographs, and the gallery in a real window on a copy of it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.library.index.job import IndexJob
from app.library.index.run import Options
from app.library.pictures.thumbnails import Thumbnails
from tests.app.ui.driver import Driver
from tests.app.ui.library import write_photos
from tests.app.ui.model import ColorModel

PHOTOS = 36


@dataclass
class Library:
    """A folder of photos, and a home with the index of it."""

    photos: Path
    home: Path


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Library:
    photos, home = tmp_path_factory.mktemp("Pictures"), tmp_path_factory.mktemp("home")
    write_photos(photos, PHOTOS, longest=320)
    thumbnails = Thumbnails(home / "cache" / "thumbnails")
    job = IndexJob(home / "index.db", ColorModel, [str(photos)], Options(decoders=1), thumbnails)
    job.start()
    assert job.join() and job.state.stage == "done", job.state.error
    return Library(photos, home)


@pytest.fixture
def library(indexed: Library, tmp_path: Path) -> Library:
    """A copy of the home that a test may change; the photos are only read."""
    home = tmp_path / "home"
    shutil.copytree(indexed.home, home)
    return Library(indexed.photos, home)


Open = Callable[..., Driver]


@pytest.fixture
def open_gallery() -> Iterator[Open]:
    """Open a home in a window; closed at the end of the test."""
    opened: list[Driver] = []

    def open_home(
        home: Path, size: tuple[int, int] = (400, 640), load_model: Callable[[], Any] = ColorModel, **options: Any
    ) -> Driver:
        driver = Driver(home, load_model, size, **options)
        opened.append(driver)
        return driver

    yield open_home
    for driver in opened:
        driver.close()


@pytest.fixture
def gallery(library: Library, open_gallery: Open) -> Driver:
    """The gallery on the library, in a phone's window, with its photos there."""
    driver = open_gallery(library.home)
    driver.until(lambda: driver.app.session.labels, "labels")
    driver.until(lambda: driver.shell.screen.grid.tiles and not driver.app.pictures.waiting, "thumbnails")
    return driver

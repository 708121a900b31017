"""When something is wrong, the state is clear and nothing is lost."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobileclip.errors import BundleError
from tests.app.ui.conftest import Library, Open
from tests.app.ui.library import write_photos


def test_indexing_that_cannot_begin_says_why(tmp_path: Path, open_gallery: Open) -> None:
    def fail() -> None:
        raise BundleError("the bundle has a damaged tower")

    photos = tmp_path / "photos"
    write_photos(photos, 3, longest=160)
    driver = open_gallery(tmp_path / "home", load_model=fail, roots=[str(photos)])
    driver.until(lambda: not driver.app.session.indexing)
    screen = driver.shell.screen
    driver.until(lambda: screen.grid.notice.text)
    assert "damaged tower" in screen.grid.notice.text and "stopped" in screen.grid.notice.title
    # The timeline may come between the job's end and the next look at the job, and bring the notice before its line.
    driver.until(lambda: "damaged tower" in screen.job.text, "the job's line")
    driver.app.go("settings")
    driver.rest(0.2)
    assert "damaged tower" in driver.shell.screen.ids.job.text


def test_a_folder_that_may_not_be_listed_is_reported(
    tmp_path: Path, open_gallery: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    write_photos(photos, 3, longest=160)
    real = os.scandir

    def denied(path: str) -> object:
        if str(path).startswith(str(photos)):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("app.library.files.scan.os.scandir", denied)
    driver = open_gallery(tmp_path / "home", roots=[str(photos)])
    driver.until(lambda: not driver.app.session.indexing)
    notice = driver.shell.screen.grid.notice
    driver.until(lambda: notice.title, "the notice")
    assert str(photos) in notice.text and "allow access" in notice.text
    monkeypatch.setattr("app.library.files.scan.os.scandir", real)
    notice.dispatch("on_accept")
    driver.until(lambda: len(driver.shell.screen.grid.ids_shown) == 3, "the photos")


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Run without root's rights, for whom nothing is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX here")
def test_a_read_only_disk_is_reported_and_left_alone(library: Library, open_gallery: Open) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        home = Path(name, "home")
        shutil.copytree(library.home, home)
        Path(name).chmod(0o755)
        for folder, _, files in os.walk(home, topdown=False):
            for file in files:
                Path(folder, file).chmod(0o444)
            Path(folder).chmod(0o555)
        before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
        try:
            with nobody():
                driver = open_gallery(home)
                screen = driver.shell.screen
                assert screen.name == "broken" and "read-only" in screen.notice.text
                screen.start_over()
                driver.rest(0.2)
                assert driver.shell.screen.name == "broken"
                driver.close()
            assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before
        finally:
            for folder, _, _ in os.walk(home):
                Path(folder).chmod(0o755)


def test_ten_thousand_photos_are_as_quick_and_as_small_as_a_screenful(tmp_path: Path, open_gallery: Open) -> None:
    """Every screenful of a long library, one after another: few widgets, few textures, and memory that stays."""
    from tests.benchmarks.gallery import fill, resident

    fill(tmp_path / "home", tmp_path / "photos", 10_000, longest=160)
    driver = open_gallery(tmp_path / "home", (800, 800))
    driver.each_drawn = True
    grid = driver.shell.screen.grid
    driver.until(lambda: len(grid.ids_shown) == 10_000 and grid.tiles, "all photos")
    grid.cell = 96
    driver.app.pictures._textures.budget = 8 * 2**20  # full after the first way through
    sizes, steps = [], 16
    for step in range(4 * steps):
        grid.scroll.scroll_y = 1 - (step % steps) / (steps - 1)
        driver.frames(3)
        if step % steps == steps - 1:
            driver.until(lambda: not driver.app.pictures.waiting, "thumbnails")
            sizes.append(resident())
            assert len(grid.content.children) < 400
            assert len(grid.content.children) < 400
    assert driver.app.pictures.bytes <= driver.app.pictures._textures.budget
    # What grows after the second way through would grow without end.
    assert sizes[3] - sizes[1] < 16e6, sizes
    with sqlite3.connect(tmp_path / "home" / "index.db") as index:
        assert index.execute("SELECT count(*) FROM photos").fetchone() == (10_000,)

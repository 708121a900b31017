"""What users do, end to end, with fingers and keys, in a real window over a real index."""

import os
import shutil
import sqlite3
import threading
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from app.library.gallery import Query
from app.ui.kit.layers import Dialog, PickDialog, PickRow, Toast
from app.ui.kit.shell import NavItem
from app.ui.kit.widgets import Chip, IconButton, TextButton
from app.ui.screens.custom_label.dialog import CustomLabelDialog
from app.ui.screens.photo.panel import TagRow
from app.ui.screens.review.screen import VerdictButton
from app.ui.screens.search.completions import SuggestionRow
from app.ui.screens.search.conditions import add_folder, conditions_of
from mobileclip.errors import BundleError
from tests.app.ui.conftest import Library, Open
from tests.app.ui.driver import PATIENCE, Driver
from tests.app.ui.library import write_photos
from tests.app.ui.model import ColorModel


def verdicts(home: Path) -> list[tuple[str, int]]:
    """The corrections in the index file."""
    with sqlite3.connect(home / "index.db") as index:
        return index.execute("SELECT label, verdict FROM corrections ORDER BY label").fetchall()


def test_search_open_reject_and_back(gallery: Driver, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine the frames after a tap may take longer than a message stays.
    monkeypatch.setattr("app.ui.kit.layers.TOAST_SECONDS", 60.0)
    gallery.tap(gallery.find(NavItem, icon="search"))
    screen = gallery.shell.screen
    gallery.tap(screen.field)
    screen.field.text = "red"
    gallery.until(lambda: screen.model.results is not None and not screen.model.working, "results")
    gallery.until(lambda: screen.grid.tiles)
    assert screen.grid.sections[0].title == "Best matches"
    gallery.key("escape")
    gallery.rest(0.2)
    gallery.tap(screen.grid.tiles.get(0))
    layer = gallery.shell.top_layer
    gallery.until(lambda: layer is not None and layer.model.details, "the photo")
    gallery.tap(gallery.find(IconButton, layer, icon="info"))
    row = gallery.until(lambda: gallery.find(TagRow, layer, label="red"), "its labels")
    gallery.tap(gallery.find(IconButton, row, icon="close"))
    gallery.until(lambda: [tag.verdict for tag in layer.model.tags if tag.label == "red"] == [False])
    assert verdicts(library.home) == [("red", 0)]
    assert gallery.find(TagRow, layer, label="red").rejected
    toast = gallery.until(lambda: gallery.find(Toast), "the message")
    toast.act()
    gallery.until(lambda: [tag.verdict for tag in layer.model.tags if tag.label == "red"] == [None])
    assert verdicts(library.home) == []
    gallery.key("escape")
    assert gallery.shell.top_layer is None and gallery.shell.screen is screen and screen.field.text == "red"


def test_swiping_goes_through_the_photos(gallery: Driver) -> None:
    grid = gallery.shell.screen.grid
    gallery.tap(grid.tiles.get(0))
    layer = gallery.shell.top_layer
    gallery.until(lambda: layer.model.details and not layer._tickets)
    assert layer.model.index == 0 and not layer.has_previous and layer.has_next
    gallery.drag((320, 300), (60, 310))
    assert layer.model.index == 1 and layer.model.photo.id == grid.ids_shown[1]
    gallery.drag((60, 300), (320, 310))
    gallery.drag((60, 300), (320, 310))
    assert layer.model.index == 0
    gallery.drag((200, 300), (225, 305))
    assert layer.model.index == 0
    gallery.key("right")
    gallery.rest(0.4)
    assert layer.model.index == 1
    layer.view.zoom_about(layer.view.center, 3.0)
    gallery.drag((320, 300), (60, 310))
    assert layer.model.index == 1 and layer.view.pan_x < 0
    layer.view.rest()
    gallery.drag((200, 400), (205, 180))
    assert gallery.shell.top_layer is None and grid.keyboard.cursor == 1


def test_long_press_selects_and_a_label_is_given_to_all(gallery: Driver, library: Library) -> None:
    grid = gallery.shell.screen.grid
    gallery.press(grid.tiles.get(1), 0.7)
    assert grid.selection.ids == [grid.ids_shown[1]] and gallery.shell.top_layer is None
    gallery.tap(grid.tiles.get(2))
    assert len(grid.selection) == 2
    gallery.tap(gallery.find(IconButton, icon="tag"))
    pick = gallery.shell.top_layer
    assert isinstance(pick, PickDialog)
    pick.field.text = "holiday"
    gallery.rest(0.2)
    gallery.tap(gallery.find(PickRow, pick, text="holiday"))
    gallery.until(lambda: verdicts(library.home) == [("holiday", 1), ("holiday", 1)])
    gallery.until(lambda: not len(grid.selection))
    gallery.app.go("albums")
    gallery.until(lambda: any(card.title == "holiday" for card in gallery.shell.screen.cards), "the album")


def test_keys_alone(gallery: Driver) -> None:
    screen, grid = gallery.shell.screen, gallery.shell.screen.grid
    for key in ("right", "right", "right", "left"):
        gallery.key(key)
    assert grid.keyboard.cursor == 1 and grid.tiles.get(1).at_cursor
    gallery.key("spacebar", text=" ")
    assert grid.selection.ids == [grid.ids_shown[1]]
    gallery.key("a", "ctrl")
    assert len(grid.selection) == len(grid.ids_shown)
    gallery.key("escape")
    assert not len(grid.selection)
    gallery.key("end")
    gallery.rest(0.3)
    assert grid.keyboard.cursor == len(grid.ids_shown) - 1 and grid.tiles.get(grid.keyboard.cursor) is not None
    gallery.key("enter")
    assert gallery.shell.top_layer.model.index == len(grid.ids_shown) - 1
    gallery.key("escape")
    gallery.key("?", text="?")
    assert isinstance(gallery.shell.top_layer, Dialog)
    gallery.key("escape")
    columns = grid.columns
    gallery.key("-", text="-")
    assert grid.columns > columns
    gallery.key("/", text="/")
    assert gallery.shell.screen.name == "search" and gallery.shell.screen.field.focus
    gallery.key("x", text="x")
    assert gallery.shell.screen.name == "search"
    gallery.key("escape")
    gallery.app.go("photos")
    assert gallery.shell.screen is screen


def test_a_custom_label_with_a_live_preview(gallery: Driver, library: Library) -> None:
    gallery.tap(gallery.find(NavItem, icon="albums"))
    gallery.rest(0.3)
    gallery.tap(gallery.find(TextButton, text="New label"))
    dialog = gallery.shell.top_layer
    assert isinstance(dialog, CustomLabelDialog) and gallery.until(lambda: dialog.save_button.disabled)
    dialog.name_field.text = "Sunset"
    dialog.phrase_field.text = "red; orange"
    gallery.until(lambda: dialog.shown is not None and dialog.shown.count, "the preview")
    counts = []
    for value in (0.0, 1.0):
        dialog.slider.value = value
        before = dialog.shown
        gallery.until(lambda before=before: dialog.shown is not before, "another preview")
        counts.append(dialog.shown.count)
    assert counts[0] < counts[1]
    gallery.tap(dialog.save_button)
    gallery.until(lambda: gallery.shell.top_layer is None, "saving")
    albums = gallery.shell.screen
    card = gallery.until(lambda: next((card for card in albums.cards if card.title == "Sunset"), None), "its album")
    assert card.album.own and card.album.count == counts[1]
    gallery.tap(card)
    album = gallery.shell.screen
    gallery.until(lambda: len(album.grid.ids_shown) == counts[1], "its photos")
    gallery.key("escape")
    assert gallery.shell.screen is albums


def test_review_answers_and_undo(gallery: Driver, library: Library) -> None:
    gallery.tap(gallery.find(NavItem, icon="review"))
    screen = gallery.shell.screen
    gallery.until(lambda: screen.model.doubt, "a question")
    gallery.rest(0.3)
    first = screen.model.doubt
    gallery.tap(gallery.find(VerdictButton, icon="check"))
    gallery.until(lambda: verdicts(library.home) == [(first.label, 1)])
    gallery.key("backspace")
    gallery.until(lambda: verdicts(library.home) == [])
    assert screen.model.doubt is first
    gallery.key("n", text="n")
    gallery.until(lambda: verdicts(library.home) == [(first.label, 0)])
    second = screen.model.doubt
    gallery.key("s", text="s")
    assert screen.model.doubt is not second and len(verdicts(library.home)) == 1


def test_conditions_of_a_search_are_chips(gallery: Driver, library: Library) -> None:
    gallery.app.go("search")
    screen = gallery.shell.screen
    screen.model.set(Query())
    screen.field.focus = True
    screen.field.text = "blu"
    gallery.until(lambda: gallery.find(SuggestionRow, text="blue"), "a suggestion")
    gallery.rest(0.2)  # it is made in one frame and laid out in the next
    gallery.tap(gallery.find(SuggestionRow, text="blue"))
    gallery.until(
        lambda: screen.model.query != Query() and screen.model.results is not None and not screen.model.working
    )
    blue = screen.model.results.ids.tolist()
    assert [condition.kind for condition in conditions_of(screen.model.query)] == ["label"] and screen.field.text == ""
    assert blue and not screen.model.ranked
    screen.model.refine(add_folder(screen.model.query, str(library.photos / "Travel")))
    gallery.until(lambda: not screen.model.working)
    travel = screen.model.results.ids.tolist()
    assert travel == [photo for photo in blue if photo in travel] and len(travel) < len(blue)
    photos = gallery.app.actions.photos_of(travel)
    assert all(Path(photo.path).parent.name == "Travel" for photo in photos)
    gallery.rest(0.2)
    gallery.tap(gallery.find(Chip, screen, mark="close"))
    gallery.until(lambda: not screen.model.working)
    assert [condition.kind for condition in conditions_of(screen.model.query)] == ["folder"]
    gallery.key("escape")
    gallery.key("escape")
    assert screen.model.empty and screen.model.results is None


def test_more_like_this_photo(gallery: Driver) -> None:
    grid = gallery.shell.screen.grid
    photo = gallery.app.actions.photos_of([int(grid.ids_shown[0])])[0]
    gallery.app.more_like(photo.id)
    screen = gallery.shell.screen
    gallery.until(lambda: screen.model.results is not None and not screen.model.working)
    assert [condition.kind for condition in conditions_of(screen.model.query)] == ["like"]
    assert len(screen.model.results.ids)


def test_a_corrupt_file_is_reported_and_can_be_retried(tmp_path: Path, open_gallery: Open) -> None:
    photos = tmp_path / "photos"
    paths = write_photos(photos, 6, longest=160)
    broken = paths[3]
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture at all")
    driver = open_gallery(tmp_path / "home", roots=[str(photos)])
    driver.until(lambda: driver.app.session.job is not None and not driver.app.session.indexing, "indexing")
    driver.until(lambda: driver.app.session.labels)
    assert driver.app.session.counts().photos == 5 and driver.app.session.counts().failures == 1
    driver.app.go("settings")
    driver.rest(0.3)
    screen = driver.shell.screen
    assert screen.failing and "1 file could not be read" in screen.ids.job.text
    assert any(str(broken) == entry.text for entry in screen.ids.failed.children)
    broken.write_bytes(whole)
    os.utime(broken, (1, 1))
    driver.app.session.index(retry=True)
    driver.until(lambda: driver.app.session.counts().photos == 6, "the mended photo")
    driver.until(lambda: not driver.app.session.indexing and not screen.failing, "no failures")


def test_first_run_picks_a_folder(tmp_path: Path, open_gallery: Open) -> None:
    photos = tmp_path / "Pictures"
    write_photos(photos, 4, longest=160)
    driver = open_gallery(tmp_path / "home")
    assert driver.shell.screen.name == "welcome" and not (tmp_path / "home" / "index.db").exists()
    driver.rest(0.2)
    driver.tap(driver.find(TextButton, text="Choose photo folder"))
    picker = driver.shell.top_layer
    picker.go(str(tmp_path))
    row = driver.until(lambda: driver.find(PickRow, picker, text="Pictures"), "the folder")
    driver.tap(row)
    assert picker.path == str(photos)
    picker.go(str(tmp_path / "nowhere"))
    assert picker.use.disabled and picker.note.text == "This folder doesn’t exist"
    with pytest.MonkeyPatch.context() as denied:
        denied.setattr(Path, "iterdir", Mock(side_effect=PermissionError(13, "Permission denied")))
        picker.go(str(photos))
    assert picker.use.disabled and "permission" in picker.note.text
    picker.go(str(photos))
    driver.tap(picker.use)
    driver.until(
        lambda: driver.shell.screen.name == "photos" and len(driver.shell.screen.grid.ids_shown) == 4, "photos"
    )


def test_no_model_still_shows_photos(library: Library, open_gallery: Open) -> None:
    def fail() -> None:
        raise BundleError("there is no bundle here")

    driver = open_gallery(library.home, load_model=fail)
    driver.until(lambda: driver.shell.screen.grid.tiles and driver.app.session.model_trouble)
    driver.app.go("search")
    screen = driver.shell.screen
    screen.field.text = "red"
    driver.until(lambda: screen.model.trouble)
    assert screen.grid.notice.title and "no bundle" in screen.grid.notice.text
    driver.app.go("settings")
    driver.rest(0.2)
    assert "no bundle" in driver.shell.screen.ids.model.text
    driver.app.go("review")
    driver.until(lambda: driver.shell.screen.model.trouble)
    assert "no bundle" in driver.shell.screen.notice.text


def test_a_damaged_index_is_reported_and_backed_up(tmp_path: Path, open_gallery: Open) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "index.db").write_bytes(b"this isn't a database, although its name says so" * 40)
    driver = open_gallery(home)
    screen = driver.shell.screen
    assert screen.name == "broken" and "not a pocketclip index" in screen.notice.text
    driver.rest(0.2)
    driver.tap(driver.find(TextButton, text="Back it up and rebuild"))
    assert driver.shell.screen.name == "welcome"
    assert not (home / "index.db").exists() and len(list(home.glob("index-*.db"))) == 1


def test_a_missing_folder_keeps_its_photos_and_is_reported(
    indexed: Library, library: Library, tmp_path: Path, open_gallery: Open
) -> None:
    photos = tmp_path / "stick"
    shutil.copytree(library.photos, photos)
    driver = open_gallery(tmp_path / "other", roots=[str(photos)])
    driver.until(lambda: driver.app.session.job is not None and not driver.app.session.indexing)
    driver.until(lambda: driver.app.session.labels)
    shutil.rmtree(photos)
    driver.app.session.index()
    driver.until(lambda: not driver.app.session.indexing)
    assert driver.app.session.counts().photos == len(list(library.photos.rglob("*.jpg")))
    driver.app.go("settings")
    driver.rest(0.3)
    assert any("not available" in entry.note for entry in driver.shell.screen.ids.roots.children)
    driver.app.go("photos")
    grid = driver.shell.screen.grid
    # Thumbnails outlive the files; the large picture is not available, and a message says so.
    driver.app.open_photo(grid.ids_shown, 0, grid)
    driver.until(lambda: driver.find(Toast) is not None, "the message")


def test_a_home_that_cannot_be_written(tmp_path: Path, open_gallery: Open) -> None:
    occupied = tmp_path / "home"
    occupied.write_text("a file where the folder should be")
    driver = open_gallery(occupied, roots=[str(tmp_path)])
    assert driver.shell.screen.name == "broken" and "cannot make the index folder" in driver.shell.screen.notice.text
    driver.close()


def test_index_data_is_deleted_and_corrections_can_stay(gallery: Driver, library: Library) -> None:
    files = {path: path.read_bytes() for path in library.photos.rglob("*.jpg")}
    grid = gallery.shell.screen.grid
    photo = int(grid.ids_shown[0])
    done: list[object] = []
    gallery.app.session.ask(lambda g: g.correct(photo, "mine", True), done.append, lambda error: done.append(error))
    gallery.until(lambda: done)
    gallery.app.go("settings")
    gallery.shell.screen.ask_forget()
    gallery.rest(0.3)
    gallery.tap(gallery.find(TextButton, text="Keep corrections"))
    gallery.until(lambda: gallery.shell.screen.name == "welcome", "the first run")
    assert verdicts(library.home) == [("mine", 1)]
    assert not list((library.home / "cache" / "thumbnails").rglob("*.jpg"))
    assert {path: path.read_bytes() for path in library.photos.rglob("*.jpg")} == files


def test_patterns_hide_photos(gallery: Driver) -> None:
    gallery.app.go("settings")
    gallery.rest(0.2)
    screen = gallery.shell.screen
    before = gallery.app.session.counts().photos
    screen.ids.pattern.text = "*/Travel/*"
    screen.exclude()
    gallery.until(lambda: gallery.app.session.counts().photos < before, "fewer photos")
    gallery.until(lambda: [entry.text for entry in screen.ids.excluded.children] == ["*/Travel/*"])
    gallery.app.go("photos")
    grid = gallery.shell.screen.grid
    gallery.until(lambda: len(grid.ids_shown) == gallery.app.session.counts().photos, "the grid")
    assert not any("Travel" in photo.path for photo in gallery.app.actions.photos_of(grid.ids_shown.tolist()))


def test_settings_survive_closing(library: Library, open_gallery: Open) -> None:
    driver = open_gallery(library.home)
    driver.until(lambda: driver.shell.screen.grid.tiles)
    driver.shell.screen.grid.zoom(1 / 1.3)
    columns = driver.shell.screen.grid.columns
    driver.app.go("albums")
    driver.close()
    again = open_gallery(library.home)
    assert again.shell.screen.name == "albums"
    again.app.go("photos")
    again.until(lambda: again.shell.screen.grid.tiles)
    assert again.shell.screen.grid.columns == columns


def test_pinching_changes_the_columns(gallery: Driver) -> None:
    from kivy.tests.common import UnitTestTouch

    grid = gallery.shell.screen.grid
    before = grid.columns
    first, second = UnitTestTouch(150, 300), UnitTestTouch(250, 300)
    first.touch_down()
    second.touch_down()
    first.touch_move(50, 300)
    second.touch_move(350, 300)
    gallery.frames(2)
    first.touch_up()
    second.touch_up()
    gallery.rest(0.3)
    assert grid.columns < before and gallery.shell.top_layer is None


def test_pinching_zooms_into_a_photo(gallery: Driver) -> None:
    from kivy.tests.common import UnitTestTouch

    grid = gallery.shell.screen.grid
    gallery.app.open_photo(grid.ids_shown, 0, None)
    layer = gallery.shell.top_layer
    gallery.until(lambda: layer.model.details and not layer._tickets, "the photo")
    x, y = layer.view.center
    first, second = UnitTestTouch(x - 50, y), UnitTestTouch(x + 50, y)
    first.touch_down()
    second.touch_down()
    first.touch_move(x - 100, y)
    second.touch_move(x + 100, y)
    assert layer.view.zoom == pytest.approx(2, rel=0.01)
    first.touch_up()
    second.touch_up()
    gallery.rest(0.3)
    assert layer.view.zoom == pytest.approx(2, rel=0.01) and gallery.shell.top_layer is layer


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "gray"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((40, 60, 3), 60 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


def test_usable_while_indexing(library: Library, pictures: Path, open_gallery: Open) -> None:
    searched = threading.Event()

    class Slow(ColorModel):
        def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
            assert searched.wait(PATIENCE)
            return super().encode_pixels(pixels)

    driver = open_gallery(library.home, load_model=Slow, roots=[str(pictures)])
    driver.until(lambda: driver.app.session.indexing and driver.shell.screen.grid.tiles, "photos while indexing")
    before = len(driver.shell.screen.grid.ids_shown)
    driver.app.go("search")
    screen = driver.shell.screen
    screen.field.text = "blue"
    driver.until(lambda: screen.model.results is not None, "an answer while indexing")
    assert len(screen.model.results.ids) and driver.app.session.indexing
    searched.set()
    driver.app.go("photos")
    driver.until(lambda: len(driver.shell.screen.grid.ids_shown) == before + 3, "the new photos")


def test_nothing_is_delivered_once_the_window_is_closed(gallery: Driver) -> None:
    came: list[str] = []
    gallery.app.deliver(lambda: came.append("in time"))
    gallery.frames(2)
    gallery.app.deliver(lambda: came.append("late"))
    gallery.close()
    gallery.frames(2)
    assert came == ["in time"]

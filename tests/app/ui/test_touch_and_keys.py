"""Fingers and keys: what each does, and that targets are large enough, named and not cut off."""

from types import SimpleNamespace

import numpy as np
import pytest
from kivy.core.clipboard import Clipboard
from kivy.core.window import Window
from kivy.metrics import dp
from kivy.tests.common import UnitTestTouch
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.scrollview import ScrollView
from kivy.uix.slider import Slider
from kivy.uix.widget import Widget

from app.library.gallery import Query
from app.library.store.searches import past_searches
from app.ui.grid.tile import Tile
from app.ui.kit import layers
from app.ui.kit.theme import theme
from app.ui.kit.widgets import Field, IconButton
from app.ui.screens.photo.layer import PhotoLayer
from app.ui.screens.search.conditions import conditions_of
from app.ui.screens.settings.screen import size_of
from tests.app.ui.driver import Driver


def visible(widget: Widget) -> bool:
    """Whether a widget and all its parents are visible, and it has a size."""
    while widget is not None and widget is not Window:
        if widget.opacity < 0.05 or (isinstance(widget, ButtonBehavior) and not widget.width * widget.height):
            return False
        widget = widget.parent
    return True


def touch_targets(driver: Driver) -> list[Widget]:
    """Everything that can be touched now."""
    kinds = (ButtonBehavior, Field, Slider, Tile)
    return [w for w in (driver.shell.top_layer or driver.shell).walk() if isinstance(w, kinds) and visible(w)]


def scrolls_sideways(widget: Widget) -> bool:
    while widget is not None and widget is not Window:
        if isinstance(widget, ScrollView) and widget.do_scroll_x:
            return True
        widget = widget.parent
    return False


def check_targets(driver: Driver, where: str) -> int:
    found = touch_targets(driver)
    for widget in found:
        if not (isinstance(widget, Tile) and widget.photo is None):
            assert min(widget.size) >= dp(48) - 1, (where, widget, widget.size)
        if isinstance(widget, IconButton):
            assert widget.description, (where, widget.icon)
        if not scrolls_sideways(widget) and not isinstance(widget, Tile):
            left = widget.to_window(*widget.pos)[0]
            assert left >= -1 and left + widget.width <= Window.width + 1, (where, widget, left, widget.width)
    return len(found)


@pytest.mark.parametrize("size", [(360, 640), (1180, 780)], ids=["phone", "desktop"])
def test_touch_targets_are_large_enough_named_and_inside_the_window(gallery: Driver, size: tuple[int, int]) -> None:
    gallery.resize(*size)
    app, shell = gallery.app, gallery.shell
    for name in ("photos", "search", "albums", "review", "settings"):
        app.go(name)
        gallery.rest(0.4)
        assert check_targets(gallery, name) > 5
    app.go("photos")
    grid = shell.screen.grid
    grid.selection.toggle(int(grid.ids_shown[0]))
    gallery.rest(0.2)
    check_targets(gallery, "selection")
    grid.selection.clear()
    app.open_photo(grid.ids_shown, 1, grid)
    layer = shell.top_layer
    gallery.until(lambda: layer.model.details and layer.model.similar)
    if not layer.panel_open:
        layer.toggle_panel()
    gallery.rest(0.3)
    check_targets(gallery, "photo")
    layer.verbs.find("red")
    gallery.until(lambda: layer.model.where is not None)
    gallery.rest(0.3)
    check_targets(gallery, "where")
    layer.close()
    dialogs = {
        "help": lambda: layers.show_help(shell),
        "new label": app.edit_label,
        "a label": lambda: app.actions.label_photos([int(grid.ids_shown[0])]),
        "folders": app.add_folder,
    }
    for name, open_dialog in dialogs.items():
        open_dialog()
        gallery.rest(0.3)
        card = shell.top_layer.card
        assert card.y >= 0 and card.top <= Window.height, name
        check_targets(gallery, name)
        app.close_layers()
    app.go("settings")
    shell.screen.ask_forget()
    gallery.rest(0.3)
    dialog = shell.top_layer
    text, *_ = dialog.body.children
    buttons = [child for child in dialog.actions.children if isinstance(child, ButtonBehavior)]
    assert len(buttons) == 3
    assert all(button.to_window(*button.pos)[1] + button.height <= text.to_window(*text.pos)[1] for button in buttons)
    check_targets(gallery, "delete")
    app.close_layers()


def test_sizes_follow_the_density_of_the_screen() -> None:
    """No layout gives a size in pixels: a number other than 0 and 1 is in dp(…) or a share of something."""
    import re
    from pathlib import Path

    sides = re.compile(r"^\s*(height|width|size|padding|spacing|font_size|radius|row_default_height):\s*(.+)$")
    for path in Path(layers.__file__).parents[1].rglob("*.kv"):
        for line in path.read_text("utf-8").splitlines():
            if found := sides.match(line):
                left = re.sub(r"dp\([^()]*(\([^()]*\))?[^()]*\)", "", found[2])
                left = re.sub(r"\[[01]\]|[*/] ?[\d.]+|\b0?\.\d+|> [\d.]+", "", left)
                assert not re.search(r"\b([2-9]|\d\d+)\b", left), (path.name, line)


def test_keys_that_work_over_photos_and_over_one_photo(gallery: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    window = SimpleNamespace(fullscreen=False)
    monkeypatch.setattr("app.ui.keys.Window", window)
    copied: list[str] = []
    monkeypatch.setattr(Clipboard, "copy", copied.append)
    app, shell = gallery.app, gallery.shell
    grid = shell.screen.grid
    gallery.key("right")
    gallery.key("c", "ctrl")
    paths = [photo.path for photo in app.actions.photos_of(grid.ids_shown[:2].tolist())]
    assert copied[-1] == paths[0]
    gallery.key("spacebar", text=" ")
    gallery.key("right", "shift")
    gallery.key("c", "meta")
    assert sorted(copied[-1].splitlines()) == sorted(paths)
    gallery.key("escape")
    gallery.key("f", text="f")
    assert window.fullscreen == "auto"
    gallery.key("enter")
    layer = shell.top_layer
    assert isinstance(layer, PhotoLayer)
    gallery.key("f", text="f")
    assert window.fullscreen is False
    gallery.key("c", "ctrl")
    assert copied[-1] == paths[1]
    gallery.key("?", text="?")
    assert isinstance(shell.top_layer, layers.Dialog)
    gallery.key("?", text="?")
    assert len(shell.layers) == 2
    gallery.key("escape")
    assert shell.top_layer is layer
    gallery.key("f", "ctrl")
    assert shell.top_layer is None and shell.screen.name == "search" and shell.screen.field.focus
    gallery.key("escape")
    app.go("photos")
    for keys, _ in layers.SHORTCUTS:
        assert keys.isascii() or keys == "+ −", "the font of the gallery has no such sign"


def wheel(x: float, y: float, button: str) -> None:
    touch = UnitTestTouch(x, y)
    touch.profile = ["pos", "button"]
    touch.button = button
    touch.touch_down()
    touch.touch_up()


def test_the_wheel_with_ctrl_changes_the_columns(gallery: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = gallery.shell.screen.grid
    before = grid.columns
    monkeypatch.setattr(Window, "_modifiers", ["ctrl"])
    wheel(200, 300, "scrollup")
    gallery.rest(0.2)
    more = grid.columns
    assert more > before
    wheel(200, 300, "scrolldown")
    gallery.rest(0.2)
    assert grid.columns < more
    assert gallery.app.session.settings.cell == grid.cell


def test_headings_stick_and_the_scroller_runs_through_all_photos(gallery: Driver) -> None:
    grid = gallery.shell.screen.grid
    assert grid.sticky.opacity == 0
    grid.scroll.scroll_y = 0.6
    gallery.rest(0.2)
    at = grid.viewport.rows.section_at(grid.viewport.top)
    assert at > 0 and grid.sticky.opacity == 1 and grid.sticky.title == grid.sections[at].title
    scroller = grid.scroller
    x = scroller.to_window(scroller.right - dp(6), 0)[0]
    start = scroller.to_window(0, scroller.knob + scroller.length / 2)[1]
    touch = UnitTestTouch(x, start)
    touch.touch_down()
    assert scroller.dragged
    touch.touch_move(x, scroller.to_window(0, scroller.y)[1])
    gallery.rest(0.2)
    assert scroller.mark and grid.scroll.scroll_y == pytest.approx(0, abs=0.01)
    touch.touch_up()
    gallery.rest(0.2)
    assert grid.tiles.get(len(grid.ids_shown) - 1) is not None and not scroller.dragged
    # The next heading pushes the one before out.
    top = float(grid.viewport.rows.tops[1]) - grid.sticky.height / 2
    grid.viewport.scroll_to(top)
    gallery.rest(0.2)
    assert grid.sticky.top > grid.top + 1


def test_dates_excluded_words_and_past_searches(gallery: Driver) -> None:
    app = gallery.app
    app.search(Query())
    screen = gallery.shell.screen
    days = app.session.quick.timeline().days
    day = days[len(days) // 2].date
    screen.filters.pick_dates()
    dialog = gallery.shell.top_layer
    dialog.first.text, dialog.last.text = "soon", ""
    dialog.apply()
    assert dialog.wrong.text and gallery.shell.top_layer is dialog
    dialog.first.text = dialog.last.text = day.isoformat()
    dialog.apply()
    gallery.until(lambda: screen.model.results is not None and not screen.model.working)
    assert len(screen.model.results.ids) == days[len(days) // 2].count and gallery.shell.top_layer is None
    app.search(Query())
    screen.field.text = "red -dark"
    gallery.until(lambda: screen.model.results is not None and not screen.model.working)
    both = screen.model.results.ids.tolist()
    screen.field.text = "red"
    gallery.until(lambda: screen.model.results is not None and screen.model.results.ids.tolist() != both)
    screen.submit()
    screen.filters.pick_without()
    pick = gallery.shell.top_layer
    pick.field.text = "dark"
    gallery.rest(0.2)
    pick.first()
    gallery.until(lambda: not screen.model.working and screen.model.results.ids.tolist() == both)
    assert [condition.kind for condition in conditions_of(screen.model.query)] == ["without"]
    app.search(Query())
    screen.field.focus = True
    screen.field.text = "re"
    gallery.until(lambda: ("red", "label") in [(s.text, s.kind) for s in screen.model.suggestions.found])
    screen.field.text = ""
    gallery.until(lambda: "red" in past_searches(app.session.quick.store, 20), "the past search")
    screen.field.focus = False


def test_a_label_given_by_hand_and_accepted_ones_are_told_apart(gallery: Driver) -> None:
    grid = gallery.shell.screen.grid
    index = next(i for i, photo_id in enumerate(grid.ids_shown.tolist()) if gallery.app.session.quick.tags(photo_id))
    gallery.app.open_photo(grid.ids_shown, index, grid)
    layer = gallery.shell.top_layer
    gallery.until(lambda: layer.model.details)
    first = layer.model.tags[0]
    assert (first.source, first.verdict) == ("model", None)
    layer.verbs.accept(first.label)
    gallery.until(lambda: layer.model.tags[0].verdict is True)
    layer.verbs.add_label()
    pick = gallery.shell.top_layer
    pick.field.text = "by hand"
    gallery.rest(0.2)
    assert pick.field.focus
    pick.first()
    assert Field.focused is None
    gallery.until(lambda: any(tag.label == "by hand" for tag in layer.model.tags))
    notes = {row.label: (row.note, row.yours) for row in layer.panel.ids.tags.children}
    assert notes["by hand"] == notes[first.label] == ("Confirmed by you", True)
    shown = np.unique([note for note, _ in notes.values()])
    assert set(shown) <= {"Confirmed by you", "Suggested", "Rejected"}
    layer.close()


def test_a_second_album_replaces_the_first(gallery: Driver) -> None:
    app, session = gallery.app, gallery.app.session
    listeners = len(session.changed._listeners)
    for label in ("red", "dark", "red"):
        app.open_album(label, False)
        screen = gallery.shell.screen
        gallery.until(lambda screen=screen: len(screen.grid.ids_shown), label)
        assert screen.heading == label
    assert len([name for name in gallery.shell.screens.screen_names if name.startswith("album ")]) == 1
    assert len(session.changed._listeners) == listeners + 1
    session.tags_changed()
    gallery.rest(0.2)
    gallery.key("escape")
    assert gallery.shell.screen.name == "albums"


def test_a_slider_follows_the_finger_and_a_toggle_takes_an_unsteady_tap(gallery: Driver) -> None:
    gallery.app.go("settings")
    gallery.rest(0.3)
    slider, toggle = gallery.shell.screen.ids.cell, gallery.shell.screen.ids.dark
    slider.parent.parent.parent.parent.parent.scroll_to(slider, animate=False)
    gallery.rest(0.2)
    x, y = slider.to_window(*slider.pos)
    y += slider.height / 2
    for share in (0.25, 0.75):
        gallery.tap((x + dp(12) + share * (slider.width - dp(24)), y))
        assert slider.value == pytest.approx(share, abs=0.02)
    assert gallery.app.session.settings.cell == pytest.approx(size_of(0.75), rel=0.05)
    touch = UnitTestTouch(x + slider.width / 2, y)
    touch.touch_down()
    gallery.until(lambda: slider.value == pytest.approx(0.5, abs=0.02), "the touch, which the page passes on")
    touch.touch_move(x + slider.width + dp(90), y + dp(40))
    touch.touch_up()
    assert slider.value == 1
    x, y = toggle.to_window(*toggle.center)
    touch = UnitTestTouch(x, y)
    touch.touch_down()
    gallery.until(lambda: toggle.state == "down", "the touch, which the page passes on")
    touch.touch_move(x + dp(8), y)
    touch.touch_up()
    gallery.rest(0.2)
    try:
        assert toggle.active and theme.dark
    finally:
        theme.dark = False

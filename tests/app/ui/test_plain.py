"""What screens are made of, without a window: texts, colors, icons, settings, sections, selection, dates."""

import ast
import json
import re
import string
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from app.library.search.timeline import Day
from app.ui.grid.sections import by_date, by_strength
from app.ui.grid.selection import Selection
from app.ui.kit import icons, strings
from app.ui.kit.photo_view import heat_rgba
from app.ui.kit.shell import MAIN_SCREENS
from app.ui.kit.textures import filling
from app.ui.kit.theme import DARK, LIGHT, Palette, contrast
from app.ui.screens.photo.model import format_coordinates
from app.ui.screens.search.conditions import describe_days, usual_ranges
from app.ui.settings import Settings, load_settings, save_settings

UI = Path(strings.__file__).parents[1]
SOURCES = [*UI.rglob("*.py"), *UI.rglob("*.kv")]


def used_keys() -> set[str]:
    keys = set()
    for path in SOURCES:
        text = path.read_text("utf-8")
        if path.name == "strings.py":  # the code that uses the table is below it
            text = text.partition("\nMONTHS = ")[2]
        keys |= set(re.findall(r"""["']([a-z_]+\.[a-z_.]+)["']""", text)) & set(strings.TEXTS)
        for call, key in re.findall(r"""\b(t|n)\(\s*["']([a-z_.]+)["']""", text):
            keys |= {key} if call == "t" else {f"{key}.one", f"{key}.many"}
    return keys


def test_every_text_is_used_and_every_used_text_exists() -> None:
    used = used_keys()
    built = {key for key in strings.TEXTS if re.match(r"(nav|job)\.", key)}  # named by what they are about
    assert used <= set(strings.TEXTS), used - set(strings.TEXTS)
    assert set(strings.TEXTS) <= used | built | {"app.name"}, set(strings.TEXTS) - used - built
    assert {f"nav.{name}" for name in MAIN_SCREENS} <= set(strings.TEXTS)


def test_no_text_is_written_into_a_layout() -> None:
    for path in UI.rglob("*.kv"):
        for line in path.read_text("utf-8").splitlines():
            written = re.match(r'\s*(text|hint_text|title|says)\s*:\s*"([^"]+)"', line)
            assert not written or not written[2].strip(string.punctuation), (path.name, line)


def test_counts_and_days() -> None:
    assert strings.n("photos", 1) == "1 photo" and strings.n("photos", 12345) == "12\u202f345 photos"
    today = date(2026, 3, 14)
    assert strings.day(today, today) == "Today" and strings.day(date(2026, 3, 13), today) == "Yesterday"
    assert strings.day(date(2026, 3, 2), today) == "Monday, 2 March"
    assert strings.day(date(2019, 12, 31), today) == "Tuesday, 31 December 2019"
    assert [strings.file_size(size) for size in (7, 1500, 2_340_000, 5 * 10**11)] == [
        "7 bytes", "1.5 kB", "2.3 MB", "500 GB",
    ]  # fmt: skip


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_all_text_can_be_read(palette: Palette) -> None:
    grounds = (palette.ground, palette.surface, palette.raised, palette.wash)
    for ground in grounds:
        assert contrast(palette.ink, ground) >= 7, ground
    for text in (palette.soft, palette.accent, palette.danger):
        for ground in grounds[:3]:
            assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast(palette.accent, palette.wash) >= 4.5
    assert contrast(palette.accent_ink, palette.accent) >= 4.5
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21) and contrast("#777777", "#777777") == 1


@pytest.mark.parametrize("size", [16, 24, 96])
@pytest.mark.parametrize("name", sorted(icons.strokes()))
def test_icons_have_smooth_strokes_inside_their_square(name: str, size: int) -> None:
    drawn = icons.icon(name, size)
    share = (drawn > 127).mean()
    assert drawn.shape == (size, size) and 0.005 < share < 0.45
    assert ((drawn > 20) & (drawn < 235)).any()
    assert drawn[0].max() < 200 and drawn[-1].max() < 200


def test_arcs_are_parts_of_circles() -> None:
    y, x = np.mgrid[0:96, 0:96] / 4 + 0.125
    circle = icons.icon("circle", 96)
    distance = np.abs(np.hypot(x - 12, y - 12) - 8.5)
    assert (circle[distance < 0.7] == 255).all() and (circle[distance > 1.2] == 0).all()
    for small, large, clockwise in (("A5 5 0 0 0", False, False), ("A5 5 0 1 1", True, True)):
        (stroke,) = icons._strokes_of(f"M0 0 {small} 6 0")
        center = 3 + (4j if large != clockwise else -4j)
        assert all(abs(point - center) == pytest.approx(5) for point in stroke)
        assert (max(point.imag for point in stroke) > 0.5) is not clockwise
    with pytest.raises(ValueError, match="C is not"):
        list(icons._strokes_of("M0 0 C1 1 2 2 3 3"))


def test_round_shapes() -> None:
    disc, corner = icons.disc(40), icons.corner(20)
    assert disc[20, 20] == 255 and disc[0, 0] == 0 and disc.mean() / 255 == pytest.approx(np.pi / 4, abs=0.01)
    assert corner[0, 0] == 255 and corner[-1, -1] == 0
    assert np.abs(corner.astype(int) - (255 - disc[:20, :20].astype(int))).max() < 20


def icons_in_code() -> set[str]:
    """What the code gives as an icon: in a layout, by keyword or assignment, or to `show`, `PickDialog` and such."""
    named = set(MAIN_SCREENS)
    for path in UI.rglob("*.kv"):
        for value in re.findall(r"^\s*(?:icon|mark): (.+)$", path.read_text("utf-8"), re.MULTILINE):
            named |= set(re.findall(r'"(\w+)"', value))
    for path in UI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            given: list[ast.AST] = []
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                given += [keyword.value for keyword in node.keywords if keyword.arg in ("icon", "mark")]
                position = {"show": 0, "icon_texture": 0, "_button": 0, "PickDialog": 2, "_row": 3}.get(called)
                given += node.args[position : position + 1] if position is not None else []
            elif isinstance(node, ast.Assign) and "icon" in ast.unparse(node.targets[0]).lower():
                given.append(node.value)
            elif isinstance(node, ast.Dict):
                given += [
                    value
                    for key, value in zip(node.keys, node.values, strict=True)
                    if getattr(key, "value", "") == "icon"
                ]
            for value in given:
                named |= {child.value for child in ast.walk(value) if isinstance(child, ast.Constant)}
    return {name for name in named if isinstance(name, str) and name.isidentifier()}


def test_every_icon_is_used_and_every_used_icon_exists() -> None:
    named = icons_in_code()
    kinds = {"label", "dates", "without", "like"}  # keys of the search's table of icons
    assert named - kinds <= set(icons.strokes()), named - set(icons.strokes())
    assert set(icons.strokes()) <= named, set(icons.strokes()) - named


def test_settings_survive_and_rubbish_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "config" / "gallery.json"
    assert load_settings(path) == Settings()
    kept = Settings(dark=True, cell=90.5, width=800, height=600, screen="albums")
    assert save_settings(kept, path) and load_settings(path) == kept
    assert [file.name for file in path.parent.iterdir()] == ["gallery.json"]
    path.write_text(json.dumps({"dark": "yes", "cell": 9000, "screen": 7, "width": True, "else": 1}))
    assert load_settings(path) == Settings(cell=400.0)
    for rubbish in ("", "[]", "{", "null"):
        path.write_text(rubbish)
        assert load_settings(path) == Settings()
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert not save_settings(kept, blocked / "gallery.json")


def test_sections_by_day_and_by_month() -> None:
    days = (Day(date(2026, 3, 14), 0, 3), Day(date(2026, 3, 2), 3, 1), Day(date(2025, 3, 2), 4, 2))
    by_day = by_date(days, 130, date(2026, 3, 14))
    assert [(section.title, section.count) for section in by_day] == [
        ("Today", 3), ("Monday, 2 March", 1), ("Sunday, 2 March 2025", 2),
    ]  # fmt: skip
    by_month = by_date(days, 60, date(2026, 3, 14))
    assert [(section.title, section.count) for section in by_month] == [("March 2026", 4), ("March 2025", 2)]


def test_sections_by_strength() -> None:
    assert [section.count for section in by_strength(10, 3, True)] == [3, 7]
    assert [section.count for section in by_strength(10, 10, True)] == [10]
    assert [section.title for section in by_strength(4, 0, True)] == ["Weaker matches"]
    assert [section.title for section in by_strength(4, 4, False)] == ["Results"]
    assert by_strength(0, 0, True) == by_strength(0, 0, False) == []


def test_selection() -> None:
    changes: list[int] = []
    selection = Selection(lambda: changes.append(1))
    shown = np.array([9, 8, 7, 6, 5])
    selection.toggle(8)
    selection.stretch(shown, 6)
    assert selection.ids == [8, 7, 6] and 7 in selection and 9 not in selection
    selection.toggle(7)
    selection.keep([9, 8])
    assert selection.ids == [8]
    selection.stretch(np.array([1, 2]), 2)  # the photo touched last is not shown here
    assert selection.ids == [8, 2]
    selection.all(shown)
    assert len(selection) == 5
    selection.clear()
    selection.clear()
    assert len(selection) == 0 and len(changes) == 7


def test_days_of_a_search() -> None:
    assert describe_days(date(2024, 1, 1), date(2024, 12, 31)) == "2024"
    assert describe_days(date(2024, 5, 3), date(2024, 5, 3)) == "3 May 2024"
    assert describe_days(date(2024, 5, 3), None) == "3 May 2024 –" and describe_days(None, None) == ""
    today = date(2026, 3, 14)
    assert all(first <= last <= today for _, first, last in usual_ranges(today))


def test_heat_maps_dim_the_cold_and_tint_the_hot() -> None:
    rgba = heat_rgba(np.array([[0.0, 0.5, 1.0, 7.0, -3.0]], np.float32))[0].astype(int)
    assert rgba[0, 3] > rgba[1, 3] > rgba[2, 3] > 0 and rgba[2, 0] > 200 > 20 > rgba[0, 0]
    assert (rgba[3] == rgba[2]).all() and (rgba[4] == rgba[0]).all()


def test_a_picture_fills_a_square_without_being_squeezed() -> None:
    for width, height in ((400, 100), (100, 400), (90, 90)):
        left, bottom, right, _, _, top, *_ = filling(width, height, 1.0)
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        assert (right - left) * width == pytest.approx((bottom - top) * height)
        assert right - left == pytest.approx(1) or bottom - top == pytest.approx(1)


def test_coordinates() -> None:
    assert format_coordinates(-33.8568, 151.2153) == "33.85680° S, 151.21530° E"

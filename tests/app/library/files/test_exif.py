"""Dates and sizes from real files, written by Pillow."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from app.library.files.exif import facts_of, file_time, read_details, read_facts, wall_clock
from mobileclip.errors import PhotoError
from mobileclip.photos import Header, read_header

MTIME = 1_600_000_000_123_000_000


def photo(path: Path, tags: dict[int, object], gps: dict[int, object] | None = None) -> str:
    exif = Image.Exif()
    for tag, value in tags.items():
        if tag < 0x829A:
            exif[tag] = value
    exif[0x8769] = {tag: value for tag, value in tags.items() if tag >= 0x829A}
    exif[0x8825] = gps or {}
    Image.new("RGB", (40, 30), "teal").save(path, exif=exif)
    return str(path)


def taken(path: str) -> tuple[datetime, str]:
    facts = read_facts(path, MTIME)
    return wall_clock(facts.taken), facts.taken_from


def test_the_camera_s_clock_is_kept_as_it_was_read(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", {0x9003: "2019:07:14 23:59:58", 0x0132: "2021:01:01 00:00:00"})
    assert taken(path) == (datetime(2019, 7, 14, 23, 59, 58), "camera")


@pytest.mark.parametrize("offset", ["+13:00", "-11:00", "+00:00", None])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/New_York"])
def test_neither_the_zone_of_the_photo_nor_of_the_reader_moves_its_day(
    tmp_path: Path, offset: str | None, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags: dict[int, object] = {0x9003: "2019:07:14 00:30:00"}
    path = photo(tmp_path / "a.jpg", tags | ({0x9011: offset} if offset else {}))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        facts = read_facts(path, MTIME)
        assert wall_clock(facts.taken) == datetime(2019, 7, 14, 0, 30)
        minutes = {"+13:00": 780, "-11:00": -660, "+00:00": 0, None: None}
        assert facts.offset_minutes == minutes[offset]
        # A file's time is a moment; what a person lived through is that moment on their own clock.
        expected = datetime.fromtimestamp(MTIME / 1e9).replace(tzinfo=UTC).timestamp()
        assert file_time(MTIME) == pytest.approx(expected)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_digitized_replaces_a_missing_shot_date_and_an_edit_does_not(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", {0x9004: "1998:12:24 18:00:00"})
    assert taken(path) == (datetime(1998, 12, 24, 18), "camera")
    path = photo(tmp_path / "b.jpg", {0x0132: "2021:01:01 00:00:00"})
    assert taken(path) == (wall_clock(file_time(MTIME)), "file")


def test_fractions_order_a_burst(tmp_path: Path) -> None:
    clocks = [
        read_facts(photo(tmp_path / f"{n}.jpg", {0x9003: "2020:01:01 10:00:00", 0x9291: n}), MTIME).taken
        for n in ("05", "5", "75")
    ]
    assert clocks == sorted(clocks) and clocks[0] + 0.7 == pytest.approx(clocks[2])


@pytest.mark.parametrize(
    "clock",
    ["0000:00:00 00:00:00", "    :  :     :  :  ", "2019:13:01 00:00:00", "2019:02:30 10:00:00", "1700:01:01 00:00:00",
     "9999:01:01 00:00:00", "yesterday", "", "2019:07:14", b"\xff\xfe"],
)  # fmt: skip
def test_a_clock_that_nobody_set_is_not_believed(clock: object) -> None:
    facts = facts_of(Header(4, 3, "JPEG", {0x9003: clock}), MTIME)
    assert (facts.taken, facts.taken_from) == (file_time(MTIME), "file")


def test_a_camera_may_be_a_day_ahead_but_not_a_year() -> None:
    now = datetime(2024, 5, 5, 12).timestamp()
    for clock, source in (("2024:05:06 11:00:00", "camera"), ("2025:05:05 12:00:00", "file")):
        assert facts_of(Header(4, 3, "JPEG", {0x9003: clock}), MTIME, now).taken_from == source


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_photo(tmp_path: Path, orientation: int) -> None:
    header = read_header(photo(tmp_path / "a.jpg", {0x0112: orientation}))
    assert (header.width, header.height) == ((40, 30) if orientation < 5 else (30, 40))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_header_is_read_without_decoding(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photo(tmp_path / f"a.{suffix}", {0x9003: "2019:07:14 10:00:00", 0x0112: 6})

    def load(self: Image.Image) -> None:
        raise AssertionError("decoded")

    for name in ("JpegImagePlugin.JpegImageFile", "PngImagePlugin.PngImageFile", "WebPImagePlugin.WebPImageFile"):
        monkeypatch.setattr(f"PIL.{name}.load", load)
    facts = read_facts(path, MTIME)
    assert (wall_clock(facts.taken), facts.width, facts.height) == (datetime(2019, 7, 14, 10), 30, 40)
    monkeypatch.undo()
    Image.new("RGB", (4, 4)).save(tmp_path / f"b.{suffix}")
    assert read_facts(str(tmp_path / f"b.{suffix}"), MTIME).taken_from == "file"


def test_details_for_a_person(tmp_path: Path) -> None:
    path = photo(
        tmp_path / "a.jpg",
        {0x010F: "Canon", 0x0110: "Canon EOS R5\0", 0xA434: "RF 50mm", 0x829A: IFDRational(1, 250),
         0x829D: IFDRational(28, 10), 0x8827: 400, 0x920A: IFDRational(50, 1), 0x9003: "2019:07:14 10:00:00"},
        {1: "S", 2: (33.0, 51.0, 31.0), 3: "E", 4: (151.0, 12.0, 51.0)},
    )  # fmt: skip
    details = read_details(path, Path(path).stat().st_size, MTIME)
    assert (details.camera, details.lens, details.iso, details.focal_length) == ("Canon EOS R5", "RF 50mm", 400, 50)
    assert details.exposure == pytest.approx(0.004) and details.aperture == pytest.approx(2.8)
    assert details.latitude == pytest.approx(-33.8586, abs=1e-4)
    assert details.longitude == pytest.approx(151.2142, abs=1e-4)
    assert (details.width, details.height, details.format, details.size) == (40, 30, "JPEG", Path(path).stat().st_size)
    assert details.taken == datetime(2019, 7, 14, 10)


def test_maker_and_model_are_joined_where_they_say_two_things(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg", {0x010F: "Apple", 0x0110: "iPhone 15"})
    assert read_details(path, 1, MTIME).camera == "Apple iPhone 15"


def test_odd_values_are_no_values(tmp_path: Path) -> None:
    path = photo(
        tmp_path / "a.jpg",
        {0x829A: IFDRational(1, 0), 0x8827: (0, 0), 0x010F: "\x07\x1b[2J", 0x9003: "2019:07:14 10:00:00"},
        {1: "N", 2: (99.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
    )
    details = read_details(path, 1, MTIME)
    assert (details.exposure, details.iso, details.latitude, details.longitude) == (None, None, None, None)
    assert details.camera == "[2J"


def test_a_damaged_file_still_has_a_size_and_a_missing_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe1no exif here")
    details = read_details(str(tmp_path / "a.jpg"), 16, MTIME)
    assert (details.size, details.width, details.taken_from) == (16, 0, "file")
    with pytest.raises(PhotoError, match="missing"):
        read_details(str(tmp_path / "b.jpg"), 0, 0)
    if os.geteuid():
        (tmp_path / "a.jpg").chmod(0)
        with pytest.raises(PhotoError, match="no permission"):
            read_details(str(tmp_path / "a.jpg"), 0, 0)


def test_a_file_from_no_time_at_all() -> None:
    assert file_time(10**30) == 0.0

"""When and how a photo was taken, from its file."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mobileclip.errors import PhotoError
from mobileclip.photos import GPS_DIRECTORY, Header, read_header

TakenFrom = Literal["camera", "file"]

# A clock that was never set says the year 0, or one before photography.
_FIRST_YEAR = 1839
# A photo can be dated tomorrow, by a camera in another time zone, but not next week.
_AHEAD_SECONDS = 2 * 24 * 3600.0

_MAKE, _MODEL, _LENS = 0x010F, 0x0110, 0xA434
_EXPOSURE, _APERTURE, _ISO, _FOCAL_LENGTH = 0x829A, 0x829D, 0x8827, 0x920A
# (wall clock, fraction of its second, offset from UTC), the moment of the shot before the moment of the scan.
_CLOCKS = ((0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012))
_CLOCK = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")


@dataclass(frozen=True)
class Facts:
    """What the index keeps of a photo's header.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        taken: seconds from 1970 to the time that the clock on the wall showed, as if that clock were UTC's. It is the
            day and hour as the person lived them, in any time zone, so that neither travel nor daylight saving time
            moves a photo to another day.
        taken_from: "camera" for EXIF's DateTimeOriginal, or else DateTimeDigitized; "file" where neither is credible,
            for the modification time of the file on this computer's clock. (EXIF's DateTime is the time of an edit.)
        offset_minutes: how far the camera's clock was ahead of UTC, if known; only for display.
    """

    width: int
    height: int
    taken: float
    taken_from: TakenFrom
    offset_minutes: int | None = None


@dataclass(frozen=True)
class Details:
    """What a photo's file says about it, for a person to read; None if it doesn't say.

    Attributes:
        path: of the file.
        size: in bytes.
        width: in pixels, upright.
        height: in pixels, upright.
        format: e.g. "JPEG".
        taken: on the clock of the place, see `Facts`.
        taken_from: "camera" or "file", see `Facts`.
        offset_minutes: how far the camera's clock was ahead of UTC.
        camera: maker and model.
        lens: its model.
        exposure: in seconds.
        aperture: f-number.
        iso: sensitivity.
        focal_length: in millimeters.
        latitude: degrees, north positive.
        longitude: degrees, east positive.
    """

    path: str
    size: int
    width: int
    height: int
    format: str
    taken: datetime
    taken_from: TakenFrom
    offset_minutes: int | None
    camera: str | None
    lens: str | None
    exposure: float | None
    aperture: float | None
    iso: int | None
    focal_length: float | None
    latitude: float | None
    longitude: float | None


def wall_clock(seconds: float) -> datetime:
    """The date and time of `Facts.taken`, without a zone."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def file_time(mtime_ns: int) -> float:
    """A file's modification time on this computer's clock, counted as `Facts.taken`; 0 if it is out of range."""
    try:
        local = datetime.fromtimestamp(mtime_ns / 1e9)
    except (OverflowError, OSError, ValueError):
        return 0.0
    return local.replace(tzinfo=UTC).timestamp()


def read_facts(path: str, mtime_ns: int) -> Facts:
    """What the index keeps of the header of the photo at `path`.

    Raises:
        PhotoError: the header cannot be read.
    """
    return facts_of(read_header(path), mtime_ns)


def facts_of(header: Header, mtime_ns: int, now: float | None = None) -> Facts:
    """Choose among the dates of a header and the file's; `now` in Unix seconds, for tests."""
    latest = file_time(int((time.time() if now is None else now) * 1e9)) + _AHEAD_SECONDS
    for clock, fraction, offset in _CLOCKS:
        taken = _seconds(header.exif.get(clock), header.exif.get(fraction))
        if taken is not None and taken <= latest:
            return Facts(header.width, header.height, taken, "camera", _offset(header.exif.get(offset)))
    return Facts(header.width, header.height, file_time(mtime_ns), "file")


def read_details(path: str, size: int, mtime_ns: int) -> Details:
    """Read all that the photo's file says; if its header is damaged, only what the file system knows.

    Raises:
        PhotoError: the file is missing or may not be read.
    """
    try:
        header = read_header(path)
    except PhotoError as error:
        if error.reason in ("missing", "no permission", "cannot be read", "not a file"):
            raise
        header = Header(0, 0, "", {})
    facts, exif = facts_of(header, mtime_ns), header.exif
    gps = exif.get(GPS_DIRECTORY)
    latitude, longitude = _position(gps) if isinstance(gps, Mapping) else (None, None)
    iso = _number(exif.get(_ISO))
    return Details(
        path=path,
        size=size,
        width=facts.width,
        height=facts.height,
        format=header.format,
        taken=wall_clock(facts.taken),
        taken_from=facts.taken_from,
        offset_minutes=facts.offset_minutes,
        camera=_camera(_text(exif.get(_MAKE)), _text(exif.get(_MODEL))),
        lens=_text(exif.get(_LENS)),
        exposure=_number(exif.get(_EXPOSURE)),
        aperture=_number(exif.get(_APERTURE)),
        iso=None if iso is None else round(iso),
        focal_length=_number(exif.get(_FOCAL_LENGTH)),
        latitude=latitude,
        longitude=longitude,
    )


def _seconds(clock: Any, fraction: Any) -> float | None:
    match = _CLOCK.match(_text(clock) or "")
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat("{}-{}-{}T{}:{}:{}+00:00".format(*match.groups()))
    except ValueError:
        return None
    if moment.year < _FIRST_YEAR:
        return None
    digits = _text(fraction) or ""
    return moment.timestamp() + (float(f"0.{digits}") if digits.isascii() and digits.isdigit() else 0.0)


def _offset(value: Any) -> int | None:
    match = _OFFSET.fullmatch(_text(value) or "")
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3])
    return None if minutes > 14 * 60 else (minutes if match[1] == "+" else -minutes)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())
    return text or None


def _camera(make: str | None, model: str | None) -> str | None:
    """Maker and model, the maker only once: "Canon" and "Canon EOS R" give "Canon EOS R"."""
    if make and model and not model.lower().startswith(make.split()[0].lower()):
        return f"{make} {model}"
    return model or make


def _number(value: Any) -> float | None:
    """A finite number above 0 from what EXIF may hold: a number, a fraction, or a list of them."""
    if isinstance(value, tuple | list) and value:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _position(gps: Mapping[int, Any]) -> tuple[float | None, float | None]:
    latitude, longitude = _degrees(gps.get(2), gps.get(1), "S", 90), _degrees(gps.get(4), gps.get(3), "W", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):  # 0, 0 is a receiver without a fix
        return None, None
    return latitude, longitude


def _degrees(value: Any, side: Any, negative: str, most: float) -> float | None:
    try:
        degrees, minutes, seconds = (float(part) for part in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    number = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(number) or not 0 <= number <= most:
        return None
    return -number if (_text(side) or "").upper().startswith(negative) else number

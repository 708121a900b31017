"""One photo, however it was stored, as an upright RGB picture, or a `PhotoError` that says why not."""

import importlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
from PIL import Image

from mobileclip.errors import PhotoError, one_line

__all__ = ["REASONS", "Header", "open_photo", "read_header"]

REASONS: Final = (
    "missing",
    "no permission",
    "not a file",
    "cannot be read",
    "empty file",
    "not an image",
    "truncated",
    "too large",
    "decode error",
    "needs pillow-heif",
)
"""Every `PhotoError.reason` that `open_photo` gives."""

# Only decoders of photographs: others are rarely tested against hostile files, and one starts other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")
for _plugin in ("Jpeg", "Png", "WebP", "Gif", "Tiff", "Bmp", "Avif"):
    with suppress(ImportError):  # Pillow before 11.3 has no AVIF
        importlib.import_module(f"PIL.{_plugin}ImagePlugin")

_MAX_PIXELS = 89_478_485  # Pillow's own idea of a decompression bomb, should a host have switched that off
# A drafted JPEG is never held at full size, but every stored pixel still costs time.
_DRAFT_ALLOWANCE = 4

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What a photo's file says before any pixel is decoded.

    Attributes:
        width: of the upright picture, in pixels as stored, as `height`.
        height: see `width`.
        format: Pillow's name of the format, e.g. "JPEG".
        exif: its EXIF tags by number, those of the Exif and GPS directories included; empty where it is damaged.
    """

    width: int
    height: int
    format: str
    exif: Mapping[int, Any]


EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825
"""Tags of the directories inside EXIF; under the second one, `Header.exif` holds the GPS tags as a mapping."""


class _Refused(Exception):
    """A reason and a detail on their way to become a `PhotoError`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason, detail)


def open_photo(
    source: str | os.PathLike[str] | Image.Image,
    *,
    min_side: int | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Read one photo.

    The first frame of an animation, turned upright as EXIF or XMP say, transparency on white, any depth and
    colour mode reduced to 8-bit RGB. Colour profiles are not applied, as in CLIP's training.

    Args:
        source: a path, or a picture in memory (which is left as it is).
        min_side: no more pixels than this are needed along the shorter side, so a JPEG may be decoded at 1/2,
            1/4 or 1/8 as long as neither side falls below: several times faster, and at twice the size of the
            pixel recipe hardly different.
        max_pixels: refuse to decode more; None means `PIL.Image.MAX_IMAGE_PIXELS`. Checked before any memory
            is taken. A JPEG read at a smaller scale counts at that scale, up to four times as much as stored.

    Returns:
        A picture of mode RGB without any metadata.

    Raises:
        PhotoError: for every photo that cannot be read; its `reason` is one of `REASONS`.
    """
    limit = max_pixels if max_pixels is not None else Image.MAX_IMAGE_PIXELS or _MAX_PIXELS
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "picture in memory")
    else:
        name = os.fsdecode(source)
    try:
        if isinstance(source, Image.Image):
            _check_size(source.size, limit)
            return _finish(source)
        with _open_regular(name) as file:
            image = _open_header(file, limit)
            _scale_down_while_decoding(image, min_side, limit)
            return _finish(image)
    except _Refused as refused:
        raise PhotoError(name, refused.reason, refused.detail) from None
    except Exception as error:  # decoders raise anything from zlib.error to AssertionError on hostile bytes
        raise PhotoError(name, _reason_of(error), one_line(error)) from error


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read size and EXIF of one photo without decoding it.

    Raises:
        PhotoError: as `open_photo`, as far as it can be known from the header.
    """
    name = os.fsdecode(path)
    try:
        with _open_regular(name) as file:
            image = _open_header(file, Image.MAX_IMAGE_PIXELS or _MAX_PIXELS)
            exif = _exif(image)
            width, height = image.size
            if exif.get(_ORIENTATION_TAG) in _SIDEWAYS:
                width, height = height, width
            return Header(width, height, image.format or "", exif)
    except _Refused as refused:
        raise PhotoError(name, refused.reason, refused.detail) from None
    except Exception as error:  # as in open_photo
        raise PhotoError(name, _reason_of(error), one_line(error)) from error


def _exif(image: Image.Image) -> dict[int, Any]:
    try:
        # Not the method of the format itself: a PNG's would decode the whole picture to look behind it.
        tags: Any = Image.Image.getexif(image)
        found = dict(tags)
        found.update(tags.get_ifd(EXIF_DIRECTORY))
        found[GPS_DIRECTORY] = dict(tags.get_ifd(GPS_DIRECTORY))
    except Exception:  # damaged EXIF is no reason to lose a good picture
        return {}
    return found


def _open_regular(path: str) -> IO[bytes]:
    """The file for reading, never waiting for the other end of a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        # Asked first: merely opening some devices has effects, and Windows cannot open a folder at all.
        _check_regular(os.stat(path))  # noqa: PTH116 - paths may be undecodable bytes
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise _Refused("missing") from None
    except PermissionError as error:
        raise _Refused("no permission", error.strerror or "") from None
    except (OSError, ValueError) as error:
        raise _Refused("cannot be read", getattr(error, "strerror", None) or one_line(error)) from None
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(os.fstat(descriptor))
    except _Refused:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _Refused("not a file", "a folder")
    if not stat.S_ISREG(status.st_mode):
        raise _Refused("not a file", "a pipe, socket or device")
    if status.st_size == 0:
        raise _Refused("empty file")


def _open_header(file: IO[bytes], limit: int) -> Image.Image:
    """The picture with its header read and no pixels decoded.

    Asks Pillow's registered formats itself rather than `Image.open`, which warns of or refuses large headers
    before draft scaling can be set, and hides the error of the one decoder that knew the file.
    """
    prefix = file.read(32)
    _check_size(_early_size(prefix), limit)
    _prepare_heif(prefix)
    failure: Exception | None = None
    for name in _FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None or accept(prefix) is not True:
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except Exception as error:
            failure = error
    if failure is None or prefix[:2] == b"BM":  # which may just as well begin a text
        raise _Refused("not an image")
    if _reason_of(failure) == "decode error" and _ran_out(file, prefix):
        raise _Refused("truncated", "the header is incomplete")
    raise failure


def _ran_out(file: IO[bytes], prefix: bytes) -> bool:
    """Whether a header could not be read because the file ends too early."""
    size = os.fstat(file.fileno()).st_size
    if prefix[:4] == b"RIFF":
        return int.from_bytes(prefix[4:8], "little") + 8 > size
    # The decoders of HEIF and AVIF read the whole file in any case, and say themselves what they miss.
    return prefix[4:8] != b"ftyp" and file.tell() >= size


def _early_size(prefix: bytes) -> tuple[int, int]:
    """Size from the first 32 bytes, where the decoder takes memory as soon as it is opened; else 0×0."""
    if prefix[:4] == b"GIF8":
        return int.from_bytes(prefix[6:8], "little"), int.from_bytes(prefix[8:10], "little")
    if prefix[:4] == b"RIFF" and prefix[8:16] == b"WEBPVP8X":
        return int.from_bytes(prefix[24:27], "little") + 1, int.from_bytes(prefix[27:30], "little") + 1
    if prefix[:4] == b"RIFF" and prefix[8:16] == b"WEBPVP8L":
        bits = int.from_bytes(prefix[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if prefix[:4] == b"RIFF" and prefix[8:16] == b"WEBPVP8 ":
        return int.from_bytes(prefix[26:28], "little") & 0x3FFF, int.from_bytes(prefix[28:30], "little") & 0x3FFF
    return 0, 0


def _prepare_heif(prefix: bytes) -> None:
    """Register the optional HEIC decoder when a file needs it, or say what is missing."""
    if prefix[4:8] != b"ftyp":
        return
    brands = [prefix[start : start + 4] for start in (8, 16, 20, 24, 28)]
    if any(brand in _AVIF_BRANDS for brand in brands):
        if "AVIF" not in Image.OPEN:
            raise _Refused("decode error", "AVIF needs Pillow 11.3 or newer")
    elif "HEIF" not in Image.OPEN and any(brand in _HEIF_BRANDS for brand in brands):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise _Refused("needs pillow-heif", "pip install pillow-heif") from None
        register_heif_opener()


def _scale_down_while_decoding(image: Image.Image, min_side: int | None, limit: int) -> None:
    """Draft a JPEG as far as `min_side` allows, and refuse what would still be too large."""
    allowance = 1
    if min_side is not None and image.format in ("JPEG", "MPO"):
        allowance = _DRAFT_ALLOWANCE
        _check_size(image.size, limit * allowance)
        image.draft(None, (min_side, min_side))
    _check_size(image.size, limit)


def _check_size(size: tuple[int, int], limit: int) -> None:
    if size[0] * size[1] > limit:
        raise _Refused("too large", f"{size[0]}×{size[1]} pixels; the limit is {limit:,} in all")


def _finish(image: Image.Image) -> Image.Image:
    """Decode, flatten, turn upright and drop the metadata, so that nobody turns the picture a second time."""
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF is no reason to lose a good picture
        orientation = 1
    upright = _to_rgb(image)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
    elif upright is image:
        upright = image.copy()
    upright.info = {}
    return upright


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_grey(image)
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        if image.mode == "La":
            image = image.convert("LA")
        clear = image.convert("RGBA")
        flat = Image.new("RGB", clear.size, "white")
        flat.paste(clear, mask=clear.getchannel("A"))
        return flat
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or float as RGB.

    Sixteen-bit modes have white at 65,535. The others do not say where white is: it is the smallest of 1
    (float only), 255 and 65,535 that no pixel exceeds, or else the brightest pixel. Negative values and those
    that are no number are black.
    """
    grey = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    brightest = float(grey.max(initial=0.0))
    whites = (65535.0,) if image.mode.startswith("I;16") else (255.0, 65535.0)
    if image.mode == "F":
        whites = (1.0, *whites)
    white = next((white for white in whites if brightest <= white), brightest)
    levels = (grey * (255 / white)).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _reason_of(error: Exception) -> str:
    if isinstance(error, (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too large"
    said = str(error).lower()
    if isinstance(error, EOFError) or any(sign in said for sign in ("truncated", "unexpected end", "end of file")):
        return "truncated"
    return "decode error"

"""Photo files of any kind → upright RGB pictures, or a `PhotoError` that says what is wrong."""

import importlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
from PIL import ExifTags, Image

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
"""All reasons of `PhotoError`s that `open_photo` raises."""

# Only formats of photographs: other decoders are rarely tested against hostile files, and one starts other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")
for _plugin in ("Jpeg", "Png", "WebP", "Gif", "Tiff", "Bmp", "Avif"):
    with suppress(ImportError):  # Pillow before 11.3 has no AVIF
        importlib.import_module(f"PIL.{_plugin}ImagePlugin")

_MAX_PIXELS = 89_478_485  # Pillow's default limit for decompression bombs, in case the calling program turned it off
# A JPEG decoded at reduced size never needs memory for the full size, but every stored pixel still takes time.
_DRAFT_ALLOWANCE = 4

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")

# Not ImageOps.exif_transpose, which also rewrites the EXIF data and raises where it is damaged.
_TO_UPRIGHT = {
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
    """What can be read from a photo's file without decoding any pixels.

    Attributes:
        width: of the upright picture, in stored pixels.
        height: of the upright picture, in stored pixels.
        format: Pillow's name of the format, such as "JPEG".
        exif: EXIF tags by number, including those of the Exif directory; the GPS tags are a mapping under
            `GPS_DIRECTORY`. Empty if the EXIF data is damaged.
    """

    width: int
    height: int
    format: str
    exif: Mapping[int, Any]


GPS_DIRECTORY: Final = ExifTags.IFD.GPSInfo
"""The key of the GPS tags in `Header.exif`."""


class _Unreadable(Exception):
    """A reason and a detail, which become a `PhotoError` where the photo's name is known."""

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

    Returns the first frame of an animation, upright according to EXIF or XMP, with transparency on white, and any bit
    depth and color mode converted to 8-bit RGB. Color profiles aren't applied, as in CLIP's training.

    Args:
        source: a path, or a picture in memory, which isn't changed.
        min_side: pixels that are needed along the shorter side. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its
            size, as long as neither side falls below this: several times faster, and hardly different at twice the
            size of the pixel recipe.
        max_pixels: refuse to decode more; None means `PIL.Image.MAX_IMAGE_PIXELS`. Checked before memory is allocated.
            A JPEG decoded at reduced size counts at that size, but may not have more than four times as many pixels.

    Returns:
        A picture in mode RGB without metadata.

    Raises:
        PhotoError: the photo can't be read; `reason` is one of `REASONS`.
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
    except _Unreadable as unreadable:
        raise PhotoError(name, unreadable.reason, unreadable.detail) from None
    except Exception as error:  # decoders raise anything from zlib.error to AssertionError on hostile bytes
        raise PhotoError(name, _reason_of(error), one_line(error)) from error


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the size and EXIF data of one photo without decoding it.

    Raises:
        PhotoError: as for `open_photo`, as far as the header shows it.
    """
    name = os.fsdecode(path)
    try:
        with _open_regular(name) as file:
            image = _open_header(file, Image.MAX_IMAGE_PIXELS or _MAX_PIXELS)
            exif = _exif(image)
            width, height = image.size
            if exif.get(ExifTags.Base.Orientation) in _SIDEWAYS:
                width, height = height, width
            return Header(width, height, image.format or "", exif)
    except _Unreadable as unreadable:
        raise PhotoError(name, unreadable.reason, unreadable.detail) from None
    except Exception as error:  # as in open_photo
        raise PhotoError(name, _reason_of(error), one_line(error)) from error


def _exif(image: Image.Image) -> dict[int, Any]:
    try:
        # Not the format's own method: that of PNG decodes the whole picture to find EXIF data after it.
        tags: Any = Image.Image.getexif(image)
        found = dict(tags)
        found.update(tags.get_ifd(ExifTags.IFD.Exif))
        found[GPS_DIRECTORY] = dict(tags.get_ifd(GPS_DIRECTORY))
    except Exception:  # the picture may be intact even if its EXIF data is damaged
        return {}
    return found


def _open_regular(path: str) -> IO[bytes]:
    """Open a file for reading, without ever waiting for the other end of a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        # Checked before opening too: opening some devices has side effects, and Windows can't open folders.
        _check_regular(os.stat(path))  # noqa: PTH116 - paths may be undecodable bytes
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise _Unreadable("missing") from None
    except PermissionError as error:
        raise _Unreadable("no permission", error.strerror or "") from None
    except (OSError, ValueError) as error:
        raise _Unreadable("cannot be read", getattr(error, "strerror", None) or one_line(error)) from None
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(os.fstat(descriptor))
    except _Unreadable:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _Unreadable("not a file", "a folder")
    if not stat.S_ISREG(status.st_mode):
        raise _Unreadable("not a file", "a pipe, socket or device")
    if status.st_size == 0:
        raise _Unreadable("empty file")


def _open_header(file: IO[bytes], limit: int) -> Image.Image:
    """Read a picture's header without decoding pixels.

    Tries Pillow's formats directly. `Image.open` would warn about large pictures, or refuse them, before a reduced size
    can be requested, and it hides the error of the decoder that recognized the file.
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
    if failure is None or prefix[:2] == b"BM":  # a text may begin with these letters too
        raise _Unreadable("not an image")
    if _reason_of(failure) == "decode error" and _ran_out(file, prefix):
        raise _Unreadable("truncated", "the header is incomplete")
    raise failure


def _ran_out(file: IO[bytes], prefix: bytes) -> bool:
    """Whether a header can't be read because the file ends too early."""
    size = os.fstat(file.fileno()).st_size
    if prefix[:4] == b"RIFF":
        return int.from_bytes(prefix[4:8], "little") + 8 > size
    # The decoders of HEIF and AVIF always read the whole file, and report missing data themselves.
    return prefix[4:8] != b"ftyp" and file.tell() >= size


def _early_size(prefix: bytes) -> tuple[int, int]:
    """Read the size from the first 32 bytes, for formats whose decoder allocates memory on opening; otherwise 0×0."""
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
    """Register the optional HEIC decoder if the file needs it."""
    if prefix[4:8] != b"ftyp":
        return
    brands = [prefix[start : start + 4] for start in (8, 16, 20, 24, 28)]
    if any(brand in _AVIF_BRANDS for brand in brands):
        if "AVIF" not in Image.OPEN:
            raise _Unreadable("decode error", "AVIF needs Pillow 11.3 or newer")
    elif "HEIF" not in Image.OPEN and any(brand in _HEIF_BRANDS for brand in brands):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise _Unreadable("needs pillow-heif", "pip install pillow-heif") from None
        register_heif_opener()


def _scale_down_while_decoding(image: Image.Image, min_side: int | None, limit: int) -> None:
    """Have a JPEG decoded at the smallest size that `min_side` allows, and refuse pictures that are still too large."""
    allowance = 1
    if min_side is not None and image.format in ("JPEG", "MPO"):
        allowance = _DRAFT_ALLOWANCE
        _check_size(image.size, limit * allowance)
        image.draft(None, (min_side, min_side))
    _check_size(image.size, limit)


def _check_size(size: tuple[int, int], limit: int) -> None:
    if size[0] * size[1] > limit:
        raise _Unreadable("too large", f"{size[0]}×{size[1]} pixels; the limit is {limit:,} pixels in total")


def _finish(image: Image.Image) -> Image.Image:
    """Decode, convert to RGB, turn upright, and drop the metadata so that no one turns the picture a second time."""
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as in _exif
        orientation = 1
    upright = _to_rgb(image)
    if orientation in _TO_UPRIGHT:
        upright = upright.transpose(_TO_UPRIGHT[orientation])
    elif upright is image:
        upright = image.copy()
    upright.info = {}
    return upright


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_gray(image)
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        if image.mode == "La":
            image = image.convert("LA")
        transparent = image.convert("RGBA")
        opaque = Image.new("RGB", transparent.size, "white")
        opaque.paste(transparent, mask=transparent.getchannel("A"))
        return opaque
    return image.convert("RGB")


def _from_deep_gray(image: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit and float gray to RGB.

    In 16-bit modes, white is 65,535. Other modes don't define white: it is the smallest of 1 (float only), 255 and
    65,535 that no pixel exceeds, otherwise the brightest pixel. Negative, infinite and NaN values become black.
    """
    gray = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    brightest = float(gray.max(initial=0.0))
    whites = (65535.0,) if image.mode.startswith("I;16") else (255.0, 65535.0)
    if image.mode == "F":
        whites = (1.0, *whites)
    white = next((white for white in whites if brightest <= white), brightest)
    levels = (gray * (255 / white)).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _reason_of(error: Exception) -> str:
    if isinstance(error, (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too large"
    message = str(error).lower()
    if isinstance(error, EOFError) or any(part in message for part in ("truncated", "unexpected end", "end of file")):
        return "truncated"
    return "decode error"

"""Pictures that are too large are refused from their headers, before memory is allocated."""

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mobileclip.errors import PhotoError
from mobileclip.photos import open_photo


def refusal(source: Any, **options: Any) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        open_photo(source, **options)
    return caught.value


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bombs() -> dict[str, bytes]:
    gif = bytearray(encoded(Image.new("P", (16, 16)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    bmp = bytearray(encoded(Image.new("RGB", (16, 16)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    transparent = Image.new("RGBA", (16, 16), (1, 2, 3, 4))
    lossless = bytearray(encoded(transparent, "WEBP", lossless=True))
    lossless[21:25] = struct.pack("<I", 16382 | 16382 << 14)
    extended = bytearray(encoded(transparent, "WEBP", exif=b"Exif\0\0"))
    extended[24:30] = (16382).to_bytes(3, "little") * 2
    lossy = bytearray(encoded(Image.new("RGB", (16, 16)), "WEBP"))
    lossy[26:30] = struct.pack("<HH", 16383, 16383)
    tiff = io.BytesIO()
    Image.new("1", (16, 16)).save(tiff, "TIFF", tiffinfo={})
    tags = bytearray(tiff.getvalue())
    for tag in (256, 257):
        place = next(
            at
            for at in range(0, len(tags) - 12, 2)
            if tags[at : at + 2] == struct.pack("<H", tag) and tags[at + 4 : at + 8] == struct.pack("<I", 1)
        )
        tags[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 60000)
    return {
        "png": png_of(60000, 60000),
        "jpeg": jpeg_of(60000, 60000),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
        "webp lossless": bytes(lossless),
        "webp extended": bytes(extended),
        "webp lossy": bytes(lossy),
        "tiff": bytes(tags),
    }


@pytest.mark.filterwarnings("error")
def test_bombs_are_refused_before_memory_is_allocated(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, data in bombs().items():
        (tmp_path / "a").write_bytes(data)
        for min_side in (None, 64):
            error = refusal(tmp_path / "a", min_side=min_side)
            assert error.reason == "too large", (name, str(error))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 50e6


@pytest.mark.filterwarnings("error")
def test_pillows_warnings_become_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png_of(10_000, 9_000))  # above Pillow's warning, below its error
    assert refusal(tmp_path / "a.png").reason == "too large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refusal(tmp_path / "a.png").reason == "too large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert refusal(Image.new("RGB", (20, 20))).reason == "too large"


def test_callers_may_set_a_limit(tmp_path: Path) -> None:
    corners = Image.linear_gradient("L").resize((80, 40))
    (tmp_path / "a.png").write_bytes(encoded(corners, "PNG"))
    (tmp_path / "a.jpg").write_bytes(encoded(corners, "JPEG"))
    for name in ("a.png", "a.jpg"):
        assert open_photo(tmp_path / name, max_pixels=3200).size == (80, 40)
        assert refusal(tmp_path / name, max_pixels=3199).reason == "too large"
    # A large JPEG can be decoded at reduced size, a PNG can't.
    assert open_photo(tmp_path / "a.jpg", min_side=20, max_pixels=800).size == (40, 20)
    assert refusal(tmp_path / "a.jpg", min_side=10, max_pixels=799).reason == "too large"
    assert refusal(tmp_path / "a.png", min_side=20, max_pixels=800).reason == "too large"

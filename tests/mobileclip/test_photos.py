import builtins
import io
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from mobileclip.errors import PhotoError
from mobileclip.photos import REASONS, open_photo
from mobileclip.preprocess import PixelRecipe

FROM_UPRIGHT = {  # EXIF orientation → how an upright picture is turned before it is stored
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture
def corners() -> Image.Image:
    """80×40, each quarter in another color."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :40], pixels[:20, 40:], pixels[20:, :40] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return Image.fromarray(pixels)


@pytest.fixture
def five_seconds() -> Iterator[None]:
    def too_slow(*_: Any) -> None:
        raise TimeoutError("still waiting")

    if not hasattr(signal, "SIGALRM"):
        pytest.skip("no alarms here")
    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(source: Any, **options: Any) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        open_photo(source, **options)
    error = caught.value
    assert error.reason in REASONS
    assert "\n" not in str(error) and error.path in str(error)
    return error


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def mean_difference(image: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(image, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_every_format_of_a_camera_roll(tmp_path: Path, real_photos: dict[str, Image.Image], form: str) -> None:
    photo = real_photos["coffee"]
    path = tmp_path / "photo.with-a-wrong-name"
    path.write_bytes(encoded(photo, form))
    opened = open_photo(path)
    assert type(opened) is Image.Image and opened.mode == "RGB" and opened.size == photo.size
    assert mean_difference(opened, photo) < 8
    assert open_photo(str(path)).tobytes() == opened.tobytes()
    with Image.open(path) as image:
        assert open_photo(image).tobytes() == opened.tobytes()


@pytest.mark.parametrize("orientation", FROM_UPRIGHT)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_undone_once(tmp_path: Path, corners: Image.Image, form: str, orientation: int) -> None:
    turn = FROM_UPRIGHT[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "turned"
    stored = corners if turn is None else corners.transpose(turn)
    stored.save(path, form, exif=exif, **({"quality": 95} if form in ("JPEG", "WEBP") else {}))
    opened = open_photo(path)
    assert opened.size == corners.size and mean_difference(opened, corners) < 10
    assert open_photo(opened).tobytes() == opened.tobytes()
    assert not opened.getexif() and not opened.info
    with Image.open(path) as image:
        assert open_photo(image).tobytes() == opened.tobytes()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0nonsense" * 9, b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_photo_with_damaged_exif_is_read(tmp_path: Path, corners: Image.Image, exif: bytes) -> None:
    corners.save(tmp_path / "a.jpg", exif=exif)
    assert open_photo(tmp_path / "a.jpg").size == corners.size


def test_unknown_orientation_is_upright(tmp_path: Path, corners: Image.Image) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 77
    corners.save(tmp_path / "a.jpg", exif=exif)
    assert open_photo(tmp_path / "a.jpg").size == corners.size


def test_transparency_is_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :2] = (200, 10, 10, 255)
    rgba[:, 2] = (0, 0, 0, 0)
    rgba[:, 3] = (0, 0, 0, 128)
    image = Image.fromarray(rgba)
    expected = [(200, 10, 10), (255, 255, 255), (127, 127, 127)]
    image.save(tmp_path / "rgba.png")
    for source in (tmp_path / "rgba.png", image, image.convert("RGBa")):
        opened = open_photo(source)
        assert [opened.getpixel((x, 0)) for x in (0, 2, 3)] == expected
    assert open_photo(image.convert("LA")).getpixel((2, 2)) == (255, 255, 255)
    assert open_photo(image.convert("LA").convert("La")).getpixel((2, 2)) == (255, 255, 255)
    palette = image.convert("RGB").convert("P").convert("PA")
    palette.putalpha(image.getchannel("A"))
    assert open_photo(palette).getpixel((2, 2)) == (255, 255, 255)


def test_transparent_palette_entries_and_colors_are_white(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 2), 0)
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "p.gif", transparency=0)
    for name in ("p.png", "p.gif"):
        opened = open_photo(tmp_path / name)
        assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 0)]
    palette.save(tmp_path / "opaque.png")
    assert open_photo(tmp_path / "opaque.png").getpixel((0, 0)) == (10, 20, 30)
    key = Image.new("RGB", (2, 1), (9, 8, 7))
    key.putpixel((1, 0), (1, 2, 3))
    key.save(tmp_path / "key.png", transparency=(9, 8, 7))
    opened = open_photo(tmp_path / "key.png")
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (1, 2, 3)]


def test_cmyk_jpeg_keeps_its_colors(tmp_path: Path, real_photos: dict[str, Image.Image]) -> None:
    photo = real_photos["coffee"]
    photo.convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert mean_difference(open_photo(tmp_path / "a.jpg"), photo) < 6
    assert open_photo(tmp_path / "a.jpg", min_side=100).size == (150, 100)


def test_gray_one_bit_and_other_modes(tmp_path: Path) -> None:
    bits = Image.new("1", (9, 3), 1)
    bits.putpixel((1, 1), 0)
    bits.save(tmp_path / "bits.png")
    opened = open_photo(tmp_path / "bits.png")
    assert opened.getpixel((0, 0)) == (255, 255, 255) and opened.getpixel((1, 1)) == (0, 0, 0)
    assert open_photo(Image.new("L", (2, 2), 77)).getpixel((0, 0)) == (77, 77, 77)
    for mode in ("YCbCr", "HSV", "RGBX", "CMYK"):
        assert open_photo(Image.new("RGB", (2, 2), (250, 0, 0)).convert(mode)).getpixel((0, 0))[0] > 240


def test_deep_gray_keeps_its_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(2, axis=0)
    for name in ("a.png", "a.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        opened = np.asarray(open_photo(tmp_path / name))
        assert (opened == np.arange(256)[None, :, None]).all()
    dim = open_photo(Image.fromarray(ramp // 4))
    assert dim.getpixel((255, 0))[0] == 64  # dark pictures stay dark
    whole = open_photo(Image.fromarray(np.array([[0, 100, 200]], np.int32)))
    assert [whole.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 200]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 200.0], [0, 100, 200]),
        ([0.0, 32767.5, 65535.0], [0, 128, 255]),
        ([0.0, 5e8, 1e9], [0, 128, 255]),
        ([np.nan, -3.0, np.inf], [0, 0, 0]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_float_pictures(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    image.save(tmp_path / "a.tif")
    for source in (image, tmp_path / "a.tif"):
        opened = open_photo(source)
        assert [opened.getpixel((x, 0))[0] for x in range(3)] == expected


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        frames[0].save(tmp_path / form, form, save_all=True, append_images=frames[1:], **options)
        assert open_photo(tmp_path / form).getpixel((4, 4)) == (255, 0, 0), form


def test_a_picture_in_memory_is_not_changed(corners: Image.Image) -> None:
    before = corners.tobytes()
    opened = open_photo(corners)
    opened.putpixel((0, 0), (1, 1, 1))
    assert corners.tobytes() == before


def test_a_jpeg_at_reduced_size_is_large_enough_and_looks_the_same(
    tmp_path: Path, real_photos: dict[str, Image.Image]
) -> None:
    path = tmp_path / "a.jpg"
    for photo in real_photos.values():
        photo.save(path, quality=92)
        for size in (48, 64, 96):
            recipe = PixelRecipe(size, "shortest", "bicubic", (0, 0, 0), (1, 1, 1))
            reduced, whole = open_photo(path, min_side=2 * size), open_photo(path)
            assert min(reduced.size) >= min(2 * size, *whole.size)
            noise = np.square(np.asarray(recipe.crop(reduced), float) - np.asarray(recipe.crop(whole), float)).mean()
            assert noise == 0 or 10 * np.log10(255**2 / noise) > 35  # dB
    assert open_photo(path, min_side=5000).size == whole.size
    assert open_photo(path, min_side=40).size < whole.size


def test_missing_and_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.jpg").write_bytes(b"x")
    assert refusal(tmp_path / "none.jpg").reason == "missing"
    assert refusal(tmp_path / "file.jpg" / "below.jpg").reason == "missing"
    assert refusal(tmp_path).reason == "not a file"
    assert refusal("nul\0byte.jpg").reason == "cannot be read"
    assert refusal("x" * 5000).reason == "cannot be read"
    (tmp_path / "empty.jpg").touch()
    assert refusal(tmp_path / "empty.jpg").reason == "empty file"
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert refusal(tmp_path / "loop.jpg").reason == "cannot be read"

    def forbidden(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    assert refusal(tmp_path / "file.jpg").reason == "no permission"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "a.jpg").chmod(0)
    assert refusal(tmp_path / "a.jpg").reason == "no permission"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_never_waited_for(
    tmp_path: Path, five_seconds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refusal(tmp_path / "pipe.jpg").reason == "not a file"
    assert refusal("/dev/zero").reason == "not a file"
    # A file that becomes a pipe between the check and the opening.
    (tmp_path / "file.jpg").write_bytes(b"x")
    regular = (tmp_path / "file.jpg").stat()
    monkeypatch.setattr(os, "stat", lambda *_, **__: regular)
    assert refusal(tmp_path / "pipe.jpg").reason == "not a file"


def test_path_of_undecodable_bytes(tmp_path: Path, corners: Image.Image) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")
    try:
        Path(name).write_bytes(encoded(corners, "PNG"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert open_photo(name).size == corners.size


@pytest.mark.parametrize("data", [b"just a text\n", b"BMW builds cars", b"\0" * 100, b"%PDF-1.7", b"<svg/>", b"MZ"])
def test_other_files_named_like_photos(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    assert refusal(tmp_path / "a.jpg").reason == "not an image"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_cut_off_files(tmp_path: Path, real_photos: dict[str, Image.Image], form: str) -> None:
    whole = encoded(real_photos["cat"], form)
    for length in (70, 700, len(whole) // 4, len(whole) // 2, len(whole) - 60):
        (tmp_path / "cut").write_bytes(whole[:length])
        assert refusal(tmp_path / "cut").reason == "truncated", length
    for length in range(1, 60, 7):
        (tmp_path / "cut").write_bytes(whole[:length])
        assert refusal(tmp_path / "cut").reason in ("truncated", "not an image"), length


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_photo_is_read_or_raises_a_photo_error(tmp_path: Path, corners: Image.Image) -> None:
    rng = np.random.default_rng(3)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = np.frombuffer(encoded(corners, form), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), rng.integers(1, 20))] = rng.integers(0, 256)
            (tmp_path / "a").write_bytes(damaged.tobytes())
            try:
                assert open_photo(tmp_path / "a", min_side=16).mode == "RGB"
            except PhotoError as error:
                assert error.reason in REASONS


def test_heic(tmp_path: Path, real_photos: dict[str, Image.Image]) -> None:
    heif = pytest.importorskip("pillow_heif")
    photo = real_photos["cat"].resize((150, 100))
    heif.from_pillow(photo).save(tmp_path / "a.heic", quality=90)
    assert mean_difference(open_photo(tmp_path / "a.heic"), photo) < 8


def test_heic_without_its_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def absent(name: str, *args: Any, **options: Any) -> Any:
        if name == "pillow_heif":
            raise ImportError(name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    (tmp_path / "a.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + b"\0" * 50)
    error = refusal(tmp_path / "a.heic")
    assert error.reason == "needs pillow-heif" and "pip install" in error.detail

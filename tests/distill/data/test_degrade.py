"""What befalls photos, against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distill.data.degrade import DEGRADATIONS, drawn_degradation


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8))


def test_gray_and_dark_and_sepia_are_arithmetic_on_pixels(photo: Image.Image) -> None:
    before = np.asarray(photo).astype(float)
    gray = np.asarray(DEGRADATIONS["gray"](photo)).astype(float)
    assert np.abs(gray - (before @ [0.299, 0.587, 0.114])[..., None]).max() <= 1
    assert np.abs(np.asarray(DEGRADATIONS["dark"](photo)) - before / 4).max() <= 1
    sepia = np.asarray(DEGRADATIONS["sepia"](photo)).astype(float)
    wanted = np.clip(before @ np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]]).T, 0, 255)
    assert np.abs(sepia - wanted).max() <= 1.5


def test_turned_and_tiny_keep_the_picture(photo: Image.Image) -> None:
    turned = DEGRADATIONS["turned"](photo)
    assert turned.size == (120, 160) and np.array_equal(np.rot90(np.asarray(turned), -1), np.asarray(photo))
    tiny = DEGRADATIONS["tiny"](photo)
    assert tiny.size == (85, 64) and abs(np.asarray(tiny).mean() - np.asarray(photo).mean()) < 2
    assert DEGRADATIONS["tiny"](tiny).size == tiny.size, "never larger"


def test_blurred_photos_lose_detail_in_proportion_to_their_size(photo: Image.Image) -> None:
    large = photo.resize((640, 480))
    small_blur = np.asarray(DEGRADATIONS["blurred"](photo)).astype(float)
    large_blur = np.asarray(DEGRADATIONS["blurred"](large).resize((160, 120))).astype(float)
    assert small_blur.std() < 0.5 * np.asarray(photo).std()
    assert np.abs(small_blur - large_blur).mean() < 3


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 3)])
def test_any_photo_stays_a_photo(name: str, size: tuple[int, int]) -> None:
    found = DEGRADATIONS[name](Image.new("RGB", size, (9, 200, 30)))
    assert found.mode == "RGB" and min(found.size) >= 1


def test_a_name_determines_the_degradation_and_names_draw_all() -> None:
    drawn = [drawn_degradation(f"photo-{number}.jpg") for number in range(600)]
    assert drawn == [drawn_degradation(f"photo-{number}.jpg") for number in range(600)]
    assert all(60 < drawn.count(name) < 140 for name in DEGRADATIONS)
    drawn_degradation("\udcff.jpg")

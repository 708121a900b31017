from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobileclip.preprocess import PixelRecipe

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ODD_SIZES = ((512, 512), (333, 501), (97, 411), (1023, 67), (50, 50), (224, 224), (225, 449), (31, 33))


def recipe(**changes: Any) -> PixelRecipe:
    fields = {"size": 64, "resize": "shortest", "interpolation": "bicubic", "mean": MEAN, "std": STD}
    return PixelRecipe(**{**fields, **changes})


def torchvision_steps(own: PixelRecipe) -> tuple[Any, Any]:
    """torchvision's transform of the geometry alone, and the whole transform."""
    transforms = pytest.importorskip("torchvision.transforms")
    size = own.size if own.resize == "shortest" else (own.size, own.size)
    interpolation = transforms.InterpolationMode(own.interpolation)
    geometry = [transforms.Resize(size, interpolation, antialias=True), transforms.CenterCrop(own.size)]
    scaling = [transforms.ToTensor(), transforms.Normalize(own.mean, own.std)]
    return transforms.Compose(geometry), transforms.Compose([*geometry, *scaling])


@pytest.mark.slow
@pytest.mark.parametrize("size", [192, 224, 256])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_equal_to_torchvision_on_real_photos(
    real_photos: dict[str, Image.Image], resize: str, interpolation: str, size: int
) -> None:
    own = recipe(size=size, resize=resize, interpolation=interpolation)
    geometry, whole = torchvision_steps(own)
    for name, photo in real_photos.items():
        for shape in (photo.size, *ODD_SIZES):
            image = photo.resize(shape)
            np.testing.assert_array_equal(own.crop(image), geometry(image), err_msg=f"{name} {shape}")
            np.testing.assert_allclose(own(image), whole(image).numpy(), atol=1e-6, err_msg=f"{name} {shape}")


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(3000, 31), (31, 3000)])
def test_extreme_proportions_stay_close_to_torchvision(
    real_photos: dict[str, Image.Image], shape: tuple[int, int], interpolation: str
) -> None:
    own = recipe(size=224, interpolation=interpolation)
    geometry, _ = torchvision_steps(own)
    for photo in real_photos.values():
        image = photo.resize(shape)
        difference = np.asarray(own.crop(image), int) - np.asarray(geometry(image), int)
        assert np.abs(difference).max() <= 12 and np.abs(difference).mean() < 0.5


def test_a_line_of_pixels_does_not_fill_the_memory() -> None:
    # Resized as a whole, this would be a picture of 64 × 12,800,000 pixels.
    image = Image.new("RGB", (1, 200_000), (10, 200, 30))
    pixels = np.asarray(recipe().crop(image))
    assert pixels.shape == (64, 64, 3) and (pixels == (10, 200, 30)).all()
    assert recipe().crop(image.transpose(Image.Transpose.ROTATE_90)).size == (64, 64)


def test_normalization_is_exact_and_channels_come_first() -> None:
    own = recipe(size=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5))
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    pixels[0, 0, 1] = (255, 255, 0)
    scaled = own.normalize_uint8(pixels)
    assert scaled.shape == (1, 3, 2, 2) and scaled.dtype == np.float32 and scaled.flags.c_contiguous
    assert scaled[0, :, 0, 1].tolist() == [1.0, 2.0, -1.0]
    assert (scaled[0, 1, 1] == -2).all()


def test_one_picture_equals_its_row_in_a_batch(real_photos: dict[str, Image.Image]) -> None:
    own = recipe()
    photos = [*real_photos.values()]
    crops = np.stack([np.asarray(own.crop(photo)) for photo in photos])
    np.testing.assert_array_equal(own.normalize_uint8(crops), np.stack([own(photo) for photo in photos]))
    assert own.normalize_uint8(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, 3, 64, 64)


def test_other_pictures_and_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="RGB"):
        recipe().crop(Image.new("L", (9, 9)))
    with pytest.raises(ValueError, match="0×4"):
        recipe().crop(Image.new("RGB", (0, 4)))
    for array in (np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 3, 64, 64), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            recipe().normalize_uint8(array)


def test_dictionary_round_trip() -> None:
    own = recipe()
    assert PixelRecipe.from_dict(own.to_dict()) == own
    assert own.to_dict()["mean"] == list(MEAN)


def test_identity_changes_with_every_field() -> None:
    others = [
        recipe(size=65),
        recipe(resize="squash"),
        recipe(interpolation="bilinear"),
        recipe(mean=(0, 0, 0)),
        recipe(std=(1, 1, 1)),
    ]
    identities = {own.identity for own in [recipe(), *others]}
    assert len(identities) == 6 and all(len(identity) == 16 for identity in identities)
    # JSON has lists and whole numbers; the recipe is the same.
    assert recipe(mean=[0, 0, 0]).identity == recipe(mean=(0.0, 0.0, 0.0)).identity


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 0},
        {"size": 64.0},
        {"size": True},
        {"size": "64"},
        {"resize": "crop"},
        {"interpolation": "nearest"},
        {"mean": (0, 0)},
        {"mean": (0, 0, float("nan"))},
        {"mean": None},
        {"std": (1, 1, 0)},
        {"std": ("a", 1, 1)},
    ],
)
def test_impossible_recipes_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^pixel recipe: "):
        recipe(**changes)


def test_missing_and_unknown_fields_are_named() -> None:
    fields = recipe().to_dict()
    fields["color"] = fields.pop("mean")
    with pytest.raises(ValueError, match="missing mean, unknown color"):
        PixelRecipe.from_dict(fields)
    with pytest.raises(ValueError, match="not a table"):
        PixelRecipe.from_dict([1, 2])  # type: ignore[arg-type]

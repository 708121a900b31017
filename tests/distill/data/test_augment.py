"""Augmentations: the same view at every size, exact through their encoding, and those of DataCompDR."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment, RandomResizedCrop
from torchvision.transforms.autoaugment import _apply_op

from distill.config import Reinforcement
from distill.data.augment import OPERATIONS, Augmentation, apply, draw, from_datacompdr
from distill.data.tables import DataError
from mobileclip.errors import ConfigError
from tests.distill.mixed import picture

WHOLE = (0.0, 0.0, 1.0, 1.0)


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


@given(st.integers(0, 2**32), st.floats(0.05, 20), st.integers(0, 4), st.integers(0, 30), st.floats(0, 1))
def test_a_drawn_augmentation_survives_encoding(
    seed: int, aspect: float, operations: int, magnitude: int, mirror: float
) -> None:
    policy = Reinforcement(operations=operations, magnitude=magnitude, mirror=mirror)
    drawn = draw(np.random.default_rng(seed), policy, aspect)
    numbers = drawn.encode()
    assert numbers.dtype == np.float32 and numbers.shape == (5 + 2 * operations,)
    assert Augmentation.decode(numbers) == drawn == draw(np.random.default_rng(seed), policy, aspect)


@given(st.lists(st.floats(width=32) | st.integers(-3, 20).map(float), max_size=12))
def test_any_numbers_are_an_augmentation_or_refused(numbers: list[float]) -> None:
    try:
        read = Augmentation.decode(numbers)
    except DataError:
        return
    apply(picture(0), read, 8)


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.6])
def test_boxes_are_distributed_as_in_torchvision(aspect: float) -> None:
    torch.manual_seed(0)
    across, down = round(4000 * math.sqrt(aspect)), round(4000 / math.sqrt(aspect))
    image = torch.empty(0, down, across)
    random, policy = np.random.default_rng(0), Reinforcement()
    ours = np.array([draw(random, policy, across / down).box for _ in range(3000)])
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    theirs = theirs / [down, across, down, across]
    for q in (0.1, 0.5, 0.9):
        assert np.allclose(np.quantile(ours, q, axis=0), np.quantile(theirs, q, axis=0), atol=0.03)


@pytest.mark.parametrize("aspect", [1e-3, 1e3])
def test_a_strip_gives_the_largest_allowed_box(aspect: float) -> None:
    top, left, height, width = draw(np.random.default_rng(0), Reinforcement(scale=(0.9, 1.0)), aspect).box
    assert top == pytest.approx((1 - height) / 2) and left == pytest.approx((1 - width) / 2)
    assert width * aspect / height == pytest.approx(4 / 3 if aspect > 1 else 3 / 4, rel=1e-3)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_magnitudes_equal_torchvision_s(magnitude: int) -> None:
    space = RandAugment()._augmentation_space(31, (224, 224))
    assert tuple(space) == OPERATIONS
    random, policy = np.random.default_rng(1), Reinforcement(operations=1, magnitude=magnitude)
    seen = {}
    for _ in range(400):
        ((operation, found),) = draw(random, policy, 1.0).operations
        seen.setdefault(OPERATIONS[operation], set()).add(found)
    for name, (magnitudes, signed) in space.items():
        expected = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
        expected /= 224 if name.startswith("Translate") else 1
        assert len(seen[name]) == (2 if signed and expected else 1)
        assert max(map(abs, seen[name])) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_torchvision_s(name: str) -> None:
    operation = OPERATIONS.index(name)
    magnitude = {"Translate": 0.25, "Posterize": 5.0, "Solarize": 130.0, "Rotate": 17.0}
    stored = next((value for key, value in magnitude.items() if name.startswith(key)), 0.27)
    stored = 0.0 if name in ("Identity", "AutoContrast", "Equalize") else stored
    ours = apply(picture(3, (64, 64)), Augmentation(WHOLE, ((operation, stored),)), 64)
    absolute = stored * 64 if name.startswith("Translate") else stored
    theirs = _apply_op(picture(3, (64, 64)), name, absolute, InterpolationMode.BILINEAR, None)
    assert difference(ours, theirs) == 0
    assert name in ("Identity", "AutoContrast") or difference(ours, picture(3, (64, 64))) > 0.1


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_view_is_the_same_at_every_size(name: str) -> None:
    """Except for resampling: the larger view scaled down is the smaller view."""
    photo = picture(5, (400, 300))
    largest = {"Rotate": 25.0, "Posterize": 4.0, "Solarize": 120.0}.get(name, 0.3)
    stored = 0.0 if name in ("Identity", "AutoContrast", "Equalize") else largest
    augmentation = Augmentation((0.1, 0.2, 0.6, 0.55), ((OPERATIONS.index(name), stored),), mirror=True)
    small, large = apply(photo, augmentation, 160), apply(photo, augmentation, 224)
    assert small.size == (160, 160) and large.size == (224, 224)
    assert difference(small, large.resize((160, 160), Image.Resampling.BICUBIC)) < 3.0


def test_a_translation_in_pixels_would_differ_between_sizes() -> None:
    """Shows that the test above can fail."""
    photo, pixels = picture(5, (400, 300)), 0.3 * 224
    small, large = (
        apply(photo, Augmentation(WHOLE, ((OPERATIONS.index("TranslateX"), pixels / px),)), px) for px in (160, 224)
    )
    assert difference(small, large.resize((160, 160), Image.Resampling.BICUBIC)) > 6.0


def test_the_box_is_cut_out_and_mirrored() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:20, 15:30] = 255
    inside = apply(Image.fromarray(pixels), Augmentation((0.25, 0.25, 0.25, 0.25)), 16)
    assert np.asarray(inside)[2:-2, 2:-2].min() == 255
    pixels[10:20, 22:30] = 0
    left = np.asarray(apply(Image.fromarray(pixels), Augmentation((0.25, 0.25, 0.25, 0.25), mirror=False), 16))
    right = np.asarray(apply(Image.fromarray(pixels), Augmentation((0.25, 0.25, 0.25, 0.25), mirror=True), 16))
    assert left[8, 3, 0] == 255 > left[8, 12, 0] and np.array_equal(left[:, ::-1], right)


def test_datacompdr_entries_become_shares() -> None:
    """An entry with the layout and magnitudes of apple/DataCompDR-1B: 30.4532 px is magnitude 9 of 30 at 224 px."""
    augmentation = from_datacompdr(
        [[32, 291, 657, 709], [[2, -0.09000000357627869], [4, -30.45317268371582]]], (1000, 800)
    )
    assert augmentation.box == pytest.approx((32 / 800, 291 / 1000, 657 / 800, 709 / 1000))
    assert augmentation.operations[0] == (2, pytest.approx(-0.09)) and not augmentation.mirror
    assert augmentation.operations[1] == (4, pytest.approx(-150 / 331 * 9 / 30, abs=1e-6))
    assert OPERATIONS[4] == "TranslateY" and OPERATIONS[2] == "ShearY"


def test_datacompdr_without_randaugment_is_a_crop() -> None:
    assert from_datacompdr([[0, 0, 10, 20], None], (20, 10)) == Augmentation(WHOLE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@given(JSON)
def test_any_paug_json_is_read_or_refused(stored: Any) -> None:
    try:
        augmentation = from_datacompdr(stored, (30, 20))
    except DataError:
        return
    apply(picture(0, (30, 20)), augmentation, 8)


@pytest.mark.parametrize(
    "stored",
    [
        [[0, 0, 900, 10], [[0, 0.0]]],  # below the photo
        [[0, 0, 10, 10], [[14, 0.0]]],
        [[0, 0, 10, 10], [[1.5, 0.0]]],
        [[0, 0, 10, 10], [[5, math.nan]]],
        [[0, 0, 10, 10], [[5, 1e9]]],
        [[0, 0, 0, 10], []],
        [[0, 0, 10], []],
    ],
)
def test_impossible_entries_are_refused(stored: Any) -> None:
    with pytest.raises(DataError, match=r"augmentation|paug"):
        from_datacompdr(stored, (30, 20))


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 1.5)},
        {"ratio": (2.0, 1.0)},
        {"ratio": (1.0,)},
        {"mirror": 2.0},
        {"magnitude": 31},
        {"operations": -1},
        {"augmentations": 0},
        {"shard": 0},
    ],
)
def test_impossible_policies_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="reinforcement"):
        Reinforcement(**settings)

"""Features of a frozen trunk: the same by any engine, kept on disk, and of several views."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps

from distill.config import Recipe
from distill.data.corpus import Corpus
from distill.data.degrade import DEGRADATIONS, drawn_degradation
from distill.teachers.cache import StoredRows, VectorCache
from distill.teachers.fast_trunk import fast_trunk
from distill.teachers.trunk_features import CorpusFeatures, TrunkEncoder
from mobileclip.photos import open_photo
from mobileclip.preprocess import PixelRecipe
from mobileclip.towers.image import trunk_features

PIXELS = PixelRecipe(size=64, resize="shortest", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> TrunkEncoder:
    torch.manual_seed(0)
    trunk = timm.create_model("test_efficientnet", num_classes=0).eval().requires_grad_(False)
    return TrunkEncoder(trunk, "test_efficientnet", PIXELS, 2, CPU)


@pytest.mark.parametrize("maps", [0, 2])
def test_onnx_runtime_gives_the_same_features(maps: int) -> None:
    torch.manual_seed(0)
    trunk = timm.create_model("test_efficientnet", num_classes=0).eval()
    fast = fast_trunk(trunk, 64, maps)
    assert fast is not None
    pixels = np.random.default_rng(0).normal(0, 1, (5, 3, 64, 64)).astype(np.float32)
    with torch.inference_mode():
        slow = trunk_features(trunk, torch.from_numpy(pixels), maps).numpy()
    np.testing.assert_allclose(fast(pixels), slow, rtol=1e-3, atol=1e-4)


def test_without_the_packages_pytorch_runs_the_trunk(monkeypatch: pytest.MonkeyPatch, encoder: TrunkEncoder) -> None:
    pictures = [Image.effect_noise((80, 64), 60).convert("RGB") for _ in range(2)]
    expected = encoder.encode_pictures(pictures)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    other = TrunkEncoder(encoder.trunk, encoder.name, PIXELS, 2, CPU)
    assert fast_trunk(encoder.trunk, 64, 2) is None
    np.testing.assert_allclose(other.encode_pictures(pictures), expected, rtol=1e-3, atol=1e-4)


def test_views_are_what_they_say(encoder: TrunkEncoder, data: Path) -> None:
    photos = sorted((data / "shapes/images").iterdir())[:8]
    opened = [open_photo(path) for path in photos]
    seen = {
        None: opened,
        "mirror": [ImageOps.mirror(photo) for photo in opened],
        "degraded": [DEGRADATIONS[drawn_degradation(p.name)](o) for p, o in zip(photos, opened, strict=True)],
    }
    names = set()
    for view, pictures in seen.items():
        chosen = encoder.seeing(view) if view else encoder
        np.testing.assert_allclose(chosen.encode_images(photos), encoder.encode_pictures(pictures), rtol=1e-5)
        names.add(chosen.identity)
    assert len(names) == 3
    other = TrunkEncoder(encoder.trunk, encoder.name, dataclasses.replace(PIXELS, size=32), 2, CPU)
    assert other.identity not in names


def test_features_are_computed_once_and_read_from_disk(encoder: TrunkEncoder, data: Path, tmp_path: Path) -> None:
    photos: list[Any] = sorted((data / "shapes/images").iterdir())[:6]
    (tmp_path / "bad.png").write_bytes(b"nothing")
    photos.insert(2, tmp_path / "bad.png")
    first = VectorCache(tmp_path / "cache").features(encoder, photos)
    assert all(isinstance(part, np.memmap) and part.dtype == np.float16 for part in first.parts)
    assert first.unreadable().tolist() == [False, False, True, False, False, False, False]

    class Never:
        identity = encoder.identity

        def encode_images(self, photos: Sequence[object]) -> np.ndarray:
            raise AssertionError("is cached")

    again = VectorCache(tmp_path / "cache").features(Never(), photos)
    expected = encoder.encode_images(photos[3:])
    np.testing.assert_allclose(again.take([3, 4, 5, 6]).numpy(), expected, rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(again.columns(4)[3:], again.take([3, 4, 5, 6])[:, :4])


def test_rows_are_found_in_any_part() -> None:
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    stored = StoredRows([rows[:4], rows[:0], rows[4:5], rows[5:]])
    assert len(stored) == 10 and stored.width == 3
    assert [stored[number].tolist() for number in range(10)] == rows.tolist()
    assert len(StoredRows([])) == 0 and StoredRows([]).unreadable().tolist() == []


def test_a_sample_is_drawn_from_the_photo_and_its_views(
    encoder: TrunkEncoder, recipe_folder: Path, data: Path, tmp_path: Path
) -> None:
    recipe = Recipe.load(recipe_folder / "recipe.toml", {"photos[0].views": ["mirror", "degraded"]})
    corpus = Corpus.read(recipe, data)
    features = CorpusFeatures.of(encoder, VectorCache(tmp_path), corpus)
    colors = int(np.flatnonzero(corpus.source_of == 1)[0])
    for sample, count in ((0, 3), (colors, 1)):
        drawn = [features.draw(sample, np.random.default_rng(seed)).tobytes() for seed in range(60)]
        assert len(set(drawn)) == count
        assert min(drawn.count(one) for one in set(drawn)) > 8
    several = features.take([0, colors, 5], np.random.default_rng(3))
    assert several.shape == (3, features.photos.width) and several.dtype == torch.float32
    assert corpus.identity != Corpus.read(Recipe.load(recipe_folder / "recipe.toml"), data).identity

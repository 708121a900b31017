"""LiteRT towers against NumPy: the same tiny towers as for ONNX Runtime, in every layout that a model may have."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mobileclip
from mobileclip import EngineError
from mobileclip.runtimes import load_tower
from mobileclip.runtimes.litert import Tower, accelerators

SIZE, DIM = 8, 4


class Pixels(nn.Module):
    """The tiny bundle's image tower, for pixels in either layout."""

    def __init__(self, projection: np.ndarray, channels_last: bool = True) -> None:
        super().__init__()
        self.weight, self.channels_last = nn.Buffer(torch.from_numpy(projection)), channels_last

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        pixels = pixels.float()
        upright = pixels.permute(0, 3, 1, 2) if self.channels_last else pixels
        vectors = upright.reshape(-1, 3 * SIZE * SIZE) @ self.weight
        return {"image_embeds": vectors / vectors.norm(dim=1, keepdim=True), "features": pixels * 2}


class Tokens(nn.Module):
    def __init__(self, embedding: np.ndarray) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.from_numpy(embedding))

    def forward(self, tokens: Tensor) -> Tensor:
        vectors = self.table(tokens).sum(dim=1)
        return vectors / vectors.norm(dim=1, keepdim=True)


def convert(module: nn.Module, name: str, example: Tensor) -> bytes:
    from export.quiet import quiet

    with quiet():
        import litert_torch

        return bytes(litert_torch.convert(module.eval(), sample_kwargs={name: example}).model_content())


@pytest.fixture(scope="module")
def projection() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3 * SIZE * SIZE, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def image(projection: np.ndarray) -> bytes:
    return convert(Pixels(projection), "pixels", torch.zeros(1, SIZE, SIZE, 3))


def expected(pixels: np.ndarray, projection: np.ndarray) -> np.ndarray:
    rows = pixels.astype(np.float32).reshape(len(pixels), -1) @ projection
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_tower_computes_what_numpy_computes(image: bytes, projection: np.ndarray) -> None:
    tower = Tower(image, threads=1)
    assert tower.shape == (1, SIZE, SIZE, 3) and tower.dtype == np.float32
    pixels = np.random.default_rng(0).normal(size=(5, 3, SIZE, SIZE))
    for batch in (pixels.astype(np.float32), pixels, pixels[::2]):  # cast and made contiguous as needed
        vectors = tower(batch)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected(batch, projection), atol=1e-5)
    vectors, features = tower.with_features(pixels, "features")
    np.testing.assert_allclose(vectors, expected(pixels, projection), atol=1e-5)
    np.testing.assert_allclose(features, 2 * pixels, atol=1e-5)  # back as (n, c, h, w)
    assert accelerators() == ()


@pytest.mark.parametrize(("channels_last", "batch"), [(False, 1), (True, 2)])
def test_layout_and_batch_size_of_a_model_do_not_change_the_result(
    channels_last: bool, batch: int, projection: np.ndarray
) -> None:
    sides = (SIZE, SIZE, 3) if channels_last else (3, SIZE, SIZE)
    module = Pixels(projection, channels_last)
    data = convert(module, "pixels", torch.zeros(batch, *sides))
    tower = Tower(data, threads=1)
    assert tower.shape == (batch, *sides)
    pixels = np.random.default_rng(2).normal(size=(5, 3, SIZE, SIZE)).astype(np.float32)
    for count in (5, 1, 4):
        vectors, features = tower.with_features(pixels[:count], "features")
        np.testing.assert_allclose(vectors, expected(pixels[:count], projection), atol=1e-5)
        np.testing.assert_allclose(features, 2 * pixels[:count], atol=1e-5)


def test_a_model_that_normalizes_pixels_takes_only_bytes(projection: np.ndarray) -> None:
    data = convert(Pixels(projection), "pixels", torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8))
    tower = Tower(data, threads=1)
    assert tower.dtype == np.uint8
    pixels = np.random.default_rng(3).integers(0, 256, (3, 3, SIZE, SIZE), np.uint8)
    np.testing.assert_allclose(tower(pixels), expected(pixels, projection), atol=1e-5)
    with pytest.raises(EngineError, match="takes uint8, not float32"):
        tower(pixels.astype(np.float32))


def test_integer_inputs_and_outputs_are_scaled(image: bytes, projection: np.ndarray) -> None:
    from ai_edge_quantizer import quantizer, recipe

    random = np.random.default_rng(4)
    inputs = [{"pixels": random.normal(size=(1, SIZE, SIZE, 3)).astype(np.float32)} for _ in range(16)]
    work = quantizer.Quantizer(bytearray(image), recipe.static_wi8_ai8())
    ranges = work.calibrate({"serving_default": inputs}, num_threads=1)
    data = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
    tower = Tower(bytes(data), threads=1)
    assert tower._input["dtype"] == np.int8 and tower._outputs["image_embeds"]["dtype"] == np.int8
    assert tower.dtype == np.float32  # what callers pass
    pixels = random.normal(size=(6, 3, SIZE, SIZE)).astype(np.float32)
    vectors, features = tower.with_features(pixels, "features")
    assert vectors.dtype == np.float32 and 0.1 < np.abs(vectors).max() <= 1
    # Each value is off by at most half of one of the input's 255 levels, unless it is outside the calibrated range.
    step = 2 * float(tower._input["quantization"][0])
    inside = np.abs(pixels) < 2
    assert np.abs(features - 2 * pixels)[inside].max() <= 1.01 * step


def test_errors_of_a_tower_are_one_line(image: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    tower = Tower(image, threads=1)
    for wrong in (np.zeros((1, 3, 9, 9), np.float32), np.zeros((2, 2), np.float32), np.zeros((0, 3, 8, 8), np.float32)):
        with pytest.raises(EngineError, match=r"takes \[1, 8, 8, 3\]") as caught:
            tower(wrong)
        assert "\n" not in str(caught.value)
    for data in (b"", b"not a model", image[:300]):
        with pytest.raises(EngineError, match="cannot load") as caught:
            Tower(data)
        assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="no output 'map', only"):
        tower.with_features(np.zeros((1, 3, 8, 8), np.float32), "map")
    with pytest.raises(ValueError, match="threads"):
        Tower(image, threads=0)
    assert capfd.readouterr().err == ""


def test_the_error_of_a_delegate_that_does_not_load_is_one_line(image: bytes, tmp_path: Path) -> None:
    broken = tmp_path / "delegate.so"
    broken.write_bytes(b"not a library")
    with pytest.raises(EngineError, match=r"LiteRT cannot load the model with .*delegate\.so") as caught:
        Tower(image, accelerator=str(broken))
    assert "\n" not in str(caught.value)


def test_either_package_is_enough_and_none_is_an_error(image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    real, installed = importlib.import_module, {"tflite_runtime.interpreter"}
    used = []

    def import_installed(name: str, package: str | None = None) -> Any:
        if name not in installed:
            raise ImportError(f"No module named {name!r}")
        used.append(name)
        return SimpleNamespace(**vars(real("ai_edge_litert.interpreter")))

    monkeypatch.setattr(importlib, "import_module", import_installed)
    assert Tower(image, threads=1).shape == (1, SIZE, SIZE, 3) and used == ["tflite_runtime.interpreter"]
    installed.clear()
    with pytest.raises(EngineError, match="pip install ai-edge-litert"):
        Tower(image)


@pytest.fixture
def bundle(tiny: Any, image: bytes, projection: np.ndarray, tmp_path: Path) -> Path:
    """The tiny bundle, with towers for both engines."""
    np.testing.assert_array_equal(tiny.projection, projection)
    length = tiny.tokenizer.context_length
    text = convert(Tokens(tiny.embedding), "tokens", torch.zeros(1, length, dtype=torch.int32))
    tiny.files |= {"image.tflite": image, "text.tflite": text}
    tiny.fields["towers"]["litert"] = {"precision": "fp32", "image": "image.tflite", "text": "text.tflite"}
    tiny.fields["tokenizer"]["causal"] = True  # so that padding is dropped, and the tower must add it again
    return tiny.write(tmp_path / "tiny")


def test_both_engines_agree_and_check_known_answers(
    tiny: Any, bundle: Path, real_photos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx, litert = (mobileclip.load(bundle, engine=engine, threads=1) for engine in ("onnx", "litert"))
    photos, texts = list(real_photos.values()), ["dog", "a cat", "dog cat dog", ""]
    np.testing.assert_allclose(litert.encode_images(photos), onnx.encode_images(photos), atol=1e-5)
    np.testing.assert_allclose(litert.encode_texts(texts), onnx.encode_texts(texts), atol=1e-5)
    np.testing.assert_allclose(litert.encode_texts(texts), tiny.text_vectors(tiny.tokenizer(texts)), atol=1e-5)
    assert litert.fingerprint != onnx.fingerprint
    tiny.files["known_answers.npz"] = tiny.answers(image_vectors=np.eye(4, dtype=np.float32)[:3])
    altered = mobileclip.load(tiny.write(tmp_path / "altered"), engine="litert")
    with pytest.raises(EngineError, match="wrong known answers with the engine 'litert'"):
        altered.encode_images(photos[:1])


def test_a_bundle_chooses_an_engine_that_it_has_towers_for(tiny: Any, bundle: Path, tmp_path: Path) -> None:
    assert mobileclip.load(bundle).engine == "onnx"
    del tiny.fields["towers"]["onnx"]
    only = mobileclip.load(tiny.write(tmp_path / "only"))
    assert only.engine == "litert" and only.encode_texts(["a dog"]).shape == (1, only.dim)
    with pytest.raises(EngineError, match="no towers for the engine 'onnx', only for litert"):
        mobileclip.load(tmp_path / "only", engine="onnx")


def test_the_engine_is_registered(image: bytes) -> None:
    assert load_tower("litert", image, threads=1)(np.ones((2, 3, SIZE, SIZE), np.float32)).shape == (2, DIM)

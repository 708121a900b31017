"""Bundles with several engines and precisions."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import mobileclip
from mobileclip import BundleError, EngineError
from mobileclip.bundle import Bundle
from mobileclip.errors import ConfigError
from mobileclip.preprocess import PixelRecipe


def flipped(data: bytes) -> bytes:
    """The same tower with negated weights, and thus negated vectors."""
    model = onnx.load_from_string(data)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), "w"))
    result: bytes = model.SerializeToString()
    return result


@pytest.fixture
def several(tiny: Any) -> Any:
    tiny.files |= {f"{side}-b.onnx": flipped(tiny.files[f"{side}.onnx"]) for side in ("image", "text")}
    tiny.files["labels-b.toml"] = tiny.files["labels.toml"].replace(b"0.3", b"0.25")
    answers = {f"{side}_vectors": -getattr(tiny, f"{side}_vectors")(batch) for side, batch in inputs(tiny).items()}
    tiny.files["known_answers-b.npz"] = tiny.answers(**answers)
    tiny.fields["towers"]["onnx"]["variants"] = {
        "b": {
            "image": "image-b.onnx",
            "text": "text-b.onnx",
            "labels": "labels-b.toml",
            "known_answers": "known_answers-b.npz",
        }
    }
    return tiny


def inputs(tiny: Any) -> dict[str, Any]:
    """The inputs of the bundle's known answers."""
    import io

    with np.load(io.BytesIO(tiny.answers())) as stored:
        pixels = PixelRecipe.from_dict(tiny.fields["pixels"]).normalize_uint8(stored["pixels"])
        return {"image": pixels, "text": stored["tokens"]}


def test_each_precision_has_its_own_towers_labels_answers_and_fingerprint(several: Any, tmp_path: Path) -> None:
    path = several.write(tmp_path / "several")
    first, other = mobileclip.load(path, threads=1), mobileclip.load(path, precision="b", threads=1)
    assert (first.precision, other.precision) == ("fp32", "b")
    assert mobileclip.load(path, precision="fp32").fingerprint == first.fingerprint != other.fingerprint
    assert (first.labels["dog"].threshold, other.labels["dog"].threshold) == (0.3, 0.25)
    np.testing.assert_allclose(first.encode_texts(["dog"]), -other.encode_texts(["dog"]), atol=1e-6)
    pixels = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(first.encode_pixels(pixels), -other.encode_pixels(pixels), atol=1e-6)
    with pytest.raises(EngineError, match="no int4 towers for the engine 'onnx', only fp32, b"):
        mobileclip.load(path, precision="int4")


def test_variants_do_not_change_the_fingerprint_of_the_default(several: Any, tmp_path: Path) -> None:
    alone = copy.deepcopy(several)
    del alone.fields["towers"]["onnx"]["variants"]
    before = mobileclip.load(alone.write(tmp_path / "alone")).fingerprint
    assert mobileclip.load(several.write(tmp_path / "several")).fingerprint == before


def test_a_tower_may_be_a_folder_of_files(several: Any, tmp_path: Path) -> None:
    several.files |= {"image.mlpackage/Manifest.json": b"{}", "image.mlpackage/Data/weights/weight.bin": b"\1"}
    several.fields["towers"]["coreml"] = {"precision": "fp16", "image": "image.mlpackage", "text": "text.onnx"}
    bundle = Bundle(several.write(tmp_path / "folder"))
    assert len(bundle.manifest.hashes("image.mlpackage")) == 2 and len(bundle.manifest.hashes("text.onnx")) == 1
    before = mobileclip.load(bundle.path, engine="coreml").fingerprint
    several.files["image.mlpackage/Data/weights/weight.bin"] = b"\2"
    assert mobileclip.load(several.write(tmp_path / "folder"), engine="coreml").fingerprint != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "gone.onnx"}, "gone.onnx"),
        ({"labels": "gone.toml"}, "gone.toml"),
        ({"known_answers": "gone.npz"}, "used but not listed"),
        ({"known_answers": 3}, "variants: b: known_answers: 3 is not of type str"),
        ({"local": {"output": "", "head": "x"}}, "variants: b: local: output must name"),
    ],
)
def test_the_error_of_a_malformed_variant_is_one_line(several: Any, tmp_path: Path, change: Any, message: str) -> None:
    several.fields["towers"]["onnx"]["variants"]["b"] |= change
    with pytest.raises((BundleError, ConfigError), match=message):
        several.write(tmp_path / "bad")
    several.fields["towers"]["onnx"]["variants"] = ["b"]
    with pytest.raises(ConfigError, match="towers: onnx: variants: a table is needed"):
        several.write(tmp_path / "bad")


def test_denormalize_restores_the_bytes() -> None:
    recipe = PixelRecipe(16, "shortest", "bicubic", (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    assert np.array_equal(recipe.denormalize(recipe.normalize_uint8(pixels)), pixels.transpose(0, 3, 1, 2))

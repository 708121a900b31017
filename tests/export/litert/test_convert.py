"""LiteRT files compared with float32 PyTorch, and what they hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.formats import ExportError, load_format
from export.litert.convert import LITERT, LITERT_UINT8
from export.litert.tflite import check_operators, gpu_fallbacks, layers, operators, pixel_recipe
from export.measure.sensitivity import BUDGET, Trial
from mobileclip.errors import EngineError
from mobileclip.runtimes.litert import Tower
from tests.export import towers

SIDES = ("image", "text")


@pytest.fixture(scope="module")
def model():
    return towers.tiny()


@pytest.fixture(scope="module")
def files(model) -> dict[str, bytes]:
    return {side: LITERT.convert(towers.fused(model), side) for side in SIDES}


@pytest.mark.parametrize("side", SIDES)
def test_a_tower_equals_torch(model, files, side: str) -> None:
    batch = towers.inputs(model)[side]
    tower = LITERT.open(files[side], 1)
    found = tower(batch)
    assert np.abs(found - towers.vectors(model, side, batch)).max() < 1e-5
    assert tower.shape == ((1, 64, 64, 3) if side == "image" else (1, 16))
    ends = Tower(files[side])._input
    assert ends["dtype"] == (np.float32 if side == "image" else np.int32)


def test_the_map_is_the_one_that_was_pooled(model, files) -> None:
    batch = towers.inputs(model)["image"]
    vectors, features = LITERT.open(files["image"], 1).with_features(batch, "features")
    with torch.inference_mode():
        expected = model.image.trunk.forward_features(torch.from_numpy(batch)).numpy()
        projected = model.image.projection(torch.from_numpy(features.mean(axis=(2, 3)))).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-4)
    assert towers.cosine(projected, vectors) > 0.99999


def test_short_rows_are_padded_as_the_tokenizer_pads(model, files) -> None:
    batch = towers.inputs(model)["text"][:2]
    tower = LITERT.open(files["text"], 1)
    np.testing.assert_array_equal(tower(batch[:, :5]), tower(batch))
    with pytest.raises(EngineError, match=r"takes \[1, 16\]"):
        tower(np.zeros((1, 17), np.int32))


def test_operators_are_built_in_and_run_on_a_gpu(files) -> None:
    found = operators(files["image"])
    assert found["CONV_2D"] > 3 and not any(name.startswith("CUSTOM") for name in found)
    assert operators(files["text"])["EMBEDDING_LOOKUP"] == 1
    assert "ARG_MAX" not in operators(files["text"]) and "GATHER_ND" not in operators(files["text"])
    assert not LITERT.cpu_operators(files["image"])


def test_foreign_operators_are_refused(files, monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    made = flatbuffer_utils.convert_bytearray_to_object(bytearray(files["image"]))
    code = made.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM, schema.BuiltinOperator.CUSTOM
    code.customCode = b"FlexErf"
    altered = bytes(flatbuffer_utils.convert_object_to_bytearray(made))
    with pytest.raises(ExportError, match="outside the built-in set: CUSTOM FlexErf"):
        check_operators(altered)
    assert gpu_fallbacks(altered)["CUSTOM FlexErf"] > 0


@pytest.mark.parametrize(
    ("precision", "least", "size"), [("fp16", 0.9999, 0.8), ("int8-weights", 0.99, 0.7), ("int8", 0.95, 0.75)]
)
@pytest.mark.parametrize("side", SIDES)
def test_smaller_files_stay_near(model, files, side: str, precision: str, least: float, size: float) -> None:
    batch = towers.inputs(model)[side]
    small = LITERT.quantize(files[side], side, precision, [row[None] for row in batch])
    assert len(small) < size * len(files[side])
    found, expected = LITERT.open(small, 1)(batch), towers.vectors(model, side, batch)
    assert least < towers.cosine(found, expected) and not np.array_equal(found, expected)
    given = Tower(small)
    assert given._input["dtype"] == (np.float32 if side == "image" else np.int32)
    assert all(output["dtype"] == np.float32 for output in given._outputs.values())


def test_towers_with_the_scale_inside_take_bytes(model) -> None:
    data = LITERT_UINT8.convert(towers.fused(model), "image")
    assert pixel_recipe(data) == model.config.pixels
    assert LITERT_UINT8.cpu_operators(data) == {"CAST UINT8 → FLOAT32": 1}
    assert list(LITERT_UINT8.files(data, "image", "fp32")) == ["image-uint8-fp32.tflite"]
    batch = towers.inputs(model)["image"]
    levels = np.rint((batch * 0.5 + 0.5) * 255).astype(np.uint8)  # the tiny recipe's mean and std
    expected = towers.vectors(model, "image", batch)
    assert np.abs(Tower(data, threads=1)(levels) - expected).max() < 1e-5
    assert np.abs(LITERT_UINT8.open(data, 1)(batch) - expected).max() < 1e-5
    small = LITERT_UINT8.quantize(data, "image", "int8", [row[None] for row in batch])
    assert pixel_recipe(small) == model.config.pixels
    assert towers.cosine(Tower(small, threads=1)(levels), expected) > 0.95


def test_bad_requests_are_one_line(model, files) -> None:
    with pytest.raises(ExportError, match="no precision 'int3', only fp32, fp16"):
        LITERT.quantize(files["image"], "image", "int3", [])
    with pytest.raises(ExportError, match="need calibration photos"):
        LITERT.quantize(files["image"], "image", "int8", [])

    class Sorts(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.argsort(tokens.float(), dim=-1).float()

    broken = towers.tiny()
    broken.text = Sorts()
    with pytest.raises(ExportError, match="the text tower can't be converted to LiteRT") as caught:
        LITERT.convert(broken, "text")
    assert "\n" not in str(caught.value)
    with pytest.raises(ExportError, match="unknown format 'abacus'"):
        load_format("abacus")
    assert load_format("litert") is LITERT


def test_layers_that_change_the_vectors_too_much_stay_exact() -> None:
    model = towers.pocket()
    data = LITERT.convert(towers.fused(model), "image")
    assert sum(layers(data).values()) > 0.97 * sum(one.numel() for one in model.image.parameters())
    photos = [row[None] for row in towers.inputs(model)["image"]]
    trial = Trial(data, photos, lambda tower: LITERT.open(tower, 1))
    blind, careful = (LITERT.quantize(data, "image", "int8-weights", some) for some in ([], photos))
    assert trial.damage(data) < 1e-6 and trial.damage(careful) <= BUDGET < trial.damage(blind)
    assert len(blind) < len(careful) < 0.5 * len(data)


@pytest.mark.parametrize("side", SIDES)
def test_pocket(side: str) -> None:
    model = towers.pocket()
    batch = towers.inputs(model)[side]
    data = LITERT.convert(towers.fused(model), side)
    expected = towers.vectors(model, side, batch)
    assert towers.cosine(LITERT.open(data, 1)(batch), expected) > 0.99999
    small = LITERT.quantize(data, side, "int8", [row[None] for row in batch])
    assert towers.cosine(LITERT.open(small, 1)(batch), expected) > 0.98
    assert len(small) < 0.31 * len(data)
    assert not gpu_fallbacks(data)
    assert Path(*LITERT.files(data, side, "int8")).name == f"{side}-int8.tflite"

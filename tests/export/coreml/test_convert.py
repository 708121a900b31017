"""Core ML packages compared with float32 PyTorch: in Core ML on macOS, in the interpreter elsewhere."""

import dataclasses
import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from export.coreml.convert import COREML, unpacked
from export.formats import ExportError, load_format
from export.quiet import quiet
from mobileclip.errors import EngineError
from mobileclip.towers import create_model
from tests.export import towers

with quiet():
    import coremltools as ct

SIDES = ("image", "text")


def spec_of(data: bytes):
    with unpacked(data) as package:
        return ct.models.MLModel(str(package), skip_model_load=True).get_spec()


@pytest.fixture(scope="module")
def model():
    return towers.tiny()


@pytest.fixture(scope="module")
def packages(model) -> dict[str, bytes]:
    return {side: COREML.convert(towers.fused(model), side) for side in SIDES}


@pytest.mark.parametrize("side", SIDES)
def test_a_tower_equals_torch_and_fp16_nearly(model, packages, side: str) -> None:
    batch = towers.inputs(model)[side]
    expected = towers.vectors(model, side, batch)
    assert np.abs(COREML.open(packages[side], None)(batch) - expected).max() < 1e-4
    half = COREML.quantize(packages[side], side, "fp16", [])
    assert len(half) < 0.7 * len(packages[side]) and spec_of(half).specificationVersion == 7  # iOS 16
    found = COREML.open(half, None)(batch)
    assert towers.cosine(found, expected) > 0.999 and np.abs(found - expected).max() > 1e-6


def test_the_map_is_the_one_that_was_pooled(model, packages) -> None:
    batch = towers.inputs(model)["image"][:2]
    vectors, features = COREML.open(packages["image"], None).with_features(batch, "features")
    with torch.inference_mode():
        expected = model.image.trunk.forward_features(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-3)
    assert towers.cosine(vectors, towers.vectors(model, "image", batch)) > 0.9999


def test_a_scale_for_each_channel_is_inside_too() -> None:
    model = towers.tiny()
    pixels = dataclasses.replace(model.config.pixels, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))
    model.config = dataclasses.replace(model.config, pixels=pixels)
    batch = towers.inputs(model)["image"]
    found = COREML.open(COREML.convert(towers.fused(model), "image"), None)(batch)
    assert np.abs(found - towers.vectors(model, "image", batch)).max() < 1e-4


def test_a_package_has_the_descriptions_that_xcode_shows(packages) -> None:
    image, text = (spec_of(packages[side]).description for side in SIDES)
    assert [one.name for one in image.input] == ["image"] and image.input[0].type.imageType.width == 64
    assert [one.name for one in image.output] == ["image_embeds", "features"]
    assert [one.name for one in text.input] == ["tokens"]
    assert list(text.input[0].type.multiArrayType.shape) == [1, 16]
    assert text.input[0].type.multiArrayType.dataType == ct.proto.FeatureTypes_pb2.ArrayFeatureType.INT32
    for description in (image, text):
        assert "tiny" in description.metadata.shortDescription
        assert all(one.shortDescription for one in (*description.input, *description.output))


@pytest.mark.parametrize("precision", ["int8-weights", "palette8", "palette6"])
def test_compressed_packages_keep_names_and_stay_near(precision: str) -> None:
    config = towers.tiny().config
    # Wide enough for a palette to be smaller than the weights that it replaces.
    text = dataclasses.replace(config.text, vocab_size=544, width=256, layers=1)
    torch.manual_seed(0)
    model = create_model(dataclasses.replace(config, text=text)).eval()
    batch = towers.inputs(model)["text"]
    base = COREML.convert(towers.fused(model), "text")
    half, small = (COREML.quantize(base, "text", kind, []) for kind in ("fp16", precision))
    assert len(small) < len(half)
    found, expected = COREML.open(small, None)(batch), towers.vectors(model, "text", batch)
    assert towers.cosine(found, expected) > 0.99
    assert not np.array_equal(found, COREML.open(half, None)(batch))
    description = spec_of(small).description
    assert [one.name for one in description.output] == ["text_embeds"] and description.output[0].shortDescription


def test_files_are_the_folder_that_xcode_opens(packages) -> None:
    files = COREML.files(packages["text"], "text", "fp16")
    assert set(files) >= {"text-fp16.mlpackage/Manifest.json"} and all("/" in name for name in files)
    assert sum(map(len, files.values())) < len(packages["text"])
    with zipfile.ZipFile(io.BytesIO(packages["text"])) as archive:
        assert len(archive.namelist()) == len(files)


def test_bad_requests_are_one_line(packages) -> None:
    with pytest.raises(ExportError, match="no precision 'int3', only fp32, fp16"):
        COREML.quantize(packages["text"], "text", "int3", [])
    with pytest.raises(EngineError, match="not a zipped Core ML package"):
        COREML.open(b"no zip", None)

    class Fails(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(tokens.float().reshape(4, 4)).real

    broken = towers.tiny()
    broken.text = Fails()
    with pytest.raises(ExportError, match="the text tower can't be converted to Core ML") as caught:
        COREML.convert(broken, "text")
    assert "\n" not in str(caught.value)
    assert load_format("coreml") is COREML


@pytest.mark.parametrize("side", SIDES)
def test_pocket(side: str) -> None:
    model = towers.pocket()
    batch = towers.inputs(model)[side][:3]
    half = COREML.quantize(COREML.convert(towers.fused(model), side), side, "fp16", [])
    assert towers.cosine(COREML.open(half, None)(batch), towers.vectors(model, side, batch)) > 0.9999


def test_a_mobileclip_tower() -> None:
    from tests.mobileclip.towers.conftest import randomize

    model = randomize(create_model("mobileclip2-s0"))
    batch = towers.inputs(model)["image"][:1]
    half = COREML.quantize(COREML.convert(towers.fused(model), "image"), "image", "fp16", [])
    assert towers.cosine(COREML.open(half, None)(batch), towers.vectors(model, "image", batch)) > 0.999

"""Where in a photo a text matches, against sums written out by hand, with a tower that is easy to repeat in NumPy."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import ExifTags, Image

import mobileclip
from mobileclip.bundle import Bundle
from mobileclip.errors import BundleError, ConfigError, EngineError
from mobileclip.localize import (
    Box,
    LocalizeError,
    boxes,
    can_localize,
    contributions,
    heat,
    heat_maps,
    local_vectors,
)
from mobileclip.model import Model

SIZE, DIM, CHANNELS, CELLS = 8, 4, 3, 4


def pooled_tower(head: np.ndarray, bias: np.ndarray, *, error: float = 1.0) -> bytes:
    """A tower whose features are the mean color of each 2 × 2 pixels, with average pooling and a linear head."""
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["cells"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["cells", "offset"], ["shifted"]),
        helper.make_node("GlobalAveragePool", ["shifted"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "head"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sums"]),
        helper.make_node("LpNormalization", ["sums"], ["image_embeds"], axis=1, p=2),
        helper.make_node("Mul", ["shifted", "error"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["n", DIM]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", CHANNELS, CELLS, CELLS]),
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(head.T), "head"),
            numpy_helper.from_array(bias, "bias"),
            numpy_helper.from_array(np.array([1.1], np.float32), "offset"),
            numpy_helper.from_array(np.array([[[error]], [[1.0]], [[1.0]]], np.float32)[None], "error"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


HEAD = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.2, -0.3, 0.1]], np.float32)
BIAS = np.array([0.05, -0.1, 0.0, 0.3], np.float32)


def features_of(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), 3, CELLS, 2, CELLS, 2).mean(axis=(3, 5)) + np.float32(1.1)


def vectors_of(pixels: np.ndarray) -> np.ndarray:
    sums = features_of(pixels).mean(axis=(2, 3)) @ HEAD.T + BIAS
    return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)


def make(tiny: Any, folder: Path, *, error: float = 1.0, head: bytes = b"") -> Path:
    with np.load(io.BytesIO(tiny.files["known_answers.npz"])) as answers:
        normalized = (answers["pixels"].transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
    tiny.files |= {
        "image.onnx": pooled_tower(HEAD, BIAS, error=error),
        "head.npz": head or npz(weight=HEAD, bias=BIAS),
        "known_answers.npz": tiny.answers(image_vectors=vectors_of(normalized)),
    }
    tiny.fields["towers"]["onnx"]["local"] = {"output": "features", "head": "head.npz"}
    return tiny.write(folder)


@pytest.fixture
def model(tiny: Any, tmp_path: Path) -> Model:
    return mobileclip.load(make(tiny, tmp_path / "local"), threads=1)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, (6, 3, SIZE, SIZE)).astype(np.float32)


def test_the_mean_of_the_local_vectors_is_the_vector_of_the_photo(model: Model, pixels: np.ndarray) -> None:
    local = local_vectors(model, pixels)
    assert local.shape == (6, CELLS, CELLS, DIM) and local.dtype == np.float32
    np.testing.assert_allclose(local, np.moveaxis(features_of(pixels), 1, 3) @ HEAD.T + BIAS, atol=1e-5)
    mean = local.mean(axis=(1, 2))
    np.testing.assert_allclose(
        mean / np.linalg.norm(mean, axis=1, keepdims=True), model.encode_pixels(pixels), atol=1e-6
    )


def test_contributions_add_up_to_the_cosine(model: Model, pixels: np.ndarray) -> None:
    words = model.encode_texts(["dog", "a cat", "cat dog"])
    maps = contributions(model, pixels, words)
    assert maps.shape == (6, 3, CELLS, CELLS) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), model.encode_pixels(pixels) @ words.T, atol=1e-6)
    local = local_vectors(model, pixels)
    lengths = np.linalg.norm(local.mean(axis=(1, 2)), axis=1)
    np.testing.assert_allclose(maps, np.einsum("nhwd,qd->nqhw", local, words) / lengths[:, None, None, None], atol=1e-5)


def spot(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (width, height), (0, 0, 0))
    picture.paste((255, 0, 0), box)
    return picture


RED = np.array([[1.0, 0, 0, 0]], np.float32)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((64, 64), (0, 32, 16, 64)),
        ((400, 80), (0, 0, 40, 40)),  # both ends are outside the model's own crop
        ((400, 80), (360, 40, 400, 80)),
        ((60, 300), (20, 250, 60, 300)),
        ((640, 8), (600, 0, 640, 8)),  # too long to be covered by squares
    ],
)
def test_an_object_is_found_anywhere_in_the_photo(
    model: Model, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    (values,) = heat_maps(model, spot(*size, box), RED)
    assert values.shape[1] / values.shape[0] == pytest.approx(min(size[0] / size[1], 16), rel=0.1)
    row, column = np.unravel_index(values.argmax(), values.shape)
    across, down = (column + 0.5) / values.shape[1] * size[0], (row + 0.5) / values.shape[0] * size[1]
    assert box[0] <= across <= box[2] and box[1] <= down <= box[3]
    found = boxes(heat(values - values.min(), 0.01))
    assert len(found) == 1 and found[0].score == pytest.approx(1)
    middle = (found[0].left + found[0].right) / 2 * size[0], (found[0].top + found[0].bottom) / 2 * size[1]
    assert abs(middle[0] - (box[0] + box[2]) / 2) < 0.15 * min(size[0], 100)
    assert abs(middle[1] - (box[1] + box[3]) / 2) < 0.15 * size[1] + 4


def test_exif_orientation_turns_the_map_too(model: Model, tmp_path: Path) -> None:
    picture, exif = spot(80, 40, (0, 0, 20, 40)), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # shown rotated by 90° clockwise: the left edge becomes the top
    picture.save(tmp_path / "turned.png", exif=exif)
    (values,) = heat_maps(model, tmp_path / "turned.png", RED)
    assert values.shape[0] > values.shape[1]
    assert np.unravel_index(values.argmax(), values.shape)[0] < values.shape[0] / 4


def test_a_model_that_squashes_sees_the_whole_photo_at_once(tiny: Any, tmp_path: Path) -> None:
    tiny.fields["pixels"]["resize"] = "squash"
    model = mobileclip.load(make(tiny, tmp_path / "squash"), threads=1)
    photo = spot(400, 80, (360, 40, 400, 80))
    (values,) = heat_maps(model, photo, RED)
    assert values.shape == (16, 16)
    assert np.unravel_index(values.argmax(), values.shape)[0] >= 8
    assert np.unravel_index(values.argmax(), values.shape)[1] >= 14


def test_texts_and_their_vectors_give_the_same_map(model: Model) -> None:
    photo = spot(30, 20, (3, 3, 9, 9))
    texts = ["dog", "a cat"]
    np.testing.assert_allclose(heat_maps(model, photo, texts), heat_maps(model, photo, model.encode_texts(texts)))


def test_heat_is_low_where_the_text_hardly_matches() -> None:
    values = np.array([[0.4, 0.1], [-0.2, 0.0]], np.float32)
    np.testing.assert_allclose(heat(values, 0.1), [[1, 0.25], [0, 0]])
    np.testing.assert_allclose(heat(values, 0.4), [[0.5, 0.125], [0, 0]])
    assert boxes(heat(values, 0.4)) == ()


def test_boxes_are_regions_the_hottest_first() -> None:
    values = np.zeros((10, 20), np.float32)
    values[1:4, 2:6] = 0.7
    values[6:9, 10:15] = 0.8
    values[7, 12] = 1.0
    values[0, 19] = 0.55  # hot enough for the edge of a box, but not for a separate box
    first, second = boxes(values)
    assert first == Box(0.5, 0.6, 0.75, 0.9, 1.0)
    assert second == Box(0.1, 0.1, 0.3, 0.4, pytest.approx(0.7))
    assert boxes(np.zeros((3, 3), np.float32)) == ()


def test_a_bundle_without_a_feature_map_loads_but_cannot_localize(
    tiny: Any, tmp_path: Path, pixels: np.ndarray
) -> None:
    model = mobileclip.load(tiny.write(tmp_path / "old"), threads=1)
    assert not can_localize(model) and model.head is None
    assert model.encode_pixels(pixels).shape == (6, DIM)
    for call in (
        lambda: local_vectors(model, pixels),
        lambda: contributions(model, pixels, RED),
        lambda: heat_maps(model, spot(9, 9, (0, 0, 3, 3)), RED),
    ):
        with pytest.raises(LocalizeError, match="tiny cannot show where"):
            call()
    with pytest.raises(EngineError, match="no feature map"):
        model.encode_features(pixels)


def test_a_map_that_does_not_add_up_is_refused(tiny: Any, tmp_path: Path, pixels: np.ndarray) -> None:
    model = mobileclip.load(make(tiny, tmp_path / "wrong", error=9.0), threads=1)
    assert model.encode_pixels(pixels).shape == (6, DIM)
    with pytest.raises(EngineError, match="does not add up"):
        contributions(model, pixels, RED)


def test_an_approximate_head_may_be_off_by_its_own_bound(tiny: Any, tmp_path: Path, pixels: np.ndarray) -> None:
    approximate = HEAD + 0.3 * np.random.default_rng(3).normal(size=HEAD.shape).astype(np.float32)
    sums = features_of(pixels).mean(axis=(2, 3)) @ approximate.T + BIAS
    worst = float(((sums / np.linalg.norm(sums, axis=1, keepdims=True)) * vectors_of(pixels)).sum(axis=1).min())
    for bound, fits in ((worst - 0.01, True), (worst + 0.01, False)):
        head = npz(weight=approximate, bias=BIAS, cosine=np.float32(bound))
        model = mobileclip.load(make(tiny, tmp_path / str(fits), head=head), threads=1)
        if fits:
            assert contributions(model, pixels, RED).shape == (6, 1, CELLS, CELLS)
        else:
            with pytest.raises(EngineError, match="does not add up"):
                contributions(model, pixels, RED)


def test_a_bundle_with_a_bad_head_is_refused(tiny: Any, tmp_path: Path) -> None:
    for number, head in enumerate(
        (
            b"not an archive",
            npz(other=HEAD),
            npz(weight=HEAD[:2]),
            npz(weight=HEAD * np.nan),
            npz(weight=HEAD, bias=BIAS[:1]),
        )
    ):
        bundle = Bundle(make(tiny, tmp_path / str(number), head=head))
        with pytest.raises(BundleError, match=r"head\.npz"):
            bundle.head(bundle.variant("onnx"))
    bundle = Bundle(make(tiny, tmp_path / "off", head=npz(weight=HEAD, cosine=np.float32(np.nan))))
    with pytest.raises(BundleError, match=r"head\.npz"):
        bundle.head(bundle.variant("onnx"))
    bundle = Bundle(make(tiny, tmp_path / "plain", head=npz(weight=HEAD)))
    plain = bundle.head(bundle.variant("onnx"))
    assert plain is not None and not plain.bias.any()
    tiny.fields["towers"]["onnx"]["local"] = {"output": "features", "head": "gone.npz"}
    with pytest.raises(BundleError, match=r"gone\.npz"):
        tiny.write(tmp_path / "gone")
    tiny.fields["towers"]["onnx"]["local"] = {"head": "head.npz"}
    with pytest.raises(ConfigError, match="towers: onnx: local: output is missing"):
        tiny.write(tmp_path / "nameless")

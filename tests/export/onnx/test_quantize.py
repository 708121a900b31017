"""ONNX in fewer bits, compared with NumPy and float32 PyTorch."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.formats import ExportError
from export.measure.child import Child
from export.onnx import quantize as onnx_quantize
from export.onnx.convert import ONNX, ONNX_UINT8, OPSET, export_image, export_text
from export.onnx.weights import channel_axes, rounded, shrink_weights
from mobileclip.runtimes import load_tower
from mobileclip.towers import CLIP, reparameterize

RANDOM = np.random.default_rng(5)


@pytest.fixture(scope="module")
def towers(model: CLIP) -> dict[str, bytes]:
    fused = reparameterize(model)
    return {"image": export_image(fused), "text": export_text(fused)}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Smooth random pictures (24, 3, 64, 64): noise would look the same to any tower."""
    small = torch.rand(24, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(small, size=64, mode="bilinear").numpy()


def tokens(model: CLIP, count: int = 20) -> np.ndarray:
    made = RANDOM.integers(1, model.config.text.vocab_size - 2, (count, 9)).astype(np.int32)
    made[:, 0], made[:, -1] = model.config.text.vocab_size - 2, model.config.text.vocab_size - 1
    return made


def kinds(data: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(data).graph.node}


@pytest.mark.parametrize("axis", [0, 1])
def test_rounding_errs_by_half_a_level_at_most(axis: int) -> None:
    array = (RANDOM.normal(size=(40, 30)) * np.geomspace(1e-3, 1e3, 40)[:, None]).astype(np.float32)
    array = array if axis == 0 else np.ascontiguousarray(array.T)
    array[(0, slice(None)) if axis == 0 else (slice(None), 0)] = 0
    levels, scale = rounded(array, axis)
    half = np.abs(array).max(axis=1 - axis, keepdims=True) / 127 / 2
    assert levels.dtype == np.int8 and scale.shape == half.shape
    assert (np.abs(levels * scale - array) <= half * 1.0001).all()


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "GemmT", "Conv"])
def test_weights_are_rounded_by_output_channel(kind: str, session: Callable[[bytes], Any]) -> None:
    out, rows = 48, 36
    weight = (RANDOM.normal(size=(out, rows)) * np.geomspace(1e-2, 1e2, out)[:, None]).astype(np.float32)
    stored = {"GemmT": weight, "Conv": weight.reshape(out, 4, 3, 3)}.get(kind, weight.T.copy())
    shape = [1, 4, 3, 3] if kind == "Conv" else [1, rows]
    node = helper.make_node(kind.removesuffix("T"), ["x", "w"], ["y"], **({"transB": 1} if kind == "GemmT" else {}))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, out, 1, 1] if kind == "Conv" else [1, out])],
        [numpy_helper.from_array(np.ascontiguousarray(stored), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    assert set(channel_axes(proto)) == {"w"}
    data = shrink_weights(proto, {"w"})
    given = RANDOM.normal(size=shape).astype(np.float32)
    got = session(data).run(None, {"x": given})[0].ravel()
    largest = np.abs(weight).max(axis=1, keepdims=True)
    expected = (np.rint(weight / largest * 127) * largest / 127) @ given.ravel()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("precision", ONNX.precisions)
@pytest.mark.parametrize("side", ["image", "text"])
def test_every_precision_is_sound_and_stays_near_torch(
    model: CLIP, towers: dict[str, bytes], pixels: np.ndarray, tmp_path: Path, side: Any, precision: str
) -> None:
    given = pixels if side == "image" else tokens(model)
    data = ONNX.quantize(towers[side], side, precision, [one[None] for one in given[:16]])
    proto = onnx.load_from_string(data)
    onnx.checker.check_model(proto, full_check=True)
    assert next(entry.version for entry in proto.opset_import if not entry.domain) == OPSET
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # any batch
    (tmp_path / "tower").write_bytes(data)
    with torch.inference_mode():
        encode = model.encode_image if side == "image" else model.encode_text
        exact = encode(torch.from_numpy(given)).numpy()
    # In a separate process: ONNX Runtime has crashed on float16 layer norms.
    with Child("onnx", tmp_path / "tower", 1, model.config.pixels) as tower:
        vectors = np.concatenate([tower(given[:5]), tower(given[5:6]), tower(given[6:])])
    cosines = (vectors * exact).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    assert vectors.shape == exact.shape and np.median(cosines) > (0.99 if "int8" in precision else 0.9999)
    if precision != "fp32":
        assert len(data) < len(towers[side])


def test_each_precision_is_what_it_says(towers: dict[str, bytes], pixels: np.ndarray, model: CLIP) -> None:
    photos, words = [one[None] for one in pixels[:8]], [one[None] for one in tokens(model)]
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds(ONNX.quantize(towers["image"], "image", "int8", photos))
    assert "MatMulInteger" in kinds(ONNX.quantize(towers["text"], "text", "int8", words))
    for precision in ("fp16-weights", "int8-weights"):
        assert not kinds(ONNX.quantize(towers["image"], "image", precision, photos)) & {"QuantizeLinear", "ConvInteger"}
    half = onnx.load_from_string(ONNX.quantize(towers["text"], "text", "fp16", words))
    large = [one for one in half.graph.initializer if np.prod(one.dims) >= 1024]
    assert large and all(one.data_type in (TensorProto.FLOAT16, TensorProto.INT8) for one in large)
    assert {one.type.tensor_type.elem_type for one in half.graph.output} == {TensorProto.FLOAT}
    # Per channel: as many scales as output channels.
    static = onnx.load_from_string(ONNX.quantize(towers["image"], "image", "int8", photos))
    shapes = {one.name: list(one.dims) for one in static.graph.initializer}
    weights = {node.input[1] for node in static.graph.node if node.op_type == "DequantizeLinear"}
    assert any(len(shapes.get(name, [])) == 1 and shapes[name][0] > 1 for name in weights)


def test_layer_norms_stay_float32_in_fp16(towers: dict[str, bytes]) -> None:
    """ONNX Runtime crashes on some graphs otherwise, see `compute_half`."""
    half = onnx.load_from_string(ONNX.quantize(towers["text"], "text", "fp16", []))
    widened = {
        output
        for node in half.graph.node
        for output in node.output
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT
    }
    stored = {weight.name for weight in half.graph.initializer if weight.data_type == TensorProto.FLOAT}
    norms = [node for node in half.graph.node if node.op_type == "LayerNormalization"]
    assert norms and all(name in widened | stored for node in norms for name in node.input)


def test_text_in_int8_has_a_scale_for_each_output_channel(towers: dict[str, bytes]) -> None:
    small = onnx.load_from_string(ONNX.quantize(towers["text"], "text", "int8", []))
    shapes = {weight.name: list(weight.dims) for weight in small.graph.initializer}
    products = [node for node in small.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) >= 4
    for node in products:
        _, weight, _, zero_point = node.input
        assert shapes[zero_point] == [shapes[weight][-1]] and shapes[weight][-1] > 1
        assert shapes[zero_point.replace("zero_point", "scale")] == shapes[zero_point]


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(onnx_quantize, "BUDGET", -1.0)
    yield


@pytest.mark.usefixtures("tight")
def test_a_budget_that_nothing_meets_leaves_every_layer_exact(towers: dict[str, bytes], pixels: np.ndarray) -> None:
    photos = [one[None] for one in pixels[:4]]
    assert not kinds(ONNX.quantize(towers["image"], "image", "int8", photos)) & {"QuantizeLinear", "DequantizeLinear"}
    exact = ONNX.quantize(towers["image"], "image", "int8-weights", photos)
    half = ONNX.quantize(towers["image"], "image", "fp16-weights", photos)
    assert abs(len(exact) - len(half)) < 0.02 * len(half)


def test_static_int8_without_photos_says_what_to_give(towers: dict[str, bytes]) -> None:
    with pytest.raises(ExportError, match="--photos"):
        ONNX.quantize(towers["image"], "image", "int8", [])
    with pytest.raises(ExportError, match="no precision 'int3'"):
        ONNX.quantize(towers["image"], "image", "int3", [])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_tower_that_takes_bytes_gives_the_same_vectors(
    model: CLIP, towers: dict[str, bytes], pixels: np.ndarray, precision: str
) -> None:
    recipe = model.config.pixels
    levels = np.clip((pixels.transpose(0, 2, 3, 1) + 1) * 127.5, 0, 255).astype(np.uint8)
    given = recipe.normalize_uint8(levels)
    photos = [one[None] for one in given[:8]]
    plain = load_tower("onnx", ONNX.quantize(towers["image"], "image", precision, photos), threads=1)
    data = ONNX_UINT8.quantize(ONNX_UINT8.convert(reparameterize(model), "image"), "image", precision, photos)
    proto = onnx.load_from_string(data)
    assert [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim][1:] == [64, 64, 3]
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    tower = load_tower("onnx", data, threads=1)
    assert tower.dtype == np.uint8
    np.testing.assert_allclose(
        tower(levels.transpose(0, 3, 1, 2)), plain(given), atol=1e-3 if precision != "fp32" else 1e-5
    )


def test_a_process_that_crashes_is_one_line(towers: dict[str, bytes], model: CLIP, tmp_path: Path) -> None:
    import signal

    from mobileclip.errors import EngineError

    (tmp_path / "text").write_bytes(towers["text"])
    with Child("onnx", tmp_path / "text", 1, model.config.pixels) as tower:
        assert tower.load_ms > 0 and tower.latency(tokens(model, 1), 3) > 0 and tower.memory_mb > 0
        with pytest.raises(EngineError, match="ONNX Runtime failed"):
            tower(np.zeros((1, 99), np.int32))
        assert tower(tokens(model, 1)).shape == (1, 32)  # still alive
        tower._process.send_signal(signal.SIGSEGV)
        tower._process.wait()
        with pytest.raises(EngineError, match="crashed \\(signal 11\\)"):
            tower(tokens(model, 1))
    (tmp_path / "text").write_bytes(b"no model")
    with pytest.raises(EngineError, match="cannot load"):
        Child("onnx", tmp_path / "text", 1, model.config.pixels)

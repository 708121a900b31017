"""ONNX towers against torch."""

import io
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.formats import ExportError
from export.onnx.convert import OPSET, export_head, export_image, export_text, pools_by_mean
from export.onnx.weights import shrink_weights
from mobileclip.towers import CLIP, ModelConfig, create_model, reparameterize

MODEL = Path(__file__).parents[1] / "tiny.toml"
Session = Callable[[bytes], Any]


def test_the_image_tower_equals_torch_for_every_batch(model: CLIP, session: Session) -> None:
    data = export_image(model)
    run = session(data)
    for batch in (1, 2, 5):
        pixels = torch.rand(batch, 3, 64, 64)
        with torch.inference_mode():
            expected = model.encode_image(pixels).numpy()
        got = run.run(None, {"pixels": pixels.numpy()})[0]
        assert got.dtype == np.float32 and got.shape == (batch, 32)
        assert (got * expected).sum(axis=1).min() > 0.9999
    proto = onnx.load_from_string(data)
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    assert {entry.version for entry in proto.opset_import if not entry.domain} == {OPSET}


def test_the_text_tower_equals_torch_for_every_length(model: CLIP, session: Session) -> None:
    run = session(export_text(model))
    vocabulary = model.config.text.vocab_size
    for batch, length in ((1, 3), (3, 9), (4, 16)):
        tokens = torch.randint(1, vocabulary - 2, (batch, length), dtype=torch.int32)
        tokens[:, 0], tokens[:, -1] = vocabulary - 2, vocabulary - 1
        with torch.inference_mode():
            expected = model.encode_text(tokens).numpy()
        got = run.run(None, {"tokens": tokens.numpy()})[0]
        assert (got * expected).sum(axis=1).min() > 0.9999


def test_halved_weights_are_the_rounded_ones_exactly(session: Session) -> None:
    weight = np.random.default_rng(1).normal(size=(64, 32)).astype(np.float32)
    bias = np.arange(32, dtype=np.float32) / 3
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    data = shrink_weights(proto)
    x = np.random.default_rng(2).normal(size=(1, 64)).astype(np.float32)
    expected = x @ weight.astype(np.float16).astype(np.float32) + bias
    assert np.allclose(session(data).run(None, {"x": x})[0], expected, atol=1e-5)
    huge = numpy_helper.from_array(np.full((64, 32), 1e6, np.float32), "w")
    graph.initializer[0].CopyFrom(huge)
    with pytest.raises(ExportError, match="doesn't fit float16"):
        shrink_weights(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10))


def test_a_looked_up_table_is_int8_and_each_row_keeps_its_own_scale(session: Session) -> None:
    random = np.random.default_rng(3)
    table = (random.normal(size=(50, 32)) * np.geomspace(1e-3, 1e3, 50)[:, None]).astype(np.float32)
    table[7] = 0
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "i"], ["y"])],
        "g",
        [helper.make_tensor_value_info("i", TensorProto.INT32, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(table, "t")],
    )
    data = shrink_weights(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10))
    rows = np.arange(50, dtype=np.int32)
    got = session(data).run(None, {"i": rows})[0]
    half_a_level = np.abs(table).max(axis=1, keepdims=True) / 127 / 2
    assert (np.abs(got - table) <= half_a_level * 1.0001).all() and not np.array_equal(got, table)
    assert {weight.data_type for weight in onnx.load_from_string(data).graph.initializer if weight.dims[0] == 50} == {
        TensorProto.INT8,
        TensorProto.FLOAT,
    }


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("pocket", True),
        ("mobileclip2-s0", True),
        ("mobileclip-b", False),  # a class token
        ("clip-rn50", False),  # pooled by attention
    ],
)
def test_which_towers_say_where(name: str, possible: bool) -> None:
    tower = create_model(name).eval()
    if tower.image.places is not None:
        assert not pools_by_mean(tower), "nothing was fitted so far"
        tower.image.fit_local_projection(
            torch.rand(32, tower.image.projection.in_features), torch.rand(32, tower.config.embed_dim)
        )
    assert pools_by_mean(tower) is possible
    if possible:
        assert pools_by_mean(reparameterize(tower))


@pytest.mark.parametrize("trunk", ["test_efficientnet", "test_vit", "mobilenetv3_small_050"])
def test_only_towers_that_pool_by_mean_have_a_second_output(trunk: str) -> None:
    fields = tomllib.loads(MODEL.read_text()) | {"image": {"trunk": trunk, "bias": True}}
    fields["pixels"] |= {"size": 160 if trunk == "test_vit" else 64}
    tower = create_model(ModelConfig.from_dict(fields)).eval()
    with np.load(io.BytesIO(export_head(tower))) as head:
        assert head["weight"].shape == (32, tower.image.projection.in_features) and head["bias"].shape == (32,)
        assert "cosine" not in head
    if trunk == "mobilenetv3_small_050":  # a layer between pooling and head
        assert not pools_by_mean(tower)
        return
    outputs = [value.name for value in onnx.load_from_string(export_image(tower)).graph.output]
    assert outputs == (["image_embeds", "features"] if trunk == "test_efficientnet" else ["image_embeds"])

"""ONNX towers and whole bundles against torch."""

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import mobileclip
from distill.data.sources import DataError
from export.bundle import ExportConfig, export_bundle
from export.onnx import OPSET, ExportError, export_head, export_image, export_text, pools_by_mean, shrink_weights
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.localize import contributions, local_vectors
from mobileclip.towers import CLIP, ModelConfig, create_model, reparameterize

MODEL = Path(__file__).parent / "tiny.toml"
COLOURS = {"red": (210, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 200)}
LABELS = """
[[label]]
name = "red"
group = "colours"
prompts = ["something red", "a red thing"]
[label.evidence]
classes = ["colours:red"]
[[label]]
name = "unicorn"
group = "animals"
prompts = ["a unicorn"]
"""


def session(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def model() -> CLIP:
    torch.manual_seed(0)
    made = create_model(ModelConfig.load(MODEL))
    with torch.no_grad():  # statistics that are not all 0 and 1, so that folding BatchNorm is put to the test
        for name, buffer in made.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer) * 0.3)
    return made.eval()


@pytest.fixture(scope="module")
def checkpoint(model: CLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from distill.data.bpe import save_merges, train_merges

    folder = tmp_path_factory.mktemp("student")
    merges = train_merges(["something red", "a red thing", "a unicorn"] * 9, model.config.text.vocab_size)
    assert len(merges) == model.config.text.vocab_size - 514
    save_merges(merges, folder / "m")
    save_checkpoint(model, (folder / "m").read_bytes(), folder, {"name": "tiny", "licence": "L", "provenance": "P"})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("data")
    (root / "colours/images").mkdir(parents=True)
    random, lines = np.random.default_rng(0), ["file,label,split"]
    for number in range(90):
        colour = list(COLOURS)[number % 3]
        pixels = np.clip(np.array(COLOURS[colour]) + random.integers(-30, 30, (70, 80, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"colours/images/{number}.png")
        lines.append(f"images/{number}.png,{colour},{'test' if number >= 60 else 'train'}")
    (root / "colours/labels.csv").write_text("\n".join(lines) + "\n")
    (root / "labels.toml").write_text(LABELS)
    return root


def test_the_image_tower_equals_torch_for_every_batch(model: CLIP) -> None:
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


def test_the_text_tower_equals_torch_for_every_length(model: CLIP) -> None:
    run = session(export_text(model))
    vocabulary = model.config.text.vocab_size
    for batch, length in ((1, 3), (3, 9), (4, 16)):
        tokens = torch.randint(1, vocabulary - 2, (batch, length), dtype=torch.int32)
        tokens[:, 0], tokens[:, -1] = vocabulary - 2, vocabulary - 1
        with torch.inference_mode():
            expected = model.encode_text(tokens).numpy()
        got = run.run(None, {"tokens": tokens.numpy()})[0]
        assert (got * expected).sum(axis=1).min() > 0.9999


def test_halved_weights_are_the_rounded_ones_exactly() -> None:
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
    with pytest.raises(ExportError, match="does not fit float16"):
        shrink_weights(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10))


def test_a_looked_up_table_is_int8_and_each_row_keeps_its_own_scale() -> None:
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


@pytest.fixture(scope="module")
def exported(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bundle of the tiny checkpoint, and the figures of its export."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    return out, export_bundle(ExportConfig(checkpoint, data / "labels.toml", data, out), lambda *_: None)


def test_a_bundle_speaks_like_its_checkpoint(checkpoint: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    out, figures = exported
    assert figures["parity"]["image_min_cosine"] > 0.9999
    assert figures["calibration"]["labels_fitted"] == 1 and figures["calibration"]["labels_pooled"] == 1
    bundle, student = mobileclip.load(out), load_checkpoint(checkpoint)
    assert bundle.name == "tiny" and bundle.manifest["licence"] == "L"
    texts = ["something red", "a unicorn", ""]
    with torch.inference_mode():
        expected = student.model.encode_text(torch.from_numpy(student.tokenizer(texts))).numpy()
    assert (bundle.encode_texts(texts) * expected).sum(axis=1).min() > 0.9999
    red = bundle.labels["red"]
    assert 0 < red.threshold < 1 and red.positives >= 10


def test_the_command_prints_figures_and_bad_input_is_one_line(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "POCKETCLIP_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "app", "export", str(checkpoint), "-o", str(tmp_path / "b")]
    command += ["--labels", str(data / "labels.toml"), "--data", str(data)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["calibration"]["photos"] > 0
    command[4] = str(tmp_path / "nothing")
    failed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert failed.returncode == 4 and len(failed.stderr.strip().splitlines()) == 1
    assert "no such file or folder" in failed.stderr
    with pytest.raises(DataError, match="neither"):
        export_bundle(ExportConfig(checkpoint, data / "labels.toml", tmp_path, tmp_path / "c"), lambda *_: None)


def test_a_bundle_carries_the_map_that_its_vectors_are_pooled_from(
    checkpoint: Path, exported: tuple[Path, dict[str, Any]]
) -> None:
    out, _ = exported
    bundle, student = mobileclip.load(out, threads=1), load_checkpoint(checkpoint).model
    pixels = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        features = student.image.trunk.forward_features(pixels)
        expected = student.image.projection(features.permute(0, 2, 3, 1)).numpy()
    local = local_vectors(bundle, pixels.numpy())
    assert local.shape == expected.shape
    assert (local * expected).sum() / np.linalg.norm(local) / np.linalg.norm(expected) > 0.9999
    mean = local.mean(axis=(1, 2))
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    assert (mean * bundle.encode_pixels(pixels.numpy())).sum(axis=1).min() > 0.99999
    words = bundle.encode_texts(["something red", "a unicorn"])
    maps = contributions(bundle, pixels.numpy(), words)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), bundle.encode_pixels(pixels.numpy()) @ words.T, atol=1e-4)


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
    if trunk == "mobilenetv3_small_050":  # a layer between pooling and head
        assert not pools_by_mean(tower)
        return
    outputs = [value.name for value in onnx.load_from_string(export_image(tower)).graph.output]
    assert outputs == (["image_embeds", "features"] if trunk == "test_efficientnet" else ["image_embeds"])

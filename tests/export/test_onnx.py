"""ONNX towers and whole bundles against torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import mobileclip
from distill.data.sources import DataError
from export.bundle import ExportConfig, export_bundle
from export.onnx import OPSET, ExportError, export_image, export_text, halve_weights
from mobileclip.checkpoints import load_checkpoint, save_checkpoint
from mobileclip.towers import CLIP, ModelConfig, create_model

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
    data = halve_weights(proto)
    x = np.random.default_rng(2).normal(size=(1, 64)).astype(np.float32)
    expected = x @ weight.astype(np.float16).astype(np.float32) + bias
    assert np.allclose(session(data).run(None, {"x": x})[0], expected, atol=1e-5)
    huge = numpy_helper.from_array(np.full((64, 32), 1e6, np.float32), "w")
    graph.initializer[0].CopyFrom(huge)
    with pytest.raises(ExportError, match="does not fit float16"):
        halve_weights(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10))


def test_a_bundle_speaks_like_its_checkpoint(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    figures = export_bundle(ExportConfig(checkpoint, data / "labels.toml", data, out), lambda *_: None)
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

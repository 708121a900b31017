"""A real, tiny bundle: two ONNX graphs that are easy to repeat in NumPy, so that every vector has a known value."""

import gzip
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mobileclip.bundle import write_bundle
from mobileclip.manifest import Manifest
from mobileclip.tokenizer import Tokenizer
from mobileclip.zeroshot import Label, LabelSet

SIZE, DIM, CONTEXT = 8, 4, 12
MERGES = (("d", "o"), ("do", "g</w>"), ("c", "a"), ("ca", "t</w>"))
PIXELS = {
    "size": SIZE,
    "resize": "shortest",
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _model(nodes: list[Any], name: str, dtype: Any, shape: list[Any], weights: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info(name, dtype, shape)],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", DIM])],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@dataclass
class Tiny:
    """The parts of the tiny bundle, which tests damage one at a time, and its towers in NumPy."""

    projection: np.ndarray
    embedding: np.ndarray
    tokenizer: Tokenizer
    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def image_vectors(self, pixels: np.ndarray) -> np.ndarray:
        return unit(pixels.reshape(len(pixels), -1) @ self.projection)

    def text_vectors(self, tokens: np.ndarray) -> np.ndarray:
        return unit(self.embedding[tokens].sum(axis=1))

    def write(self, folder: Path) -> Path:
        return write_bundle(folder, Manifest.from_dict(self.fields), self.files)

    def answers(self, **changes: np.ndarray) -> bytes:
        rng = np.random.default_rng(2)
        pixels = rng.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
        tokens = self.tokenizer(["dog", "a cat", "dog cat dog"])
        scaled = (pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
        arrays = {
            "pixels": pixels,
            "tokens": tokens,
            "image_vectors": self.image_vectors(scaled),
            "text_vectors": self.text_vectors(tokens),
        }
        stream = io.BytesIO()
        np.savez(stream, **{**arrays, **changes})
        return stream.getvalue()


def array_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture
def tiny() -> Tiny:
    rng = np.random.default_rng(1)
    tokenizer = Tokenizer(MERGES, CONTEXT)
    projection = rng.normal(size=(3 * SIZE * SIZE, DIM)).astype(np.float32)
    embedding = rng.normal(size=(tokenizer.vocab_size, DIM)).astype(np.float32)
    embedding[0] = 0  # padding adds nothing, as in a causal tower
    unit_rows = helper.make_node("LpNormalization", ["sums"], ["vectors"], axis=1, p=2)
    image = _model(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "w"], ["sums"]),
            unit_rows,
        ],
        "pixels",
        TensorProto.FLOAT,
        ["n", 3, SIZE, SIZE],
        {"w": projection},
    )
    text = _model(
        [
            helper.make_node("Gather", ["w", "tokens"], ["rows"], axis=0),
            helper.make_node("ReduceSum", ["rows", "axes"], ["sums"], keepdims=0),
            unit_rows,
        ],
        "tokens",
        TensorProto.INT32,
        ["n", "L"],
        {"w": embedding, "axes": np.array([1], np.int64)},
    )
    labels = LabelSet([Label("dog", "pets", ("dog",), 0.3, 20.0, 12), Label("cat", "pets", ("cat",), 0.4, 9.5)])
    result = Tiny(projection, embedding, tokenizer)
    result.fields = {
        "name": "tiny",
        "version": "1",
        "licence": "MIT",
        "provenance": "made by a test",
        "embed_dim": DIM,
        "logit_scale": 50.0,
        "pixels": dict(PIXELS),
        "tokenizer": {
            "file": "merges.txt.gz",
            "context_length": CONTEXT,
            "vocab_size": tokenizer.vocab_size,
        },
        "towers": {"onnx": {"precision": "fp32", "image": "image.onnx", "text": "text.onnx"}},
        "labels": "labels.toml",
        "label_vectors": "label_vectors.npy",
        "known_answers": "known_answers.npz",
        "figures": {},
    }
    lines = "\n".join(f"{left} {right}" for left, right in MERGES)
    result.files = {
        "image.onnx": image,
        "text.onnx": text,
        "merges.txt.gz": gzip.compress(f"#version: 1\n{lines}\n".encode(), mtime=0),
        "labels.toml": labels.dumps().encode(),
        "label_vectors.npy": array_bytes(result.text_vectors(tokenizer(["dog", "cat"]))),
        "known_answers.npz": result.answers(),
    }
    return result


@pytest.fixture(scope="session")
def real_photos() -> dict[str, Image.Image]:
    """Photographs included in scikit-image and scikit-learn, RGB."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    arrays = {
        "astronaut": skimage.data.astronaut(),
        "coffee": skimage.data.coffee(),
        "cat": skimage.data.chelsea(),
        "rocket": skimage.data.rocket(),
        "china": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
    }
    return {name: Image.fromarray(array) for name, array in arrays.items()}

"""The real command line in a separate process that may not open sockets, and a folder of real and hostile files."""

import gzip
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobileclip.bundle import write_bundle
from mobileclip.manifest import Manifest
from mobileclip.preprocess import PixelRecipe

REPOSITORY = Path(__file__).parents[3]
GUARD = Path(__file__).parent / "guard"

# The shipped bundle, or another one, for example to test a new model.
BUNDLE = os.environ.get("POCKETCLIP_TEST_BUNDLE", "pocket")


@dataclass
class Result:
    """Exit code, stdout and stderr of one run."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


@dataclass
class CommandLine:
    """Runs `python -m app` with its own home folder, and checks that the guard logged nothing."""

    home: Path
    log: Path
    environment: dict[str, str] = field(default_factory=dict)

    def popen(self, *arguments: str | bytes | Path, **options: Any) -> "subprocess.Popen[bytes]":
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
        environment = inherited | {
            "POCKETCLIP_HOME": str(self.home),
            "POCKETCLIP_GUARD_LOG": str(self.log),
            "PYTHONPATH": f"{GUARD}{os.pathsep}{REPOSITORY}",
            "OMP_NUM_THREADS": "1",
        }
        if arguments[:2] in (("models", "pull"), ("models", "available")):  # of `export`, but in the light install too
            environment["POCKETCLIP_GUARD_ALLOW"] = "export"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        command = [sys.executable, "-m", "app", *arguments]
        return subprocess.Popen(command, env=environment | self.environment, **(pipes | options))

    def __call__(self, *arguments: str | bytes | Path, **options: Any) -> Result:
        process = self.popen(*arguments, **options)
        out, err = process.communicate(timeout=240)
        assert not self.log.exists(), self.log.read_text()
        return Result(process.returncode, out, err.decode("utf-8", "surrogateescape"))

    def index(self, *arguments: str | bytes | Path, **options: Any) -> Result:
        return self("index", *arguments, "--model", BUNDLE, **options)

    def search(self, *arguments: str | bytes | Path, **options: Any) -> Result:
        return self("search", *arguments, "--model", BUNDLE, **options)

    def tag(self, *arguments: str | bytes | Path, **options: Any) -> Result:
        return self("tag", *arguments, "--model", BUNDLE, **options)


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home", tmp_path / "guard.log")


def real_photos() -> list[Path]:
    """Photographs from scikit-image and scikit-learn."""
    names_of = {
        "skimage": ["data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"],
        "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
    }
    found = []
    for package, names in names_of.items():
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        found += [Path(spec.submodule_search_locations[0], name) for name in names]
    return found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six real photographs, two of them in the folder `animals and people`."""
    folder = tmp_path / "photos"
    (folder / "animals and people").mkdir(parents=True)
    for photo in real_photos():
        inner = "animals and people" if photo.name in ("astronaut.png", "chelsea.png") else ""
        shutil.copy(photo, folder / inner / photo.name)
    return folder


HOSTILE_NAMES = [b"new\nline.png", b'it\'s "quoted".png', "😀 Füße.png".encode(), b"bytes-\xff\xfe.png", b"-t.png"]


@pytest.fixture
def hostile(photos: Path) -> Path:
    """The folder of real photographs, with five good photos that have odd names, and every kind of bad file."""
    rocket = (photos / "rocket.jpg").read_bytes()
    for number, name in enumerate(HOSTILE_NAMES):
        picture = io.BytesIO()
        Image.open(photos / "china.jpg").rotate(10 * number).resize((200, 150)).save(picture, "PNG")
        (photos / os.fsdecode(name)).write_bytes(picture.getvalue())
    bad = photos / "bad"
    bad.mkdir()
    (bad / "truncated.jpg").write_bytes(rocket[: len(rocket) // 3])
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "words.jpg").write_text("Dear diary, this isn't a photo.")
    (bad / "bomb.png").write_bytes(png_bomb(60_000, 60_000))
    os.mkfifo(bad / "pipe.jpg")
    (bad / "nowhere.jpg").symlink_to(bad / "not there")
    (bad / "loop").symlink_to(photos)
    (photos / "copy of coffee.png").write_bytes((photos / "coffee.png").read_bytes())
    (photos / "notes.txt").write_text("to be ignored")
    return photos


GOOD_AMONG_HOSTILE = 6 + len(HOSTILE_NAMES) + 1
BAD_AMONG_HOSTILE = {"truncated.jpg", "empty.jpg", "words.jpg", "bomb.png", "pipe.jpg", "nowhere.jpg"}


def png_bomb(width: int, height: int) -> bytes:
    """A valid PNG of a few hundred bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


MakeBundle = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Makes real ONNX bundles of a few kilobytes, with mean colors for photos and fixed random rows for tokens."""

    def make(name: str = "tiny", labels: tuple[str, ...] = ("bright", "dark")) -> Path:
        return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / name, name, labels)

    return make


def write_tiny_bundle(folder: Path, name: str, labels: tuple[str, ...]) -> Path:
    """Write a complete bundle with towers of 12 dimensions, which ONNX Runtime can run."""
    dim, size, length, vocabulary = 12, 32, 16, 514 + 1
    recipe = PixelRecipe(size, "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    rng = np.random.default_rng(list(name.encode()))
    pixels = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    tokens = np.zeros((2, length), np.int32)
    tokens[:, :3] = [[513, 5, 514], [513, 9, 514]]
    table = rng.normal(size=(vocabulary, dim)).astype(np.float32)
    table[0] = 0
    fields = recipe.normalize_uint8(pixels).reshape(2, 3, 2, size // 2, 2, size // 2).mean(axis=(3, 5)).reshape(2, dim)
    vectors = rng.normal(size=(len(labels), dim)).astype(np.float32)
    text = "".join(
        f'[[label]]\nname = "{label}"\ngroup = "light"\nprompts = ["a {label} photo"]\n'
        "threshold = 0.1\nslope = 10.0\npositives = 0\n"
        for label in labels
    )
    manifest = {
        "name": name,
        "version": "1",
        "licence": "MIT",
        "provenance": "made by a test",
        "embed_dim": dim,
        "logit_scale": 10.0,
        "pixels": recipe.to_dict(),
        "labels": "labels.toml",
        "tokenizer": {"file": "merges.txt.gz", "context_length": length, "vocab_size": vocabulary},
        "towers": {"onnx": {"precision": "fp32", "image": "image.onnx", "text": "text.onnx"}},
        "label_vectors": "label_vectors.npy",
        "known_answers": "known_answers.npz",
        "figures": {"R@10": 0.5},
    }
    answers = {
        "pixels": pixels,
        "tokens": tokens,
        "image_vectors": unit(fields),
        "text_vectors": unit(table[tokens].sum(axis=1)),
    }
    files = {
        "image.onnx": image_tower(size, dim),
        "text.onnx": text_tower(table),
        "merges.txt.gz": gzip.compress(b"#version: 0.2\na b\n", mtime=0),
        "labels.toml": text.encode(),
        "label_vectors.npy": saved(np.save, unit(vectors)),
        "known_answers.npz": saved(np.savez, **answers),
    }
    return write_bundle(folder, Manifest.from_dict(manifest), files)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def saved(save: Callable[..., None], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def image_tower(size: int, dim: int) -> bytes:
    """Mean of each color in each quarter of the picture, as a unit vector."""
    from onnx import helper

    half = [size // 2, size // 2]
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["fields"], kernel_shape=half, strides=half),
        helper.make_node("Flatten", ["fields"], ["flat"]),
        helper.make_node("LpNormalization", ["flat"], ["vectors"], axis=1, p=2),
    ]
    return onnx_model(nodes, "pixels", "float32", ["n", 3, size, size], dim, [])


def text_tower(table: np.ndarray) -> bytes:
    """Sum of one row per token, as a unit vector."""
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization", ["sum"], ["vectors"], axis=1, p=2),
    ]
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], np.int64), "axes")]
    return onnx_model(nodes, "tokens", "int32", ["n", "length"], table.shape[1], constants)


def onnx_model(nodes: list[Any], name: str, dtype: str, shape: list[Any], dim: int, constants: list[Any]) -> bytes:
    from onnx import TensorProto, helper

    kind = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}[dtype]
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info(name, kind, shape)],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", dim])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())

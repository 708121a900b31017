"""A tiny student with its photos, and towers of ONNX to look into."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mobileclip.checkpoints import save_checkpoint
from mobileclip.towers import CLIP, ModelConfig, create_model

MODEL = Path(__file__).parent / "tiny.toml"
COLORS = {"red": (210, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 200)}
LABELS = """
[[label]]
name = "red"
group = "colors"
prompts = ["something red", "a red thing"]
[label.evidence]
classes = ["colors:red"]
[[label]]
name = "unicorn"
group = "animals"
prompts = ["a unicorn"]
"""


def unsettle(model: CLIP) -> CLIP:
    """Give BatchNorm statistics that are not all 0 and 1, so that folding it is tested."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer) * 0.3)
    return model.eval()


@pytest.fixture(scope="session")
def model() -> CLIP:
    torch.manual_seed(0)
    made = create_model(ModelConfig.load(MODEL))
    return unsettle(made)


@pytest.fixture(scope="session")
def checkpoint(model: CLIP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from distill.data.bpe import save_merges, train_merges

    folder = tmp_path_factory.mktemp("student")
    merges = train_merges(["something red", "a red thing", "a unicorn"] * 9, model.config.text.vocab_size)
    assert len(merges) == model.config.text.vocab_size - 514
    save_merges(merges, folder / "m")
    save_checkpoint(model, (folder / "m").read_bytes(), folder, {"name": "tiny", "licence": "L", "provenance": "P"})
    return folder


@pytest.fixture(scope="session")
def session() -> Any:
    """Opens an ONNX file in ONNX Runtime itself."""
    return lambda data: onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("data")
    (root / "colors/images").mkdir(parents=True)
    random, lines = np.random.default_rng(0), ["file,label,split"]
    for number in range(90):
        color = list(COLORS)[number % 3]
        # Each photo has its own shapes, so that noise doesn't decide which are nearest to a text.
        small = random.integers(-90, 90, (5, 6, 3)).repeat(14, axis=0).repeat(14, axis=1)[:70, :80]
        pixels = np.clip(np.array(COLORS[color]) + small, 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"colors/images/{number}.png")
        lines.append(f"images/{number}.png,{color},{'test' if number >= 60 else 'train'}")
    (root / "colors/labels.csv").write_text("\n".join(lines) + "\n")
    (root / "labels.toml").write_text(LABELS)
    said = [f'{{"file": "images/{n}.png", "caption": "a {list(COLORS)[n % 3]} thing, number {n}"}}' for n in range(90)]
    (root / "colors/captions.jsonl").write_text("\n".join(said) + "\n")
    parts = [f"images/{n}.png,{'test' if n >= 50 else 'train'}" for n in range(90)]
    (root / "colors/splits.csv").write_text("\n".join(["file,split", *parts]) + "\n")
    return root

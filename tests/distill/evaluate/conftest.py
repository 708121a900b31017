"""A small data set of colored pictures with captions, classes and tags, and an untrained checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLORS = {"red": (210, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 200), "yellow": (230, 210, 40)}
MODEL = """
name = "tiny"
embed_dim = 32
[image]
trunk = "test_efficientnet"
[text]
vocab_size = VOCABULARY
context_length = 40
width = 32
heads = 2
layers = 1
[pixels]
size = 64
resize = "shortest"
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: `shapes` with captions and splits, `colors` with labels, and a table of tags next to both."""
    root = tmp_path_factory.mktemp("data")
    captions, splits, labels, tags = [], ["file,split"], ["file,label,split"], ["file,label"]
    for folder in ("shapes", "colors"):
        (root / folder / "images").mkdir(parents=True)
    for number in range(32):
        color, is_disc = list(COLORS)[number % 4], number // 4 % 2
        name, split = f"images/{number}.png", "test" if number >= 16 else "train"
        picture = _draw(COLORS[color], is_disc, number)
        for folder in ("shapes", "colors"):
            picture.save(root / folder / name)
        shape = "disc" if is_disc else "square"
        captions += [{"file": name, "caption": text} for text in (f"a {color} {shape}", f"a {shape} on gray")]
        splits.append(f"{name},{split}")
        labels.append(f"{name},{color},{split}")
        tags.append(f"colors/{name},{'|'.join([color, 'cat'] if is_disc else ['dog'])}")
    (root / "shapes/captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captions))
    (root / "shapes/splits.csv").write_text("\n".join(splits) + "\n")
    (root / "colors/labels.csv").write_text("\n".join(labels) + "\n")
    (root / "tags.csv").write_text("\n".join(tags) + "\n")
    return root


def _draw(color: tuple[int, int, int], is_disc: int, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 150, (72, 72, 3)).astype(np.uint8)
    y, x = np.mgrid[0:72, 0:72] - 36 + random.uniform(-6, 6, (2, 1, 1))
    pixels[np.hypot(x, y) < 23 if is_disc else np.maximum(abs(x), abs(y)) < 20] = color
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights."""
    import torch

    from distill.data.bpe import save_merges, train_merges
    from mobileclip.checkpoints import save_checkpoint
    from mobileclip.towers import ModelConfig, create_model

    folder = tmp_path_factory.mktemp("student")
    merges = train_merges([f"a {color} disc on a gray square" for color in COLORS], 600)
    save_merges(merges, folder / "merges.txt.gz")
    (folder / "tiny.toml").write_text(MODEL.replace("VOCABULARY", str(514 + len(merges))))
    torch.manual_seed(0)
    model = create_model(ModelConfig.load(folder / "tiny.toml"))
    about = {"name": "tiny", "licence": "test", "provenance": "random"}
    save_checkpoint(model, (folder / "merges.txt.gz").read_bytes(), folder / "checkpoint", about)
    return folder / "checkpoint"

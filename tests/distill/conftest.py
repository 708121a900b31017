"""A small world to train in: colored pictures with captions, a tiny trunk, a tiny sentence encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLORS = {"red": (210, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 200), "yellow": (230, 210, 40)}
SHAPES = ("square", "disc")

MODEL = """
name = "tiny"
embed_dim = 32
[image]
trunk = "test_efficientnet"
[text]
vocab_size = VOCABULARY
context_length = 16
width = 32
heads = 2
layers = 2
[pixels]
size = 64
resize = "shortest"
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


def draw(color: str, shape: str, seed: int, size: int = 72) -> Image.Image:
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 150, (size, size, 3)).astype(np.uint8)
    y, x = np.mgrid[0:size, 0:size] - size / 2 + random.uniform(-6, 6, (2, 1, 1))
    inside = np.hypot(x, y) < size * 0.32 if shape == "disc" else np.maximum(abs(x), abs(y)) < size * 0.28
    pixels[inside] = COLORS[color]
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: `shapes` with captions and splits, `colors` with labels, and a list of texts."""
    root = tmp_path_factory.mktemp("data")
    captions, splits, labels = [], ["file,split"], ["file,label,split"]
    for folder in ("shapes", "colors"):
        (root / folder / "images").mkdir(parents=True)
    for number in range(96):
        color, shape = list(COLORS)[number % 4], SHAPES[number // 4 % 2]
        for folder in ("shapes", "colors"):
            draw(color, shape, number + 1000 * len(folder)).save(root / folder / f"images/{number}.png")
        name = f"images/{number}.png"
        captions += [
            {"file": name, "caption": f"a {color} {shape}"},
            {"file": name, "caption": f"there is a {shape} that is {color}"},
        ]
        split = "test" if number >= 80 else "train"
        splits.append(f"{name},{split}")
        labels.append(f"{name},{color},{split}")
    (root / "shapes/captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captions))
    (root / "shapes/splits.csv").write_text("\n".join(splits) + "\n")
    (root / "colors/labels.csv").write_text("\n".join(labels) + "\n")
    (root / "words.txt").write_text("a purple disc\na square\nsomething round\n")
    return root


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random `trunk.pth` and a random sentence encoder in `sentences/`."""
    import timm
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts
    from transformers import BertConfig, BertModel, BertTokenizerFast

    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), root / "trunk.pth")
    words = [
        *COLORS,
        *SHAPES,
        *["a", "there", "is", "that", "photo", "of", "purple", "something", "round", "picture", "close", "up", "here"],
    ]
    (root / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    bert = root / "bert"
    config = BertConfig(vocab_size=64, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(bert)
    BertTokenizerFast(str(root / "vocab.txt")).save_pretrained(bert)
    transformer = parts.Transformer(str(bert), max_seq_length=16)
    model = SentenceTransformer(modules=[transformer, parts.Pooling(24, pooling_mode="mean")], device="cpu")
    model.save(str(root / "sentences"))
    return root


@pytest.fixture(scope="session")
def recipe_folder(data: Path, encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recipe.toml`, its model and its merges."""
    from distill.data.bpe import save_merges, train_merges

    folder = tmp_path_factory.mktemp("recipe")
    captions = [json.loads(line)["caption"] for line in (data / "shapes/captions.jsonl").open()]
    merges = train_merges(captions, 600)
    save_merges(merges, folder / "merges.txt.gz")
    (folder / "tiny.toml").write_text(MODEL.replace("VOCABULARY", str(514 + len(merges))))
    (folder / "recipe.toml").write_text(f"""
name = "tiny"
model = "tiny.toml"
merges = "merges.txt.gz"
licence = "test"
save_every = 3
[[photos]]
name = "shapes"
kind = "captions"
file = "shapes/captions.jsonl"
splits = "shapes/splits.csv"
use = ["train"]
[[photos]]
name = "colors"
kind = "labels"
file = "colors/labels.csv"
use = ["train"]
per_epoch = 0.5
[[texts]]
name = "words"
kind = "lines"
file = "words.txt"
[aligned]
sentences = "{encoders}/sentences"
embed_dim = 32
hidden = 48
epochs = 3
batch = 32
posterior_weight = 0.0
[[aligned.backbones]]
trunk = "test_efficientnet"
weights = "{encoders}/trunk.pth"
px = 64
[loss]
bank = 16
[optim]
batch = 24
extra_texts = 4
warmup = 2
[[stages]]
epochs = 1
px = 48
[[stages]]
epochs = 1
px = 64
""")
    return folder


def run(recipe_folder: Path, data: Path, out: Path, steps: int | None = None, **overrides: object) -> Path:
    """Train to the end and return the student's folder, or stop after so many steps."""
    from distill.config import Recipe
    from distill.training.run import prepare

    recipe = Recipe.load(recipe_folder / "recipe.toml", overrides)
    made = prepare(recipe, recipe_folder, data, out, report=lambda *_: None, workers=0)
    for step in made.trainer.run():
        if step.step == steps:
            return out
    return made.finish()


@pytest.fixture(scope="session")
def student(recipe_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of the tiny recipe."""
    return run(recipe_folder, data, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def mixed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with every kind of source, see `tests.distill.mixed`."""
    from tests.distill.mixed import write_data

    return write_data(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="session")
def mixed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and the merges of a student for `mixed_data`."""
    from tests.distill.mixed import write_model

    return write_model(tmp_path_factory.mktemp("model"))

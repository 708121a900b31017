"""A data folder with every kind of source, recipes for it, and tiny but real teachers."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from distill.config import Recipe
from distill.data.bpe import save_merges, train_merges
from distill.data.tars import PhotoRef
from distill.teachers.base import encode_files

WORDS = ("red", "green", "blue", "cat", "dog", "boat", "café", "über", "two", "small")


class TinyTeacher:
    """A network for photos and one for texts with a common space; the seed determines the weights."""

    def __init__(self, seed: int = 0, dim: int = 24, px: int = 40) -> None:
        torch.manual_seed(seed)
        self.image = nn.Sequential(
            nn.Conv2d(3, 16, 5, 3), nn.GELU(), nn.Conv2d(16, 32, 3, 2), nn.GELU(), nn.Flatten(1), nn.LazyLinear(dim)
        )
        self.words = nn.Sequential(nn.Embedding(257, 32), nn.Linear(32, dim))
        self.px, self.logit_scale, self.identity = px, 30.0 + seed, f"tiny {seed}"
        self.image(torch.zeros(1, 3, px, px))
        self.calls: list[int] = []

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        self.calls.append(len(pictures))
        pixels = np.stack([np.asarray(picture.resize((self.px, self.px))) for picture in pictures])
        return F.normalize(self.image(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5)).numpy()

    def encode_images(self, photos: Sequence[Path | PhotoRef]) -> np.ndarray:
        return encode_files(photos, self.encode_pictures, self.px)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        longest = max(len(text.encode()) for text in texts) or 1
        ids = torch.tensor([[*text.encode(), *[256] * (longest - len(text.encode()))] for text in texts])
        return F.normalize(self.words(ids).mean(dim=1)).numpy()


def picture(seed: int, size: tuple[int, int] = (72, 60)) -> Image.Image:
    """A smooth random photo."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 255, (5, 6, 3)).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def jpeg(seed: int, size: tuple[int, int] = (72, 60)) -> bytes:
    stream = io.BytesIO()
    picture(seed, size).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """Write members with exactly these names, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def write_data(root: Path) -> Path:
    """Write 30 captioned photos, one of them broken and one missing, 12 labeled photos, two tars of 8, and texts."""
    random = np.random.default_rng(0)
    (root / "captioned/ö").mkdir(parents=True)
    lines = []
    for number in range(30):
        name = f"ö/{number}.jpg"
        (root / "captioned" / name).write_bytes(jpeg(number, (72 + number, 60)))
        for _ in range(2):
            caption = " ".join(random.choice(WORDS, 3))
            lines.append({"file": name, "caption": caption, "synthetic": [f"a photo of {caption}", caption.upper()]})
    (root / "captioned/ö/3.jpg").write_bytes(b"no photo at all, but long enough to be one")
    (root / "captioned/ö/5.jpg").unlink()
    (root / "captioned/captions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines), "utf-8")
    (root / "labeled").mkdir()
    with (root / "labeled/labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label"])
        for number in range(12):
            (root / f"labeled/{number}.png").parent.mkdir(exist_ok=True)
            picture(100 + number).save(root / f"labeled/{number}.png")
            table.writerow([f"{number}.png", ("cat", "dog", "boat")[number % 3]])
    for tar in range(2):
        members: list[tuple[str, bytes]] = []
        for number in range(8):
            key = f"{number:04}"
            members += [(f"{key}.jpg", jpeg(200 + 8 * tar + number)), (f"{key}.txt", f"über {tar} {number}".encode())]
        write_tar(root / f"tars/{tar:05}.tar", members)
    (root / "words.txt").write_text("a small boat\ntwo cats\nsomething blue\nred\n", "utf-8")
    return root


SOURCES: Mapping[str, dict[str, Any]] = {
    "captioned": {"kind": "captions", "file": "captioned/captions.jsonl"},
    "labeled": {"kind": "labels", "file": "labeled/labels.csv", "templates": ["a {}", "{}"]},
    "tars": {"kind": "webdataset", "file": "tars"},
}

BASE = """
name = "tiny"
model = "tiny.toml"
merges = "merges.txt.gz"
[[open_clip]]
model = "not asked for here"
[loss]
bank = 8
[optim]
batch = 8
extra_texts = 4
warmup = 2
[reinforcement]
augmentations = 3
shard = 10
[[stages]]
epochs = 2
px = 48
"""

MODEL = """
name = "tiny"
embed_dim = 24
[image]
trunk = "test_efficientnet"
[text]
vocab_size = VOCABULARY
context_length = 16
width = 32
heads = 2
layers = 2
[pixels]
size = 48
resize = "shortest"
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


def recipe(folder: Path, sources: Mapping[str, Mapping[str, Any]], **overrides: Any) -> Recipe:
    """Write and load a recipe with these sources of photos."""
    path = folder / "recipe.toml"
    path.write_text(BASE, "utf-8")
    photos = [{"name": name, **fields} for name, fields in sources.items()]
    return Recipe.load(path, {"photos": photos, **overrides})


def write_model(folder: Path) -> Path:
    """Write the student's `tiny.toml` and `merges.txt.gz`."""
    merges = train_merges([" ".join(WORDS), "a photo of"] * 3, 600)
    save_merges(merges, folder / "merges.txt.gz")
    (folder / "tiny.toml").write_text(MODEL.replace("VOCABULARY", str(514 + len(merges))))
    return folder

"""Our checkpoints, evaluated through open_clip, get the numbers of `pocketclip evaluate`.

The oracles are open_clip's own metrics, and the command of CLIP_benchmark where it is installed. It isn't a dependency,
because it requires tools in Java for captioning (104 MB): `pip install --no-deps clip-benchmark` is enough here.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import typer
from PIL import Image
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from distill.data.bpe import train_merges
from distill.evaluate.run import class_vectors
from export.publish.folder import publish_checkpoint
from mobileclip.checkpoints import load_checkpoint, save_checkpoint, save_openclip
from mobileclip.photos import open_photo
from mobileclip.tokenizer import Tokenizer
from mobileclip.torch_model import TorchModel
from mobileclip.towers import CLIP, ImageConfig, ModelConfig, TextConfig
from tests.distill.mixed import write_tar

PHOTOS = 60
CLASSES = ("red_car", "Dog", "cat", "ice-hockey", "small boat", "café", "house")
READABLE = ("red car", "dog", "cat", "ice hockey", "small boat", "café", "house")
TEMPLATES = ("a photo of a {}.", "a bright photo of the {}", "{}")
WORDS = ("red", "green", "blue", "car", "dog", "cat", "boat", "café", "two", "small", "on", "a", "near", "house", "ice")

Evaluate = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Made:
    """A checkpoint, the name by which open_clip loads it, and photos with captions and classes.

    Attributes:
        student: our checkpoint.
        name: `local-dir:` and the folder.
        data: a folder with photos, captions and labels.
        captions: of each photo, one or several.
        labels: the number of each photo's class.
    """

    student: Path
    name: str
    data: Path
    captions: tuple[tuple[str, ...], ...]
    labels: tuple[int, ...]

    def photo(self, number: int) -> Path:
        return self.data / f"{number:03}.png"


Benchmark = Callable[[Made, str], dict[str, float]]


@pytest.fixture(scope="module", params=["openai", "own"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """With OpenAI's vocabulary, saved by `save_openclip`; and with a vocabulary of its own, published."""
    folder = tmp_path_factory.mktemp(request.param)
    captions, labels = write_photos(folder / "data")
    save_student(folder, request.param, captions, labels)
    if request.param == "openai":
        save_openclip(load_checkpoint(folder / "student"), folder / "theirs")
    else:
        assert publish_checkpoint(folder / "student", folder / "theirs").openclip == ""
    return Made(folder / "student", f"local-dir:{folder / 'theirs'}", folder / "data", captions, labels)


def write_photos(data: Path) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...]]:
    """Write photos with one to three captions each, and a class; classes have different numbers of photos."""
    random = np.random.default_rng(0)
    data.mkdir()
    for number in range(PHOTOS):
        pixels = random.integers(0, 255, (5, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((90 + number, 80), Image.Resampling.BICUBIC).save(data / f"{number:03}.png")
    texts = list(dict.fromkeys(" ".join(random.choice(WORDS, 6)) for _ in range(200)))
    captions = tuple(tuple(texts.pop() for _ in range(random.integers(1, 4))) for _ in range(PHOTOS))
    labels = tuple(int(label) for label in random.choice(7, PHOTOS, p=np.array([7, 6, 5, 4, 3, 2, 1]) / 28))
    lines = [{"file": f"{number:03}.png", "caption": text} for number, own in enumerate(captions) for text in own]
    (data / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [f"{number:03}.png,{CLASSES[label]}\n" for number, label in enumerate(labels)]
    (data / "labels.csv").write_text("file,label\n" + "".join(rows), "utf-8")
    (data / "templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    return captions, labels


def save_student(folder: Path, vocabulary: str, captions: tuple[tuple[str, ...], ...], labels: tuple[int, ...]) -> None:
    """Save a student that half knows the captions and classes, so that no rate is 0 or 1."""
    if vocabulary == "openai":
        merges = (Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    else:
        pairs = train_merges([" ".join(WORDS), "a bright photo of the"] * 3, 700)
        merges = gzip.compress("\n".join(f"{left} {right}" for left, right in pairs).encode() + b"\n")
    tokenizer = Tokenizer.load(merges, max_merges=48_894)
    text = TextConfig(vocab_size=tokenizer.vocab_size, context_length=77, width=64, heads=1, layers=2)
    pixels = replace(ModelConfig.load("pocket").pixels, size=64)
    torch.manual_seed(0)
    model = CLIP(ModelConfig("tiny", 24, ImageConfig("test_efficientnet"), text, pixels)).eval()
    encoder = TorchModel(model, tokenizer)
    said = np.stack([encoder.encode_texts(list(own)).mean(axis=0) for own in captions])
    classes = class_vectors(encoder, READABLE, TEMPLATES)[list(labels)]
    wanted = np.stack([said - said.mean(axis=0), classes - classes.mean(axis=0)])
    wanted /= np.linalg.norm(wanted, axis=2, keepdims=True)
    target = torch.from_numpy(wanted[0] + 0.4 * wanted[1]).float() + 0.25 * torch.randn(PHOTOS, 24)
    photos = [open_photo(folder / f"data/{number:03}.png") for number in range(PHOTOS)]
    with torch.no_grad():
        features = model.image.trunk(torch.from_numpy(np.stack([model.config.pixels(photo) for photo in photos])))
        # The smallest weights that map the photos' features to these vectors.
        model.image.projection.weight.copy_((torch.linalg.pinv(features) @ target).T)
    about = {"name": "tiny", "licence": "MIT", "provenance": "random"}
    save_checkpoint(model, merges, folder / "student", about, torch.float32)


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Run `pocketclip evaluate` in this process; returns its JSON."""
    from app.cli.common import guarded
    from distill.evaluate.cli import evaluate as command

    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path / "home"))
    program = typer.Typer()
    program.command()(guarded(command))

    def run(*arguments: object) -> dict[str, Any]:
        done = CliRunner().invoke(program, [*map(str, arguments), "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


def ours_by_labels(evaluate: Evaluate, made: Made) -> dict[str, Any]:
    result = evaluate(made.student, "--labels", made.data / "labels.csv", "--templates", made.data / "templates.txt")
    assert result["n"] == PHOTOS and 0.2 < result["top1"] < result["top5"] < 1
    assert result["top1"] != pytest.approx(result["mean_per_class"], abs=1e-3)
    return result


def ours_by_captions(evaluate: Evaluate, made: Made, file: str = "captions.jsonl") -> dict[str, Any]:
    result = evaluate(made.student, "--captions", made.data / file)
    for direction in ("text_to_photo", "photo_to_text"):
        rates = result[direction]
        assert 0 < rates["R@1"] < rates["R@5"] < rates["R@10"] < 1
    return result


def test_open_clips_zero_shot_accuracy(made: Made, evaluate: Evaluate) -> None:
    """`open_clip_train.zero_shot`, with open_clip's own classifier, preprocessing and tokenizer."""
    from open_clip_train.zero_shot import run

    model, _, preprocess = open_clip.create_model_and_transforms(made.name)
    model.eval()
    formats = [lambda name, template=template: template.format(name) for template in TEMPLATES]
    classifier = open_clip.build_zero_shot_classifier(model, open_clip.get_tokenizer(made.name), READABLE, formats)
    photos = [(preprocess(Image.open(made.photo(number))), label) for number, label in enumerate(made.labels)]
    args = SimpleNamespace(device="cpu", precision="fp32", batch_size=16)
    top1, top5 = run(model, classifier, DataLoader(photos, batch_size=16), args)
    result = ours_by_labels(evaluate, made)
    assert (result["top1"], result["top5"]) == pytest.approx((top1, top5))


def test_open_clips_retrieval(made: Made, evaluate: Evaluate) -> None:
    """`open_clip_train.train.get_clip_metrics`, which knows one caption per photo."""
    from open_clip_train.train import get_clip_metrics

    model, _, preprocess = open_clip.create_model_and_transforms(made.name)
    model.eval()
    first = [captions[0] for captions in made.captions]
    lines = [{"file": f"{number:03}.png", "caption": text} for number, text in enumerate(first)]
    (made.data / "first.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Image.open(made.photo(number))) for number in range(PHOTOS)])
        tokens = open_clip.get_tokenizer(made.name)(first)
        vectors = model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
        theirs = get_clip_metrics(*vectors, torch.tensor(100.0))
    result = ours_by_captions(evaluate, made, "first.jsonl")
    for k in (1, 5, 10):
        assert result["text_to_photo"][f"R@{k}"] == pytest.approx(theirs[f"text_to_image_R@{k}"])
        assert result["photo_to_text"][f"R@{k}"] == pytest.approx(theirs[f"image_to_text_R@{k}"])


def write_benchmark(made: Made, folder: Path, task: str) -> Path:
    """Write the photos as a set in CLIP_benchmark's format."""
    members: list[tuple[str, bytes]] = []
    for number in range(PHOTOS):
        text = "\n".join(made.captions[number]) if task == "zeroshot_retrieval" else str(made.labels[number])
        suffix = "txt" if task == "zeroshot_retrieval" else "cls"
        members += [(f"{number:03}.png", made.photo(number).read_bytes()), (f"{number:03}.{suffix}", text.encode())]
    write_tar(folder / "test/0.tar", members)
    (folder / "test/nshards.txt").write_text("1")
    if task == "zeroshot_retrieval":
        (folder / "dataset_type.txt").write_text("retrieval")
    else:
        (folder / "classnames.txt").write_text("\n".join(READABLE) + "\n", "utf-8")
        templates = "\n".join(TEMPLATES).replace("{}", "{c}")
        (folder / "zeroshot_classification_templates.txt").write_text(templates + "\n")
    return folder


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """Run CLIP_benchmark's command in this process; returns its metrics."""
    pytest.importorskip("clip_benchmark", reason="pip install --no-deps clip-benchmark")
    for name in ("Bleu", "Cider", "Meteor", "PTBTokenizer", "Rouge", "Spice"):  # for captioning, in Java
        part = "tokenizer" if name == "PTBTokenizer" else name.lower()
        module = ModuleType(f"pycocoevalcap.{part}.{name.lower()}")
        setattr(module, name, None)
        for parent in ("pycocoevalcap", f"pycocoevalcap.{part}"):
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    from clip_benchmark.cli import main

    def run(made: Made, task: str) -> dict[str, float]:
        data = write_benchmark(made, tmp_path / task, task)
        command = ["clip_benchmark", "eval", "--model", made.name, "--pretrained", "", "--task", task, "--no_amp"]
        command += ["--dataset", "wds/made", "--dataset_root", str(data), "--recall_k", "1", "5", "10"]
        command += ["--num_workers", "0", "--output", str(tmp_path / "out.json")]
        monkeypatch.setattr(sys, "argv", command)
        main()
        found: dict[str, float] = json.loads((tmp_path / "out.json").read_text())["metrics"]
        return found

    return run


def test_clip_benchmarks_zero_shot_classification(made: Made, evaluate: Evaluate, benchmark: Benchmark) -> None:
    theirs, result = benchmark(made, "zeroshot_classification"), ours_by_labels(evaluate, made)
    assert result["top1"] == pytest.approx(theirs["acc1"])
    assert result["top5"] == pytest.approx(theirs["acc5"])
    assert result["mean_per_class"] == pytest.approx(theirs["mean_per_class_recall"])


def test_clip_benchmarks_zero_shot_retrieval(made: Made, evaluate: Evaluate, benchmark: Benchmark) -> None:
    theirs, result = benchmark(made, "zeroshot_retrieval"), ours_by_captions(evaluate, made)
    for k in (1, 5, 10):
        assert result["text_to_photo"][f"R@{k}"] == pytest.approx(theirs[f"image_retrieval_recall@{k}"])
        assert result["photo_to_text"][f"R@{k}"] == pytest.approx(theirs[f"text_retrieval_recall@{k}"])

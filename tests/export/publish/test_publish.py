"""A published folder is loaded by OpenCLIP and transformers themselves, with the same tokens and the same vectors."""

import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from distill.data.bpe import train_merges
from export.formats import ExportError
from export.publish.folder import publish_checkpoint
from mobileclip.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from mobileclip.errors import PocketclipError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import CLIP, ImageConfig, ModelConfig, TextConfig
from tests.mobileclip.towers.conftest import randomize

TEXTS = [
    "a photo of a dog",
    "A Dog's LIFE!! isn't it? wow !",
    "café au lait, naïve Straße; ÜBER 24/7 — 3½",
    "кошка и собака 猫 🐈🐈‍⬛",
    "  spaces\tand\nlines  ",
    "&amp; “quotes” ﬁne",
    "!",
    "",
    "word " * 60,
]
ABOUT = {"name": "tiny", "licence": "MIT", "provenance": "Random weights."}


def merges() -> bytes:
    pairs = train_merges([text.lower() for text in TEXTS[:6]] * 3 + ["a red dog on a green boat"] * 4, 700)
    return gzip.compress("\n".join(f"{left} {right}" for left, right in pairs).encode() + b"\n")


def student(folder: Path, image: ImageConfig, size: int = 64, **text: Any) -> Checkpoint:
    """Write a checkpoint with random weights and merges of its own."""
    data = merges()
    vocabulary = Tokenizer.load(data).vocab_size
    words = TextConfig(**{"vocab_size": vocabulary, "context_length": 20, "width": 64, "heads": 1, "layers": 2, **text})
    pixels = dataclasses.replace(ModelConfig.load("pocket").pixels, size=size)
    torch.manual_seed(0)
    model = CLIP(ModelConfig("tiny", 24, image, words, pixels))
    randomize(model)
    save_checkpoint(model, data, folder, ABOUT, torch.float32)
    return load_checkpoint(folder)


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))


def vectors(source: Checkpoint, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(source.model.config.pixels(photo()))[None]
    with torch.inference_mode():
        return source.model.encode_image(pixels), source.model.encode_text(ids)


@pytest.mark.filterwarnings("ignore:.*cut to the")
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_open_clip_returns_the_same_vectors_for_photos_and_texts(causal: bool, tmp_path: Path) -> None:
    """From a PIL picture and plain texts, through OpenCLIP's own preprocessing and tokenizer."""
    source = student(tmp_path / "student", ImageConfig("lcnet_035"), causal=causal)
    written = publish_checkpoint(tmp_path / "student", tmp_path / "out", repository="me/tiny")
    assert written.openclip == "" and "lcnet_035" in written.transformers
    name = f"local-dir:{tmp_path / 'out'}"
    theirs, _, preprocess = open_clip.create_model_and_transforms(name)
    theirs.eval()
    ids = torch.from_numpy(source.tokenizer(TEXTS)).long()
    got = open_clip.get_tokenizer(name)(TEXTS)
    assert got.max() < source.tokenizer.vocab_size and torch.equal(got.argmax(dim=1), ids.argmax(dim=1))
    for mine, other in zip(ids, got, strict=True):
        end = int(mine.argmax()) + 1
        assert torch.equal(mine[:end], other[:end])
        assert causal or torch.equal(mine, other)
    image, text = vectors(source, ids)
    with torch.inference_mode():
        assert (normalize(theirs.encode_image(preprocess(photo())[None]), dim=-1) - image).abs().max() < 1e-4
        assert (normalize(theirs.encode_text(got), dim=-1) - text).abs().max() < 1e-4
    back = load_checkpoint(tmp_path / "out")
    assert back.about == {**ABOUT} and torch.equal(torch.from_numpy(back.tokenizer(TEXTS)).long(), ids)


@pytest.mark.filterwarnings("ignore:.*cut to the")
@pytest.mark.parametrize("quick", [False, True], ids=["gelu", "quick_gelu"])
def test_transformers_returns_the_same_vectors_of_a_vit(quick: bool, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    trunk = "vit_base_patch32_clip_quickgelu_224" if quick else "vit_base_patch32_clip_224"
    options = {"embed_dim": 64, "num_heads": 1, "depth": 2}
    activation = "quick_gelu" if quick else "gelu"
    source = student(tmp_path / "student", ImageConfig(trunk, options=options), 224, activation=activation)
    assert not publish_checkpoint(tmp_path / "student", tmp_path / "out").transformers
    theirs = CLIPModel.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [text for text in TEXTS if "&amp;" not in text]  # transformers doesn't repair texts
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    picture = CLIPImageProcessor.from_pretrained(tmp_path / "out")(photo(), return_tensors="pt").pixel_values
    image, text = vectors(source, torch.from_numpy(source.tokenizer(texts)).long())
    with torch.inference_mode():
        both = theirs(**batch, pixel_values=picture)
    assert (both.text_embeds - text).abs().max() < 1e-4
    assert (both.image_embeds - image).abs().max() < 2e-2, "transformers may resize tensors instead of pictures"
    pixels = torch.from_numpy(source.model.config.pixels(photo()))[None]
    with torch.inference_mode():
        both = theirs(**batch, pixel_values=pixels)
    assert (both.image_embeds - image).abs().max() < 1e-4
    assert float(theirs.logit_scale.detach()) == pytest.approx(float(source.model.logit_scale.detach()))


@pytest.mark.parametrize(
    ("image", "text", "reason"),
    [
        (ImageConfig("test_byobnet"), {}, "the trunk test_byobnet"),
        (ImageConfig("vit_base_patch32_clip_224", bias=True), {}, "more than a matrix"),
        (ImageConfig("vit_base_patch32_clip_224"), {"causal": False}, "aren't causal"),
    ],
    ids=["trunk", "bias", "bidirectional"],
)
def test_what_transformers_lacks_is_said(image: ImageConfig, text: dict[str, Any], reason: str) -> None:
    from mobileclip.layouts import transformers

    words = TextConfig(vocab_size=600, context_length=20, width=64, heads=1, layers=1, **text)
    if "vit" in image.trunk:
        image = dataclasses.replace(image, options={"embed_dim": 64, "num_heads": 1, "depth": 1})
    model = CLIP(ModelConfig("tiny", 24, image, words, ModelConfig.load("pocket").pixels))
    with pytest.raises(PocketclipError, match=reason):
        transformers.from_ours(model)


def test_a_model_that_open_clip_lacks_is_published_in_our_own_format(tmp_path: Path) -> None:
    source = student(tmp_path / "student", ImageConfig("test_byobnet", hidden=8))
    written = publish_checkpoint(tmp_path / "student", tmp_path / "out")
    assert "`hidden`" in written.openclip == written.transformers
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "merges.txt.gz", "model.safetensors"}
    card = (tmp_path / "out/README.md").read_text()
    assert "OpenCLIP and transformers can't load it (tiny: OpenCLIP does not support" in card
    assert "library_name: pocketclip" in card and "create_model_and_transforms" not in card
    ids = torch.from_numpy(source.tokenizer(["a dog"])).long()
    image, text = vectors(source, ids)
    again = vectors(load_checkpoint(tmp_path / "out"), ids)
    assert torch.equal(again[0], image) and torch.equal(again[1], text)


def test_the_model_card_states_license_provenance_and_sizes(tmp_path: Path) -> None:
    source = student(tmp_path / "student", ImageConfig("test_byobnet"))
    (tmp_path / "student/MODEL_CARD.md").write_text("# Tiny\n\n## Figures\n\nR@10 is 12 %.\n")
    publish_checkpoint(tmp_path / "student", tmp_path / "out", repository="me/tiny")
    card = (tmp_path / "out/README.md").read_text()
    header, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert "license: mit" in header.splitlines() and "- clip" in header.splitlines()
    count = sum(parameter.numel() for parameter in source.model.image.parameters())
    assert f"test_byobnet, {count / 1e6:.1f} M parameters" in body and "| embedding | 24 dimensions |" in body
    assert "**License.** MIT" in body and "**Provenance.** Random weights." in body and "R@10 is 12 %." in body
    assert 'open_clip.create_model_and_transforms("hf-hub:me/tiny")' in body
    assert "transformers can't load it (transformers' CLIPModel does not support the trunk test_byobnet)" in body
    assert [line for line in body.splitlines() if line.startswith("# ")] == ["# tiny"]
    config = json.loads((tmp_path / "out/open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] == "me/tiny"


def test_a_license_in_words_keeps_the_header_valid(tmp_path: Path) -> None:
    import yaml

    student(tmp_path / "student", ImageConfig("test_byobnet"))
    publish_checkpoint(tmp_path / "student", tmp_path / "out", license_text="Research only: ask us", name="x: y")
    header = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---\n")[1])
    assert header["license"] == "other" and header["license_name"] == "x: y"
    assert header["pipeline_tag"] == "zero-shot-image-classification" and header["library_name"] == "open_clip"


def test_a_folder_with_files_and_a_missing_license_are_refused(tmp_path: Path) -> None:
    source = student(tmp_path / "student", ImageConfig("test_byobnet"))
    with pytest.raises(ExportError, match="isn't empty"):
        publish_checkpoint(tmp_path / "student", tmp_path / "student")
    save_checkpoint(source.model, source.merges, tmp_path / "bare", {}, torch.float32)
    with pytest.raises(ExportError, match="--license"):
        publish_checkpoint(tmp_path / "bare", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_who_loads_the_folder(tmp_path: Path) -> None:
    student(tmp_path / "student", ImageConfig("test_byobnet"))
    code = (
        "import sys, typer; from export.publish.cli import publish; app = typer.Typer(); app.command()(publish); app()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "student"), "--repo", "me/tiny"]
    shown = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[0] == "OpenCLIP loads it."
    assert shown.splitlines()[1].startswith("transformers can't load it: transformers' CLIPModel does not support")
    assert shown.splitlines()[2].endswith(f"hf upload me/tiny {tmp_path / 'out'}")

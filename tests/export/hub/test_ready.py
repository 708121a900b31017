"""Bundles from ready-made towers, compared with transformers' own model, photos and tokens."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobileclip
from export.hub.processors import ReadyError, context_length, merges_file, pixel_recipe
from export.hub.ready import Source, build_bundle, choose_towers, folder_files
from mobileclip.errors import EngineError
from mobileclip.manifest import TokenizerSpec
from mobileclip.runtimes.onnx import Tower
from tests.app.cli.conftest import real_photos
from tests.export.hub.conftest import DIM, LENGTH, PREPROCESSOR, SIZE, Clip, text_graph

SOURCE = Source("tiny", "MIT", "made by a test")
pytestmark = pytest.mark.filterwarnings("ignore::mobileclip.errors.TextCutWarning")

TEXTS = ["a photo of a cat", "Two DOGS & a café, on the beach!!", "", "dog", "a " * 100]


def build(folder: Path, out: Path, precision: str = "") -> Path:
    ready = choose_towers(folder_files(folder), precision)
    assert ready is not None
    return build_bundle(folder, ready, SOURCE, out, lambda text: None)


def cosines(mine: np.ndarray, theirs: Any) -> np.ndarray:
    rows = theirs.detach().numpy()
    return (mine * rows).sum(axis=1) / np.linalg.norm(rows, axis=1)


@pytest.fixture(scope="module")
def bundle(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(clip.folder, tmp_path_factory.mktemp("bundle") / "tiny")


def test_photos_as_transformers_and_torchvision_read_them(clip: Clip, bundle: Path) -> None:
    """Where a remainder is odd the two crop one pixel apart; the models were trained, and we crop, as torchvision."""
    import torch
    from PIL import Image
    from torchvision import transforms
    from transformers import CLIPImageProcessor

    photos = [Image.open(path).convert("RGB") for path in real_photos()]
    steps = [
        transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(SIZE),
        transforms.ToTensor(),
        transforms.Normalize(PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"]),
    ]
    trained = torch.stack([transforms.Compose(steps)(photo) for photo in photos])
    processor = CLIPImageProcessor.from_pretrained(clip.folder)
    processed = processor(images=photos, return_tensors="pt")["pixel_values"]
    even = [int(SIZE * max(photo.size) / min(photo.size)) % 2 == 0 for photo in photos]
    assert 2 <= sum(even) < len(photos)
    mine = mobileclip.load(bundle, threads=1).encode_images(photos)
    assert mine.shape == (len(photos), DIM)
    assert cosines(mine, vectors_of(clip, trained)).min() > 0.9999
    assert cosines(mine, vectors_of(clip, processed))[even].min() > 0.9999
    assert (mine @ mine.T)[~np.eye(len(mine), dtype=bool)].max() < 0.99  # else any photo would pass for any other


def vectors_of(clip: Clip, pixels: Any) -> Any:
    return clip.model.visual_projection(clip.model.vision_model(pixel_values=pixels).pooler_output)


def test_texts_as_transformers_reads_them(clip: Clip, bundle: Path) -> None:
    tokens = clip.tokenizer(TEXTS, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    found = clip.model.text_model(input_ids=tokens["input_ids"])  # padded with the end mark, as theirs always is
    theirs = clip.model.text_projection(found.pooler_output)
    mine = mobileclip.load(bundle, threads=1).encode_texts(TEXTS)
    assert cosines(mine, theirs).min() > 0.9999
    assert (mine @ mine.T)[~np.eye(len(mine), dtype=bool)].max() < 0.99


def test_what_the_manifest_says(bundle: Path) -> None:
    model = mobileclip.load(bundle, threads=1)
    assert (model.name, model.dim, model.logit_scale, model.recipe.size) == ("tiny", DIM, 100.0, SIZE)
    assert model.manifest.tokenizer == TokenizerSpec("merges.txt.gz", LENGTH, 49408, causal=True)
    assert model.manifest.towers["onnx"].precision == "fp32"
    assert len(model.labels) == 0 and model.label_vectors.shape == (0, DIM)


@pytest.mark.parametrize("length", ["length", LENGTH])
def test_a_tower_that_looks_both_ways_always_gets_its_whole_context(
    clip: Clip, tmp_path: Path, length: int | str
) -> None:
    folder = clip.copy(tmp_path / "both")
    (folder / "onnx" / "text_model.onnx").write_bytes(text_graph(length=length))
    model = mobileclip.load(build(folder, tmp_path / "out"), threads=1)
    assert model.manifest.tokenizer.causal is False
    whole = Tower(text_graph(length=length))(model.tokenizer(TEXTS))
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode_texts(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts("dog"), expected[3], atol=1e-5)


def test_the_mask_ends_with_the_end_mark(clip: Clip, tmp_path: Path) -> None:
    folder = clip.copy(tmp_path / "masked")
    (folder / "onnx" / "text_model.onnx").write_bytes(text_graph(mask=True))
    model = mobileclip.load(build(folder, tmp_path / "out"), threads=1)
    assert model.manifest.tokenizer.causal is True  # behind a mask, padding changes nothing
    plain = Tower(text_graph())
    for text, vector in zip(TEXTS, model.encode_texts(TEXTS), strict=True):
        ids = [model.tokenizer.sot, *model.tokenizer.encode(text)[: LENGTH - 2], model.tokenizer.eot]
        row = plain(np.array([ids]))[0]
        np.testing.assert_allclose(vector, row / np.linalg.norm(row), atol=1e-5)


FILES = {
    "onnx/vision_model.onnx": 352_000_000,
    "onnx/text_model.onnx": 254_000_000,
    "onnx/vision_model_fp16.onnx": 176_000_000,
    "onnx/text_model_fp16.onnx": 127_000_000,
    "onnx/vision_model_q4.onnx": 60_000_000,
    "onnx/model.onnx": 606_000_000,
    "tokenizer.json": 1,
    "tokenizer_config.json": 1,
    "config.json": 1,
    "preprocessor_config.json": 1,
}


def without(*names: str) -> dict[str, int]:
    return {name: size for name, size in FILES.items() if name not in names}


def test_towers_are_chosen_by_precision() -> None:
    ready = choose_towers(FILES)
    assert ready is not None
    assert (ready.precision, ready.image, ready.text) == ("fp32", "onnx/vision_model.onnx", "onnx/text_model.onnx")
    assert set(ready.configs) == {name for name in FILES if name.endswith(".json")}
    half = choose_towers(FILES, "fp16")
    assert half is not None and half.image == "onnx/vision_model_fp16.onnx"
    only = choose_towers(without("onnx/vision_model.onnx"))
    assert only is not None and only.precision == "fp16"
    assert choose_towers({"config.json": 1, "onnx/model.onnx": 3}) is None
    with pytest.raises(ReadyError, match=r"no q4 towers, only fp16 \(303.0 MB\), fp32 \(606.0 MB\)"):
        choose_towers(FILES, "q4")
    with pytest.raises(ReadyError, match=r"tokenizer\.json missing"):
        choose_towers(without("tokenizer.json"))
    with pytest.raises(ReadyError, match="second file"):
        choose_towers({**FILES, "onnx/vision_model.onnx_data": 5})


def test_of_several_models_one_must_be_named() -> None:
    files = {"tokenizer.json": 1, "preprocessor_config.json": 1, "onnx/s2/preprocessor_config.json": 1}
    files |= {f"onnx/{size}/{side}_model.onnx": 9 for size in ("s0", "s2") for side in ("vision", "text")}
    with pytest.raises(ReadyError, match="add the folder of one: onnx/s0, onnx/s2"):
        choose_towers(files)
    small, large = choose_towers(files, inside="onnx/s0"), choose_towers(files, inside="onnx/s2/")
    assert small is not None and large is not None
    assert small.configs["preprocessor_config.json"] == "preprocessor_config.json"
    assert large.configs["preprocessor_config.json"] == "onnx/s2/preprocessor_config.json"
    assert large.image == "onnx/s2/vision_model.onnx"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("shortest", "bicubic", 0.48145466)),
        ({"size": SIZE, "crop_size": SIZE}, ("shortest", "bicubic", 0.48145466)),
        ({"do_normalize": False, "resample": 2}, ("shortest", "bilinear", 0.0)),
        ({"size": {"height": SIZE, "width": SIZE}}, ("squash", "bicubic", 0.48145466)),
        ({"size": {"height": SIZE, "width": SIZE}, "do_center_crop": False}, ("squash", "bicubic", 0.48145466)),
    ],
)
def test_pixel_recipes(changes: Mapping[str, Any], expected: tuple[str, str, float]) -> None:
    recipe = pixel_recipe({**PREPROCESSOR, **changes})
    assert (recipe.size, recipe.resize, recipe.interpolation, recipe.mean[0]) == (SIZE, *expected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": {"shortest_edge": 73}}, "the two must be equal"),
        ({"size": {"height": SIZE, "width": 32}}, "must be a square"),
        ({"do_center_crop": False}, "must be a square"),
        ({"size": None}, "must be a square"),
        ({"size": SIZE, "image_processor_type": "ViTImageProcessor"}, "bare size"),
        ({"resample": 0}, "neither 2"),
        ({"rescale_factor": 1 / 127.5}, "1/255"),
        ({"do_rescale": False}, "not scaled"),
        ({"do_resize": False}, "not resized"),
        ({"do_pad": True}, "padding"),
        ({"crop_pct": 0.9}, "crop_pct"),
        ({"image_mean": [1]}, "three numbers"),
    ],
)
def test_pixels_that_we_cannot_make_exactly_are_refused(changes: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(ReadyError, match=reason):
        pixel_recipe({**PREPROCESSOR, **changes})


def test_both_spellings_of_merges_give_one_file(clip: Clip) -> None:
    config = json.loads((clip.folder / "tokenizer.json").read_bytes())
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in config["model"]["merges"]]
    files = []
    for merges in (pairs, [" ".join(pair) for pair in pairs]):
        data, tokenizer = merges_file({**config, "model": {**config["model"], "merges": merges}})
        files.append(data)
        assert tokenizer.vocab_size == 49408
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "WordPiece"}, "not WordPiece"),
        ({"type": "Unigram"}, "SentencePiece"),
        ({"end_of_word_suffix": None}, "with the word ending None"),
        ({"merges": [["a"]]}, "a pair of symbols"),
        ({"merges": [["zz", "zz"]]}, "do not exist"),
        ({"merges": [["t", "h"]]}, "as in CLIP's vocabulary"),
    ],
)
def test_other_tokenizers_are_refused(clip: Clip, changes: Mapping[str, Any], reason: str) -> None:
    config = json.loads((clip.folder / "tokenizer.json").read_bytes())
    with pytest.raises(ReadyError, match=reason):
        merges_file({**config, "model": {**config["model"], **changes}})


def test_a_tokenizer_that_numbers_or_spells_otherwise_is_refused(clip: Clip) -> None:
    config = json.loads((clip.folder / "tokenizer.json").read_bytes())
    with pytest.raises(ReadyError, match="lowercase"):
        merges_file({**config, "normalizer": {"type": "NFC"}})
    vocabulary = {**config["model"]["vocab"], "dog</w>": 7}
    with pytest.raises(ReadyError, match="'dog</w>' has the id 7, not 1929"):
        merges_file({**config, "model": {**config["model"], "vocab": vocabulary}})
    with pytest.raises(ReadyError, match="no model"):
        merges_file({})


def test_context_length_is_the_first_that_is_stated() -> None:
    stated = {"text_config": {"max_position_embeddings": 64}}
    assert context_length(stated, {"model_max_length": 77}, "sequence_length") == 64
    assert context_length(stated, {}, 32) == 32
    assert context_length({"model_type": "clip"}, {"model_max_length": 77}, None) == 77
    with pytest.raises(ReadyError, match="context length"):
        context_length({}, {"model_max_length": 10**30}, None)


def test_towers_that_do_not_fit_are_refused_and_nothing_is_written(clip: Clip, tmp_path: Path) -> None:
    folder = clip.copy(tmp_path / "odd")
    out = tmp_path / "made" / "out"
    text = folder / "onnx" / "text_model.onnx"
    text.write_bytes(text_graph(dim=DIM + 1))
    with pytest.raises(ReadyError, match="don't share an embedding space: 24 and 25 dimensions"):
        build(folder, out)
    text.write_bytes(b"no graph")
    with pytest.raises(EngineError, match="cannot load"):
        build(folder, out)
    text.write_bytes((clip.folder / "onnx" / "text_model.onnx").read_bytes())
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, "resample": [3]}))
    with pytest.raises(ReadyError, match="can't be understood"):
        build(folder, out)
    (folder / "tokenizer.json").write_text("[")
    with pytest.raises(ReadyError, match="can't be read"):
        build(folder, out)
    assert not out.parent.exists()


def test_pixels_of_another_size_than_the_graph_takes_are_refused(clip: Clip, tmp_path: Path) -> None:
    folder = clip.copy(tmp_path / "larger")
    config = {**PREPROCESSOR, "size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises((ReadyError, EngineError), match=r"vision_model\.onnx"):
        build(folder, tmp_path / "out")

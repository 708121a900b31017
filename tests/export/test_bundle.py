"""From a checkpoint to a bundle: several precisions, figures that can be recomputed, and errors."""

import json
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mobileclip
from distill.data.tables import DataError
from distill.evaluate.encoders import open_encoder
from distill.evaluate.metrics import retrieval
from export import formats
from export.bundle import export_bundle
from export.config import ExportConfig
from export.formats import ExportError
from export.measure import parity
from export.onnx.convert import ONNX
from mobileclip.checkpoints import CheckpointError, load_checkpoint
from mobileclip.extras import MissingExtraError, install_hint
from mobileclip.localize import contributions, local_vectors
from mobileclip.towers import ModelConfig, create_model, reparameterize

from .conftest import MODEL, unsettle

PRECISIONS = ("fp32", "fp16-weights", "int8-weights", "int8")


def no_progress(*_: Any) -> None:
    """Show nothing."""


@pytest.fixture(scope="module")
def settings(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportConfig:
    return ExportConfig(
        checkpoint=checkpoint,
        out=tmp_path_factory.mktemp("exported") / "bundle",
        labels=data / "labels.toml",
        data=data,
        captions=data / "colors/captions.jsonl",
        splits=data / "colors/splits.csv",
        split="test",
        precisions=PRECISIONS,
        force=True,  # a tower that was never trained need not meet a budget
        threads=1,
    )


@pytest.fixture(scope="module")
def exported(settings: ExportConfig) -> dict[str, Any]:
    """The report of a bundle of the tiny checkpoint in four precisions."""
    return export_bundle(settings, no_progress)


@pytest.fixture
def bare(settings: ExportConfig, tmp_path: Path) -> ExportConfig:
    """The smallest export."""
    return ExportConfig(checkpoint=settings.checkpoint, out=tmp_path / "bare", threads=1)


def test_a_bundle_has_the_vectors_and_name_of_its_checkpoint(settings: ExportConfig, exported: dict[str, Any]) -> None:
    assert exported["left_out"] == {} and exported["name"] == "tiny"
    assert exported["calibration"]["labels_fitted"] == 1 and exported["calibration"]["labels_pooled"] == 1
    bundle, student = mobileclip.load(settings.out, precision="fp32"), load_checkpoint(settings.checkpoint)
    assert bundle.name == "tiny" and bundle.manifest.license == "L"
    texts = ["something red", "a unicorn", ""]
    with torch.inference_mode():
        expected = student.model.encode_text(torch.from_numpy(student.tokenizer(texts))).numpy()
    assert (bundle.encode_texts(texts) * expected).sum(axis=1).min() > 0.9999
    red = bundle.labels["red"]
    assert 0 < red.threshold < 1 and red.positives >= 10


def test_every_precision_loads_with_thresholds_and_a_fingerprint_of_its_own(
    settings: ExportConfig, exported: dict[str, Any]
) -> None:
    models = {name: mobileclip.load(settings.out, precision=name, threads=1) for name in PRECISIONS}
    for model in models.values():
        model.encode_texts(["something red"])  # checks the known answers
        model.encode_pixels(np.zeros((1, 3, 64, 64), np.float32))
    assert len({model.fingerprint for model in models.values()}) == len(PRECISIONS)
    assert len({model.labels["red"].threshold for model in models.values()}) > 1
    assert getattr(open_encoder(str(settings.out), precision="int8"), "fingerprint", "") == models["int8"].fingerprint
    (default,) = (row for row in exported["variants"] if row["default"])
    assert mobileclip.load(settings.out).precision == default["precision"]
    within = [row for row in exported["variants"] if not row["misses_budget"]]
    assert within and default["bytes"] == min(row["bytes"] for row in within)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_figures_are_those_of_the_bundle(settings: ExportConfig, exported: dict[str, Any], precision: str) -> None:
    """Computed through the public API and by the code of `evaluate`, not of `export`."""
    assert json.loads((settings.out / "parity.json").read_text())["variants"] == exported["variants"]
    assert (settings.out / "parity.png").read_bytes().startswith(b"\x89PNG")
    row = next(row for row in exported["variants"] if row["precision"] == precision)
    student = load_checkpoint(settings.checkpoint)
    assert settings.captions is not None
    lines = [json.loads(line) for line in settings.captions.read_text().splitlines()][50:]
    photos = [settings.captions.parent / line["file"] for line in lines]
    texts = [line["caption"] for line in lines]
    model = mobileclip.load(settings.out, precision=precision, threads=1)
    mine, words = model.encode_images(photos), model.encode_texts(texts)
    pixels = np.stack([model.recipe(open_upright(path)) for path in photos])
    with torch.inference_mode():
        exact = student.model.encode_image(torch.from_numpy(pixels)).numpy()
        exact_words = student.model.encode_text(torch.from_numpy(student.tokenizer(texts))).numpy()
    assert row["image"]["cosine_median"] == pytest.approx(np.median((mine * exact).sum(axis=1)), abs=2e-4)
    assert row["image"]["max_abs"] == pytest.approx(np.abs(mine - exact).max(), abs=2e-3)
    assert row["recall"] == pytest.approx(retrieval(mine, words, range(len(texts)))["text_to_photo"]["R@10"], abs=0.026)
    nearest = [[set(np.argsort(-scores)[:10]) for scores in w @ p.T] for w, p in ((words, mine), (exact_words, exact))]
    same = np.mean([len(a & b) / 10 for a, b in zip(*nearest, strict=True)])
    assert row["overlap"] == pytest.approx(same, abs=0.03) and row["photos"] == row["texts"] == 40
    files = [settings.out / f"{side}-{precision}.onnx" for side in ("image", "text")]
    assert row["bytes"] == sum(file.stat().st_size for file in files)
    for side in ("image", "text"):
        assert row[side]["load_ms"] > 0 and row[side]["ms_1_thread"] > 0 and row[side]["memory_mb"] > 0


def open_upright(path: Path) -> Any:
    from mobileclip.photos import open_photo

    return open_photo(path, min_side=128)


def test_a_bundle_has_the_map_that_its_vectors_are_pooled_from(
    settings: ExportConfig, exported: dict[str, Any]
) -> None:
    bundle = mobileclip.load(settings.out, precision="fp16-weights", threads=1)
    student = load_checkpoint(settings.checkpoint).model
    pixels = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        features = student.image.trunk.forward_features(pixels)
        expected = student.image.projection(features.permute(0, 2, 3, 1)).numpy()
    local = local_vectors(bundle, pixels.numpy())
    assert local.shape == expected.shape
    assert (local * expected).sum() / np.linalg.norm(local) / np.linalg.norm(expected) > 0.9999
    mean = local.mean(axis=(1, 2))
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    assert (mean * bundle.encode_pixels(pixels.numpy())).sum(axis=1).min() > 0.99999
    words = bundle.encode_texts(["something red", "a unicorn"])
    maps = contributions(bundle, pixels.numpy(), words)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), bundle.encode_pixels(pixels.numpy()) @ words.T, atol=1e-4)


@pytest.mark.usefixtures("exported")
def test_the_command_prints_a_table_and_towers_take_bytes(settings: ExportConfig, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "bytes"
    done = run(
        settings.checkpoint, "-o", out, "--photos", data, "--uint8-pixels", "--precision", "fp32", "--threads", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "onnx fp32 *" in done.stdout and "everyday things" in done.stdout
    assert "converting the image tower" in done.stderr and f"writing {out}" in done.stderr
    floats, levels = mobileclip.load(settings.out, precision="fp32", threads=1), mobileclip.load(out, threads=1)
    photos = sorted(data.rglob("*.png"))[:3]
    np.testing.assert_allclose(levels.encode_images(photos), floats.encode_images(photos), atol=1e-5)
    assert len(levels.labels) == 0 and "tagging" not in levels.manifest.figures


def run(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "export", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def test_a_full_disk_is_one_line_and_leaves_nothing(settings: ExportConfig, tmp_path: Path) -> None:
    out = tmp_path / "full"

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    import signal

    # Without this, the system ends the process instead of refusing the write.
    code = "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from app.cli.main import main; main()"
    command = [sys.executable, "-c", code, "export", str(settings.checkpoint), "-o", str(out), "--quiet"]
    failed = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_disk)
    assert signal.SIGXFSZ and failed.returncode == 4
    assert failed.stderr == f"pocketclip: {out}: cannot be written (File too large)\n"
    assert list(tmp_path.iterdir()) == []


def test_only_force_writes_what_misses_the_budget(
    bare: ExportConfig, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "OVERLAP", 1.01)
    with pytest.raises(ExportError, match="101% must"):
        export_bundle(bare, no_progress)
    assert not bare.out.exists()
    report = export_bundle(replace(bare, force=True), no_progress)
    assert report["variants"][0]["misses_budget"] and mobileclip.load(bare.out).precision == "fp16-weights"


def test_what_cannot_be_made_is_left_out_and_reported(bare: ExportConfig) -> None:
    messages: list[str] = []
    strings = ExportConfig(str(bare.checkpoint), str(bare.out), formats="onnx", precisions="fp32,int8", threads=1)
    report = export_bundle(strings, no_progress, messages.append)
    assert list(report["left_out"]) == ["onnx int8"] and "--photos" in report["left_out"]["onnx int8"]
    assert any("onnx int8 is left out" in line for line in messages)
    towers = json.loads((Path(bare.out) / "manifest.json").read_bytes())["towers"]["onnx"]
    assert list(towers) == ["precision", "image", "text", "local"]
    failed = run(bare.checkpoint, "-o", bare.out, "--precision", "fp32,int8", "--quiet", "--threads", "1")
    assert failed.returncode == 3 and len(failed.stderr.strip().splitlines()) == 1


class BrokenFormat:
    """A format whose towers don't load, with an operator that a GPU lacks."""

    engine, precisions, interpreted = "onnx", ("fp32",), False

    def convert(self, model: Any, side: str) -> bytes:
        return b"not a model"

    def cpu_operators(self, data: bytes) -> Counter[str]:
        return Counter({"ERF": 2})

    def __getattr__(self, name: str) -> Any:
        return getattr(ONNX, name)


def test_towers_that_do_not_run_are_reported(bare: ExportConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.bundle.load_format", lambda *_, **__: BrokenFormat())
    messages: list[str] = []
    with pytest.raises(ExportError, match="no variant could be made: ONNX Runtime cannot load"):
        export_bundle(replace(bare, precisions=("fp32",)), no_progress, messages.append)
    assert not bare.out.exists()
    assert "onnx: on a GPU, the CPU still runs these operators of the text tower: ERF (2)" in messages


def test_an_operator_that_cannot_be_converted_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model(ModelConfig.load(MODEL)).eval()
    monkeypatch.setattr(model.image, "forward", lambda pixels: torch.linalg.eigvals(pixels[:, 0]).real[:, :32])
    monkeypatch.setattr(model.image.trunk, "forward_head", lambda features: features)
    with pytest.raises(ExportError, match="the pixels tower can't be converted") as caught:
        ONNX.convert(model, "image")
    assert "\n" not in str(caught.value)


def test_a_missing_converter_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "needs_abacus.py").write_text("import abacus_converter\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(formats.FORMATS, "onnx", "needs_abacus:ABACUS")
    with pytest.raises(MissingExtraError, match=re.escape(f"needs abacus_converter: {install_hint('export')}")):
        formats.load_format("onnx")


def test_wrong_settings_are_one_line(bare: ExportConfig, data: Path, tmp_path: Path) -> None:
    for change, message in (
        ({"labels": data / "labels.toml"}, "--data FOLDER"),
        ({"split": "test"}, "--captions FILE"),
        ({"out": data}, "isn't a bundle; name another folder"),
    ):
        with pytest.raises(ExportError, match=message):
            replace(bare, **change)
    for change, error, message in (
        ({"precisions": ("int3",)}, ExportError, "unknown precision 'int3': choose from fp32"),
        ({"checkpoint": tmp_path / "nothing"}, CheckpointError, "no such file or folder"),
        ({"checkpoint": data / "labels.toml"}, CheckpointError, "damaged, or not a weights file"),
        ({"data": tmp_path, "labels": data / "labels.toml"}, DataError, "neither"),
        ({"data": data}, ExportError, "no labels.toml next to the checkpoint"),
        ({"photos": tmp_path}, DataError, "0 photos, but at least 20"),
    ):
        with pytest.raises(error, match=message):
            export_bundle(replace(bare, **change), no_progress)
        assert not bare.out.exists()


def test_pocket_is_the_shipped_checkpoint(tmp_path: Path) -> None:
    config = ExportConfig(checkpoint=Path("pocket"), out=tmp_path / "p", data=tmp_path)
    assert (config.weights / "model.safetensors").is_file() and config.evidence == config.weights / "labels.toml"


@pytest.mark.parametrize(("name", "repmixers"), [("mobileclip-s0", True), ("mobileclip2-s0", False)])
def test_mobileclip_towers_convert(name: str, repmixers: bool) -> None:
    """The whole image trunk with branches and attention; of the text tower two layers, and the hybrid's ends."""
    full = ModelConfig.load(name)
    assert full.text.repmixers is repmixers
    text = replace(full.text, layers=2, width=64, heads=2, vocab_size=600)
    config = replace(
        full,
        text=text,
        image=replace(full.image, trunk=full.image.trunk if repmixers else "test_efficientnet"),
        parameters={},
    )
    torch.manual_seed(0)
    model = unsettle(create_model(config))
    fused = reparameterize(model)
    tokens = torch.randint(1, 598, (2, 77), dtype=torch.int32)
    tokens[:, 0], tokens[:, 20] = 598, 599
    pixels = torch.rand(2, 3, 256, 256)
    with torch.inference_mode():
        exact = {"image": model.encode_image(pixels).numpy(), "text": model.encode_text(tokens).numpy()}
    given = {"image": pixels.numpy(), "text": tokens.numpy()}
    for side in formats.SIDES if repmixers else ("text",):  # both have the same image tower
        data = ONNX.convert(fused, side)
        np.testing.assert_allclose(ONNX.open(data, 1)(given[side]), exact[side], atol=1e-5)
        small = ONNX.quantize(data, side, "fp16-weights", [])
        assert (ONNX.open(small, 1)(given[side]) * exact[side]).sum(axis=1).min() > 0.9999

"""The gallery as it is really run: with an exported bundle, and as a process that is ended from outside."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mobileclip
from tests.app.ui.conftest import Open
from tests.app.ui.library import write_photos

REPOSITORY = Path(__file__).resolve().parents[3]
TEXTS = ("something red", "a red thing", "a unicorn", "a", "a red", "thing a something")
LABELS = """
[[label]]
name = "red"
group = "colors"
prompts = ["something red"]
[label.evidence]
classes = ["colors:red"]
[[label]]
name = "unicorn"
group = "animals"
prompts = ["a unicorn"]
"""
COLORS = {"red": (210, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 200)}


# Whoever runs the tests in the background has made this signal be ignored, and children inherit that.
RUN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "app", "gallery", sys.argv[1]])
"""


def export_tiny(folder: Path) -> tuple[Path, "mobileclip.checkpoints.Checkpoint"]:
    """A bundle of a random student as `pocketclip export` makes it, and the student itself."""
    torch = pytest.importorskip("torch")
    from PIL import Image

    from distill.data.bpe import save_merges, train_merges
    from export.bundle import export_bundle
    from export.config import ExportConfig
    from mobileclip.checkpoints import load_checkpoint, save_checkpoint
    from mobileclip.towers import ModelConfig, create_model

    torch.manual_seed(0)
    student = create_model(ModelConfig.load(REPOSITORY / "tests/export/tiny.toml")).eval()
    checkpoint, colors = folder / "student", folder / "data" / "colors"
    checkpoint.mkdir()
    (colors / "images").mkdir(parents=True)
    merges = train_merges(["something red", "a red thing", "a unicorn"] * 9, student.config.text.vocab_size)
    save_merges(merges, folder / "merges")
    about = {"name": "tiny", "licence": "L", "provenance": "P"}
    save_checkpoint(student, (folder / "merges").read_bytes(), checkpoint, about)
    random, lines = np.random.default_rng(0), ["file,label,split"]
    for number in range(90):
        color = list(COLORS)[number % 3]
        pixels = (np.array(COLORS[color]) + random.integers(-30, 30, (70, 80, 3))).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(colors / f"images/{number}.png")
        lines.append(f"images/{number}.png,{color},{'test' if number >= 60 else 'train'}")
    (colors / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "labels.toml").write_text(LABELS)
    asked = ExportConfig(
        checkpoint=checkpoint,
        out=folder / "bundle",
        labels=folder / "labels.toml",
        data=folder / "data",
        precisions=("fp32",),
        threads=1,
    )
    export_bundle(asked, lambda *_: None)
    return folder / "bundle", load_checkpoint(checkpoint)


def test_an_exported_bundle_shows_where(tmp_path: Path, open_gallery: Open) -> None:
    """The map in the window is the one that torch gives: features, projected place by place, along the text."""
    bundle, student = export_tiny(tmp_path)
    import torch
    import torch.nn.functional as F
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(write_photos(tmp_path / "some", 3, longest=320)):
        with Image.open(path) as photo:
            # Square and of the tower's size, so that no resizing stands between the two.
            photo.resize((64, 64)).save(photos / f"{number}.png")
    driver = open_gallery(tmp_path / "home", load_model=lambda: mobileclip.load(bundle, threads=1), roots=[str(photos)])
    driver.until(lambda: not driver.app.session.indexing and driver.app.session.model, "indexing")
    assert driver.app.session.can_localize
    grid = driver.shell.screen.grid
    driver.until(lambda: len(grid.ids_shown) == 3 and grid.tiles)
    driver.app.open_photo(grid.ids_shown, 0, grid)
    layer = driver.shell.top_layer
    driver.until(lambda: layer.model.details and not layer._tickets)
    assert layer.can_localize and not layer.panel.where.disabled

    with Image.open(layer.model.photo.path) as photo:
        pixels = torch.from_numpy(np.asarray(photo.convert("RGB"), np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.inference_mode():
        features = student.model.image.trunk.forward_features(pixels)
        local = student.model.image.projection(features.permute(0, 2, 3, 1))[0]
        local = local / local.mean(dim=(0, 1)).norm()
        words = student.model.encode_text(torch.from_numpy(student.tokenizer(list(TEXTS))))
    maps = torch.einsum("hwd,qd->qhw", local, words)
    place = int(maps.amax(dim=(1, 2)).argmax())
    threshold = np.quantile([label.threshold for label in mobileclip.load(bundle, threads=1).labels], 0.25)
    fine = F.interpolate(maps[place][None, None], scale_factor=4, mode="bilinear", align_corners=False)[0, 0].numpy()
    assert fine.max() > 0
    expected = np.clip(fine / max(fine.max(), 2 * threshold), 0, 1)

    driver.frames(5)
    plain = np.asarray(driver.picture(), np.float32)
    layer.verbs.find(TEXTS[place])
    driver.until(lambda: layer.model.where is not None, "the map")
    where = layer.model.where
    assert where.heat.shape == expected.shape
    np.testing.assert_allclose(where.heat, expected, atol=0.03)
    assert where.score == pytest.approx(float(maps[place].mean()), abs=0.02)
    driver.rest(0.4)
    assert np.abs(np.asarray(driver.picture(), np.float32) - plain).mean() > 3
    assert TEXTS[place] in layer.legend_text
    assert len(layer.view._boxes) == len(where.boxes)


def indexed(home: Path) -> int:
    try:
        with sqlite3.connect(f"file:{home / 'index.db'}?mode=ro", uri=True) as index:
            return int(index.execute("SELECT count(*) FROM photos").fetchone()[0])
    except sqlite3.Error:
        return 0


@pytest.mark.skipif(os.name != "posix", reason="a signal ends it")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_opens_indexes_and_closes_cleanly(tmp_path: Path, ending: signal.Signals) -> None:
    photos, home = tmp_path / "photos", tmp_path / "home"
    write_photos(photos, 4, longest=160)
    environment = os.environ | {"POCKETCLIP_HOME": str(home), "SDL_VIDEODRIVER": "offscreen"}
    for name in ("KIVY_HOME", "KIVY_LOG_MODE", "KIVY_NO_ARGS", "KIVY_NO_CONFIG", "KIVY_NO_FILELOG"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(photos)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 300
        while indexed(home) < 4 and process.poll() is None:
            assert time.monotonic() < end, "waited in vain for the index"
            time.sleep(0.1)
        process.send_signal(ending)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (130 if ending == signal.SIGINT else 0), err
    assert out == "" and "Traceback" not in err and len(err.splitlines()) <= 1
    (settings,) = home.rglob("gallery.json")
    assert json.loads(settings.read_text())["screen"] == "photos"
    assert not list(home.rglob("*.part"))
    with sqlite3.connect(home / "index.db") as index:
        assert index.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert index.execute("SELECT count(*) FROM vectors").fetchone()[0] == 4

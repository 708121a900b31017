"""Rendered pictures are reproducible, differ from each other, and can be read by the training code."""

import csv
import json
import tomllib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")
pytest.importorskip("segno")

from distill.render.camera_roll import KINDS, main, render

LABELS = Path(__file__).parents[3] / "distill" / "recipes" / "pocket" / "labels.toml"


def photo(seed: int) -> Image.Image:
    """A small colorful stand-in for a background photo."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pictures() -> dict[str, list[Image.Image]]:
    return {kind: [render(kind, seed) for seed in (1, 2, 3)] for kind in KINDS}


TEXTURES = ("brick wall", "grass", "ground", "surface", "night sky", "moon")


@pytest.mark.parametrize("kind", KINDS)
def test_picture_is_rgb_sized_and_not_blank(kind: str, pictures: dict[str, list[Image.Image]]) -> None:
    for picture in pictures[kind]:
        assert picture.mode == "RGB"
        assert 256 <= min(picture.size) <= 384
        assert max(picture.size) <= 5 * min(picture.size)
        gray = np.asarray(picture.convert("L"), dtype=np.float32)
        assert gray.std() > (1.5 if kind in TEXTURES else 4), "blank"
        if kind not in TEXTURES:
            assert np.abs(np.diff(gray, axis=1)).max() > 30, "no sharp edge: nothing was drawn"


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_pixels(kind: str, pictures: dict[str, list[Image.Image]]) -> None:
    assert render(kind, 1).tobytes() == pictures[kind][0].tobytes()


def test_same_backgrounds_same_pixels() -> None:
    backgrounds = [photo(1), photo(2)]
    for kind in ("receipt", "meme", "screenshot-home"):
        assert render(kind, 5, backgrounds).tobytes() == render(kind, 5, backgrounds).tobytes()
    assert render("meme", 5, backgrounds).tobytes() != render("meme", 5, [photo(3)]).tobytes()


def test_backgrounds_are_not_changed() -> None:
    backgrounds = [photo(1)]
    before = backgrounds[0].tobytes()
    for kind in KINDS:
        render(kind, 4, backgrounds)
    assert backgrounds[0].tobytes() == before


def test_kinds_and_seeds_differ(pictures: dict[str, list[Image.Image]]) -> None:
    small = {
        (kind, index): np.asarray(picture.convert("L").resize((32, 32)), dtype=np.float32)
        for kind, rendered in pictures.items()
        for index, picture in enumerate(rendered)
    }
    for first, second in combinations(small, 2):
        assert np.abs(small[first] - small[second]).mean() > 1, f"{first} looks like {second}"


def test_unknown_kind_names_the_choices() -> None:
    with pytest.raises(KeyError, match="receipt"):
        render("no such kind", 0)


def test_every_kind_has_its_own_captions() -> None:
    captions = [caption for texts in KINDS.values() for caption in texts]
    assert len(captions) == len(set(captions))
    assert all(len(texts) >= 2 for texts in KINDS.values())


def test_command_line_output_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for seed in range(3):
        photo(seed).save(photos / f"{seed}.png")
    (tmp_path / "splits.csv").write_text("file,split\nx/0.png,train\nx/1.png,test\nx/2.png,train\n", encoding="utf-8")
    options = ["--backgrounds", str(photos), "--splits", str(tmp_path / "splits.csv")]
    main([str(out), "--per-kind", "4", "--seed", "3", *options])
    assert f"{4 * len(KINDS)} pictures" in capsys.readouterr().out
    with (out / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    captions = [json.loads(line) for line in (out / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["file"] for row in rows] == [caption["file"] for caption in captions]
    assert sorted(row["file"] for row in rows) == sorted(f"images/{path.name}" for path in (out / "images").iterdir())
    assert {row["label"] for row in rows} == set(KINDS)
    test_share = sum(row["split"] == "test" for row in rows) / len(rows)
    assert 0.03 < test_share < 0.35
    for row, caption in zip(rows, captions, strict=True):
        assert row["split"] in {"train", "test"}
        assert caption["caption"] in KINDS[row["label"]]
    with Image.open(out / rows[0]["file"]) as picture:
        assert picture.format == "WEBP"


def test_labels_only_name_rendered_kinds() -> None:
    labels = tomllib.loads(LABELS.read_text(encoding="utf-8"))["label"]
    named = {
        entry.removeprefix("rendered:")
        for label in labels
        for key in ("classes", "unsure")
        for entry in label.get("evidence", {}).get(key, [])
        if entry.startswith("rendered:") and entry != "rendered:*"
    }
    assert named <= set(KINDS)
    assert len({label["name"] for label in labels}) == len(labels) >= 150
    for label in labels:
        assert label["name"] == label["name"].lower()
        assert 2 <= len(set(label["prompts"])) == len(label["prompts"]) <= 6


@pytest.mark.parametrize("option", ["--backgrounds", "--splits"])
def test_a_missing_file_gives_a_one_line_error(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "out"), "--backgrounds", str(tmp_path), option, missing])
    assert capsys.readouterr().err.splitlines()[-1].count(missing) == 1

"""The shipped bundle finds the right one of a few real photographs."""

from pathlib import Path

import pytest

import mobileclip
from tests.app.cli.conftest import BUNDLE, CommandLine

pytestmark = pytest.mark.skipif(BUNDLE != "pocket", reason="another bundle is tested")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("a cat", "chelsea.png"),
        ("a red flower", "flower.jpg"),
        ("a temple in China", "china.jpg"),
        ("a cup of coffee on a table", "coffee.png"),
        ("a rocket launch", "rocket.jpg"),
        ("a smiling woman", "astronaut.png"),
    ],
)
def test_the_right_photo_comes_first(cli: CommandLine, photos: Path, words: str, name: str) -> None:
    assert cli.index(photos).code == 0
    hits = cli("search", words, "--json").json
    assert Path(hits[0]["path"]).name == name
    assert Path(cli("search", words, "-f", "-t", "1").out.decode().strip()).name == name


def test_pocket_is_the_default_and_listed(cli: CommandLine, photos: Path) -> None:
    assert cli("index", photos).code == 0
    listed = {model["name"]: model for model in cli("models", "--json").json["installed"]}
    assert listed["pocket"]["bytes"] <= 25_000_000 and listed["pocket"]["licence"]
    assert len(cli("labels", "--json").json) >= 150


def test_the_litert_bundle_agrees(photos: Path) -> None:
    onnx, litert = (mobileclip.load(name, threads=1) for name in ("pocket", "pocket-litert"))
    assert (onnx.engine, litert.engine) == ("onnx", "litert") and onnx.fingerprint != litert.fingerprint
    files = sorted(path for path in photos.rglob("*") if path.name in ("chelsea.png", "china.jpg", "rocket.jpg"))
    texts = ["a cat", "a temple in China", "a rocket launch"]
    images = [model.encode_images(files) for model in (onnx, litert)]
    words = [model.encode_texts(texts) for model in (onnx, litert)]
    assert len(files) == 3
    # Both are rounded to eight bits, but not in the same way.
    assert (images[0] * images[1]).sum(axis=1).min() > 0.998 and (words[0] * words[1]).sum(axis=1).min() > 0.999
    assert (words[1] @ images[1].T).argmax(axis=1).tolist() == (words[0] @ images[0].T).argmax(axis=1).tolist()


def test_tags_are_right(cli: CommandLine, photos: Path) -> None:
    cli("index", photos)
    tags = {Path(entry["path"]).name: {tag["label"] for tag in entry["tags"]} for entry in cli("tag", "--json").json}
    assert "building" in tags["china.jpg"]
    assert not {"cat", "dog", "food"} & (tags["china.jpg"] | tags["rocket.jpg"])


def test_the_cat_is_tagged(cli: CommandLine, photos: Path) -> None:
    cli("index", photos)
    tags = {Path(entry["path"]).name: {tag["label"] for tag in entry["tags"]} for entry in cli("tag", "--json").json}
    assert any("cat" in label for label in tags["chelsea.png"])

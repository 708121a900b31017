"""`pocketclip recipe new`: for every kind of source, a recipe that loads and finds its photos."""

import csv
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from distill.config import PhotoSource, Recipe, Stage
from distill.data.corpus import Corpus
from distill.data.sources import list_photos
from distill.data.tables import DataError
from distill.recipe.check import check_recipe
from distill.recipe.new import write_recipe
from distill.training.run import prepare
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import online_feed_of
from tests.distill.mixed import TinyTeacher, jpeg, write_tar
from tests.distill.mixed import recipe as mixed_recipe

COUNT = 24
CLASSES = ("red_car", "dog", "cat")


def photos(folder: Path, names: list[str] | None = None) -> list[str]:
    """Write photos; return their names."""
    names = names or [f"{number:03}.jpg" for number in range(COUNT)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))
    return names


def table(path: Path, columns: list[str], rows: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
        return path
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([columns, *rows])
    return path


def captions_csv(root: Path) -> Path:
    names = photos(root / "images")
    rows = [[str(i), f"photo, number {i}", name, "train" if i else "test"] for i, name in enumerate(names)]
    return table(root / "all.csv", ["id", "Description", "Image Path", "split"], rows)


def captions_tsv_elsewhere(root: Path) -> Path:
    names = photos(root / "pictures")
    return table(root / "lists/all.tsv", ["pic", "what is there"], [[f"pictures/{n}", f"a cat {n}"] for n in names])


def corrections(root: Path) -> Path:
    rows = [[name, CLASSES[i % 3] + "|dog", ""] for i, name in enumerate(photos(root))]
    return table(root / "corrections.jsonl", ["file", "label", "rejected"], rows)


def folder_per_class(root: Path) -> Path:
    photos(root / "pets", [f"{name}/deep/{i}.JPG" for i in range(8) for name in CLASSES])
    (root / "pets/.hidden").mkdir()
    return root / "pets"


def split_folders(root: Path) -> Path:
    photos(
        root / "pets", [f"{split}/{name}/{i}.jpg" for i in range(8) for name in CLASSES for split in ("train", "val")]
    )
    return root / "pets"


def coco(root: Path) -> Path:
    names = photos(root / "val2017")
    path = root / "annotations/captions_val2017.json"
    path.parent.mkdir()
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    notes = [{"image_id": i, "caption": f"{word} {i}"} for i in range(COUNT) for word in ("one", "two")]
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    return path


def tars(root: Path) -> Path:
    for tar in range(2):
        members = [(f"{i}.{s}", d) for i in range(12) for s, d in (("jpg", jpeg(i)), ("txt", b"a caption"))]
        write_tar(root / f"shards/{tar}.tar", members)
    return root / "shards"


KINDS: dict[str, tuple[Callable[[Path], Path], dict[str, Any], int]] = {
    "csv": (
        captions_csv,
        {"kind": "captions", "file_column": "Image Path", "caption_column": "Description", "folder": "images"},
        COUNT - 1,
    ),
    "tsv": (captions_tsv_elsewhere, {"kind": "captions", "file_column": "pic", "folder": ".."}, COUNT),
    "corrections": (corrections, {"kind": "labels", "column": "label", "file_column": "file"}, COUNT),
    "folders": (folder_per_class, {"kind": "folders"}, COUNT),
    "splits": (split_folders, {"kind": "folders", "use": ("train",)}, COUNT),
    "coco": (coco, {"kind": "coco", "folder": "../val2017"}, COUNT),
    "tars": (tars, {"kind": "webdataset"}, COUNT),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_loads_and_nothing_is_wrong_with_it(kind: str, tmp_path: Path) -> None:
    write, expected, count = KINDS[kind]
    source = write(tmp_path / "my photos")
    out = tmp_path / "mine.toml"
    found = write_recipe(source, out)
    recipe = Recipe.load(out)
    assert found.count == count and recipe.photos == (found.source,)
    assert {name: getattr(found.source, name) for name in expected} == expected
    assert check_recipe(recipe, tmp_path, found.data).problems == []
    active = [line for line in out.read_text().splitlines() if line and not line.startswith("#")]
    assert len(active) <= 26
    if kind != "tars":
        corpus = Corpus.read(recipe, found.data)
        assert len(corpus.samples) == count and all(sample.photo.path.is_file() for sample in corpus.samples)
        assert len(corpus.samples) >= 4 * recipe.optim.batch


def test_folders_are_labels(tmp_path: Path) -> None:
    folder_per_class(tmp_path)
    found = list_photos(PhotoSource("p", "folders", "pets", templates=("a {}",)), tmp_path).photos
    assert {(s.texts, s.group) for s in found} == {
        (("a red car",), "red car"),
        (("a dog",), "dog"),
        (("a cat",), "cat"),
    }
    assert found[0].photo.path == tmp_path / "pets/cat/deep/0.JPG"


def test_folders_can_have_splits(tmp_path: Path) -> None:
    split_folders(tmp_path)
    found = list_photos(PhotoSource("p", "folders", "pets", use=("val",)), tmp_path).photos
    assert len(found) == 24 and {s.group for s in found} == {"red car", "dog", "cat"}
    assert all("/val/" in str(s.photo.path) for s in found)
    with pytest.raises(DataError, match="no sample in the splits other"):
        list_photos(PhotoSource("p", "folders", "pets", use=("other",)), tmp_path)


def test_coco_gives_every_caption_of_a_photo(tmp_path: Path) -> None:
    coco(tmp_path)
    source = PhotoSource("p", "coco", "annotations/captions_val2017.json", folder="../val2017")
    found = list_photos(source, tmp_path).photos
    assert [s.texts for s in found[:2]] == [("one 0", "two 0"), ("one 1", "two 1")]
    assert all(s.photo.path.is_file() for s in found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a captions file of COCO"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": []}]}', "not a captions file of COCO"),
        ('{"images": [], "annotations": []}', "none of its 0 rows"),
        (b"\xff\xfe[\x00", "it is UTF-16"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    (tmp_path / "c.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        list_photos(PhotoSource("p", "coco", "c.json"), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "000.jpg,a dog\n001.jpg,a cat\n", "first line must name the columns"),
        ("a.csv", "file,caption\n", "no rows"),
        ("a.csv", "url,caption\nhttp://x/a.jpg,a dog\n", "download the photos first"),
        ("a.csv", "file,width\n000.jpg,3\n", "has 1 photos, but training needs at least 16"),
        ("a.csv", "a,b\n1,2\n", "none of its columns has names of photos"),
        ("a.csv", "file\n000.jpg\n", "no column of captions or labels"),
        ("a.txt", "x", "no recipe can be made of this; give a table"),
        ("sub/x.txt", "x", "none of its 0 rows"),
    ],
)
def test_what_cannot_be_a_source_is_refused_in_one_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    root = tmp_path / "root"
    photos(root, ["000.jpg"])
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(content)
    with pytest.raises(PocketclipError, match=said) as caught:
        write_recipe(root / name if name.startswith("a.") else root, tmp_path / "out.toml")
    assert "\n" not in str(caught.value) and not (tmp_path / "out.toml").exists()


def test_a_recipe_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("mine")
    with pytest.raises(PocketclipError, match="exists already"):
        write_recipe(corrections(tmp_path), tmp_path / "a.toml")


@pytest.mark.parametrize("key", ["splits", "use", "folder"])
def test_settings_that_tars_do_not_have_are_refused(key: str) -> None:
    value: Any = ("train",) if key == "use" else "x"
    with pytest.raises(ConfigError, match=r"photos\.t"):
        PhotoSource("t", "webdataset", "tars", **{key: value})


def test_a_datasets_folder_is_written_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Image:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class ClassLabel:
        def int2str(self, number: int) -> str:
            return CLASSES[number]

    class Rows(list[dict[str, Any]]):
        features: ClassVar[dict[str, Any]] = {"image": Image(), "label": ClassLabel()}

        def cast_column(self, name: str, kind: Image) -> "Rows":
            assert name == "image" and not kind.decode
            return self

    rows = Rows({"image": {"bytes": jpeg(i), "path": None}, "label": i % 3} for i in range(COUNT))
    rows += [{"image": {"bytes": data, "path": None}, "label": 0} for data in (b"not a picture", b"", None)]
    fake = types.ModuleType("datasets")
    fake.Image, fake.load_from_disk = Image, lambda _: {"train": rows}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/dataset_dict.json").write_text("{}")
    found = write_recipe(tmp_path / "saved", tmp_path / "mine.toml")
    assert found.data == tmp_path / "mine-photos" and found.count == COUNT and found.source.kind == "labels"
    assert found.about == "photos with labels; 3 can't be read"
    (first, *_) = list_photos(found.source, found.data).photos
    assert first.photo.path == tmp_path / "mine-photos/000000.jpg" and first.photo.path.read_bytes() == jpeg(0)
    assert first.group == "red car"
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PocketclipError, match="needs the package datasets: pip install datasets"):
        write_recipe(tmp_path / "saved", tmp_path / "other.toml")


def test_a_folder_per_class_trains(recipe_folder: Path, encoders: Path, tmp_path: Path) -> None:
    """With small models in place of those that the recipe names."""
    found = write_recipe(folder_per_class(tmp_path), tmp_path / "pets.toml")
    small = {"model": "tiny.toml", "merges": "merges.txt.gz", "init": "", "loss.bank": 8, "optim.extra_texts": 2}
    aligned = {"sentences": f"{encoders}/sentences", "embed_dim": 32, "hidden": 48, "epochs": 2, "batch": 8}
    backbone = {"trunk": "test_efficientnet", "weights": f"{encoders}/trunk.pth", "px": 64}
    aligned |= {"posterior_weight": 0.0, "backbones": [backbone]}
    stages = [{"epochs": 1, "features": True}, {"epochs": 2, "px": 32}]
    recipe = Recipe.load(tmp_path / "pets.toml", {**small, "aligned": aligned, "stages": stages})
    run = prepare(recipe, recipe_folder, found.data, tmp_path / "run", lambda *_: None, workers=0)
    steps = list(run.trainer.run())
    assert len(steps) == 3 * (24 // recipe.optim.batch) and (run.finish() / "model.safetensors").is_file()


def test_new_kinds_work_with_online_teachers(tmp_path: Path, mixed_model: Path) -> None:
    folder_per_class(tmp_path)
    coco(tmp_path)
    sources = {
        "pets": {"kind": "folders", "file": "pets"},
        "coco": {"kind": "coco", "file": "annotations/captions_val2017.json", "folder": "../val2017"},
    }
    plan = mixed_recipe(tmp_path, sources, teach="online")
    config = ModelConfig.load(str(mixed_model / "tiny.toml"))
    tokenizer = Tokenizer.load((mixed_model / "merges.txt.gz").read_bytes(), 16)
    feed = online_feed_of(plan, tmp_path, config, tokenizer, [TinyTeacher(0)])
    batches = list(feed.batches(0, Stage(epochs=1, px=32), 0))
    assert feed.samples.photo_count == 2 * COUNT and len(batches) == 6 and not any(batch.unread for batch in batches)


def test_the_command_ends_with_the_next_commands(tmp_path: Path) -> None:
    source = folder_per_class(tmp_path / "my photos")
    command = [sys.executable, "-m", "pocketclip", "recipe", "new", str(source), "--out", "pets.toml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *_, check, train = done.stdout.splitlines()
    assert first == "pets.toml: 24 photos, one folder per class. Next:"
    assert check == f"pocketclip recipe check pets.toml --data '{tmp_path / 'my photos'}'"
    assert train == f"pocketclip train pets.toml --data '{tmp_path / 'my photos'}'"
    assert Recipe.load(tmp_path / "pets.toml").name == "pets"

"""`pocketclip recipe new` on Parquet tables and `datasets` folders that the real packages wrote."""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distill.config import PhotoSource, Recipe
from distill.data.sources import list_photos
from distill.data.tables import DataError, read_table
from distill.recipe.check import check_recipe
from distill.recipe.new import Found, write_recipe
from tests.distill.mixed import jpeg, picture

COUNT = 24
CLASSES = ("red_car", "dog", "cat")


def write_parquet(path: Path, columns: dict[str, Any], **settings: Any) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(arrow.table(columns), path, **settings)
    return path


def write_photos(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    names = [f"{number:03}.jpg" for number in range(COUNT)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(jpeg(number))
    return names


def texts_of(found: Found) -> list[tuple[str, ...]]:
    """The texts of each photo of a source that `recipe new` found."""
    return [sample.texts for sample in list_photos(found.source, found.data).photos]


def assert_works(found: Found, out: Path) -> None:
    assert check_recipe(Recipe.load(out), out.parent, found.data).problems == []


def test_captions_in_a_parquet_table(tmp_path: Path) -> None:
    """Any column names, a list of captions per photo, and a photo without any."""
    names = write_photos(tmp_path / "set/images")
    captions: list[list[str] | None] = [[f"photo {number}", "één ‘dog’, 猫"] for number in range(COUNT)]
    captions[3] = None
    columns = {"Image Path": names, "Texts": captions, "width": list(range(COUNT))}
    found = write_recipe(write_parquet(tmp_path / "set/all.parquet", columns), tmp_path / "mine.toml")
    assert found.about == "photos with captions" and found.count == COUNT - 1
    assert texts_of(found)[0] == ("photo 0", "één ‘dog’, 猫")
    assert_works(found, tmp_path / "mine.toml")


def test_labels_in_a_parquet_table_with_splits(tmp_path: Path) -> None:
    """Strings in a dictionary, as pandas writes its categories, in several row groups, compressed."""
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    names = write_photos(tmp_path / "set")
    labels = arrow.array([CLASSES[number % 3] for number in range(COUNT)]).dictionary_encode()
    columns = {"file": names, "class": labels, "split": ["train" if number else "test" for number in range(COUNT)]}
    path = write_parquet(tmp_path / "set/all.parquet", columns, row_group_size=7, compression="zstd")
    found = write_recipe(path, tmp_path / "mine.toml")
    assert found.source.kind == "labels" and found.source.use == ("train",) and found.count == COUNT - 1
    assert {texts[1] for texts in texts_of(found)} == {"red car", "dog", "cat"}
    assert_works(found, tmp_path / "mine.toml")


def test_values_of_every_type_become_strings(tmp_path: Path) -> None:
    import decimal

    columns = {
        "text": ["a", None, ""],
        "number": [1, None, -3],
        "float": [0.5, float("nan"), None],
        "flag": [True, False, None],
        "list": [["a", None, "b"], [], None],
        "struct": [{"x": 1, "y": "é"}, {"x": None, "y": None}, None],
        "bytes": [b"\xff\xd8", b"", None],
        "time": [datetime.datetime(2024, 1, 2), None, None],
        "decimal": [decimal.Decimal("1.50"), None, None],
    }
    rows = list(read_table(write_parquet(tmp_path / "t.parquet", columns)))
    assert [row["text"] for row in rows] == ["a", "", ""]
    assert [row["number"] for row in rows] == ["1", "", "-3"]
    assert [row["float"] for row in rows] == ["0.5", "", ""]
    assert [row["flag"] for row in rows] == ["True", "False", ""]
    assert [row["list"] for row in rows] == ['["a", null, "b"]', "[]", ""]
    assert rows[0]["struct"] == '{"x": 1, "y": "é"}' and rows[0]["decimal"] == "1.50"
    assert all(isinstance(value, str) for row in rows for value in row.values())


@pytest.mark.parametrize("content", [b"", b"PAR1", b"file,caption\na.jpg,b\n", b"PAR1" + bytes(200) + b"PAR1"])
def test_what_is_no_parquet_is_one_line(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read") as caught:
        list(read_table(tmp_path / "t.parquet"))
    assert "\n" not in str(caught.value)


def test_a_missing_column_of_a_parquet_table_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", {"photo": ["a.jpg"], "text": ["b"]})
    with pytest.raises(DataError, match="needs the columns `file` and `caption`"):
        list_photos(PhotoSource("s", "captions", "t.parquet"), tmp_path)


def test_photos_inside_a_parquet_table_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """As Hugging Face stores them on its hub."""
    photos = [{"bytes": jpeg(number), "path": f"{number}.jpg"} for number in range(COUNT)]
    path = write_parquet(tmp_path / "t.parquet", {"image": photos, "text": ["a dog"] * COUNT})
    with pytest.raises(DataError, match="has the photos inside; load it with `datasets` and use `save_to_disk`"):
        write_recipe(path, tmp_path / "mine.toml")


def encoded(number: int, kind: str) -> bytes:
    stream = io.BytesIO()
    picture(number).save(stream, kind)
    return stream.getvalue()


def save(path: Path, columns: dict[str, Sequence[Any]], kinds: dict[str, Any], split: str = "") -> Path:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    (datasets.DatasetDict({split: data}) if split else data).save_to_disk(str(path))
    return path


@pytest.mark.parametrize("split", ["", "train", "validation"])
def test_a_datasets_folder_with_captions(tmp_path: Path, split: str) -> None:
    """Photos of several formats as bytes and as paths, one of them damaged, and several captions per photo."""
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    images: list[dict[str, Any]] = [
        {"bytes": encoded(number, ("JPEG", "PNG", "WEBP")[number % 3]), "path": None} for number in range(COUNT)
    ]
    (tmp_path / "one.jpg").write_bytes(jpeg(5))
    images[5] = {"bytes": None, "path": str(tmp_path / "one.jpg")}
    images[7] = {"bytes": b"not a picture", "path": None}
    captions = [[f"photo {number}", "naïve 猫"] for number in range(COUNT)]
    lists = datasets.Sequence(datasets.Value("string"))
    kinds = {"pixels": datasets.Image(), "captions": lists, "id": datasets.Value("int64")}
    path = save(tmp_path / "saved", {"pixels": images, "captions": captions, "id": range(COUNT)}, kinds, split)
    found = write_recipe(path, tmp_path / "mine.toml")
    assert found.source.kind == "captions" and found.count == COUNT - 1
    assert found.about == "photos with captions; 1 can't be read"
    assert texts_of(found)[0] == ("photo 0", "naïve 猫")
    written = sorted(file.name for file in found.data.iterdir())
    assert written[:3] == ["000000.jpg", "000001.png", "000002.webp"]
    with Image.open(found.data / "000001.png") as photo:
        assert photo.tobytes() == picture(1).tobytes()
    assert (found.data / "000005.jpg").read_bytes() == jpeg(5)
    assert_works(found, tmp_path / "mine.toml")


def test_a_datasets_folder_with_classes(tmp_path: Path) -> None:
    """Numbers become names; -1, which stands for a hidden label, and a missing one are left out."""
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    images = [{"bytes": jpeg(number), "path": None} for number in range(COUNT)]
    labels: list[int | None] = [number % 3 for number in range(COUNT)]
    labels[4], labels[5] = -1, None
    kinds = {"image": datasets.Image(), "fine": datasets.ClassLabel(names=list(CLASSES))}
    found = write_recipe(save(tmp_path / "saved", {"image": images, "fine": labels}, kinds), tmp_path / "mine.toml")
    assert found.source.kind == "labels" and found.count == COUNT - 2
    assert [texts[1] for texts in texts_of(found)][:5] == ["red car", "dog", "cat", "red car", "red car"]
    assert_works(found, tmp_path / "mine.toml")


def test_a_datasets_folder_with_several_classes_per_photo(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    images = [{"bytes": jpeg(number), "path": None} for number in range(COUNT)]
    labels = [[number % 3, (number + 1) % 3] if number else [] for number in range(COUNT)]
    kinds = {"image": datasets.Image(), "labels": datasets.Sequence(datasets.ClassLabel(names=list(CLASSES)))}
    found = write_recipe(save(tmp_path / "saved", {"image": images, "labels": labels}, kinds), tmp_path / "mine.toml")
    assert found.source.kind == "labels" and found.count == COUNT - 1
    assert {texts[1] for texts in texts_of(found)} == {"dog and cat", "cat and red car", "red car and dog"}


def test_a_datasets_folder_without_photos_is_one_line(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    kinds = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(CLASSES))}
    path = save(tmp_path / "saved", {"text": ["a"] * COUNT, "label": [0] * COUNT}, kinds)
    with pytest.raises(DataError, match="needs a column of images and one of captions or labels, but has text, label"):
        write_recipe(path, tmp_path / "mine.toml")
    assert not (tmp_path / "mine.toml").exists()

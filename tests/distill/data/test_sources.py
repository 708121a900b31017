"""Readers of captions, labels and texts."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.config import PhotoSource, TextSource
from distill.data.sources import is_photo_file, list_photos, read_splits, read_texts, readable_name
from distill.data.tables import DataError, as_text
from mobileclip.errors import ConfigError
from mobileclip.tables import build


def test_captions_keep_their_photo_and_split(data: Path) -> None:
    source = PhotoSource("s", "captions", "shapes/captions.jsonl", splits="shapes/splits.csv", use=("test",))
    samples = list_photos(source, data).photos
    assert len(samples) == 16 and all(len(s.texts) == 2 for s in samples)
    assert len({s.group for s in samples}) == 16


def test_labels_become_texts_and_one_group_per_class(data: Path) -> None:
    source = PhotoSource("c", "labels", "colors/labels.csv", use=("train",), templates=("a {} thing", "{}"))
    samples = list_photos(source, data).photos
    assert len(samples) == 80 and {s.group for s in samples} == {"red", "green", "blue", "yellow"}
    assert samples[0].texts == ("a red thing", "red")


def test_csv_and_tsv_with_bom_quotes_and_unicode(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('file,caption\nä 1.jpg,"a ""quoted"", café"\n', "utf-8-sig")
    (tmp_path / "a.tsv").write_text("file\tcaption\nx.jpg\tone, two\n", "utf-8")
    for name, text in (("a.csv", 'a "quoted", café'), ("a.tsv", "one, two")):
        assert list_photos(PhotoSource("s", "captions", name), tmp_path).photos[0].texts == (text,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"file": "x", "caption": "y"}\n{broken\n', "line 2"),
        ("a.jsonl", '["a list"]\n', "line 1"),
        ("a.csv", "photo,text\nx,y\n", "columns `file` and `caption`"),
        ("a.csv", "file,caption\n", "no sample"),
        ("a.csv", b"\xff\xfe\x00x", "cannot be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        list_photos(PhotoSource("s", "captions", name), tmp_path)


def test_texts_are_unique_and_limited(data: Path) -> None:
    assert len(read_texts(TextSource("w", "lines", "words.txt", limit=2), data)) == 2
    texts = read_texts(TextSource("w", "lines", "words.txt", limit=2, templates=("{}", "a photo of {}")), data)
    assert texts == ["a purple disc", "a square", "a photo of a purple disc", "a photo of a square"]


@given(st.text())
def test_a_readable_name_has_no_underscore(label: str) -> None:
    assert "_" not in readable_name(label)


def test_synthetic_captions_in_every_kind_of_table(tmp_path: Path) -> None:
    """A text, a JSON list of texts, a text that looks like a list, an empty cell, null."""
    cells = ["one", '["two", " three ", ""]', "[no list", ""]
    rows = "".join(f'x.jpg\tc\t"{text.replace(chr(34), chr(34) * 2)}"\n' for text in cells)
    (tmp_path / "c.tsv").write_text("file\tcaption\tsynthetic\n" + rows)
    lists = [{"synthetic": ["two", "three"]}, {"synthetic": "[no list"}, {"synthetic": None}, {}]
    lines = [{"file": "x.jpg", "caption": "c", **fields} for fields in ({"synthetic": "one"}, *lists)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("c.tsv", "c.jsonl"):
        (sample,) = list_photos(PhotoSource("c", "captions", name), tmp_path).photos
        assert sample.captions == ("c",) and sample.synthetic == ("one", "two", "three", "[no list")


@pytest.mark.parametrize("kind", ["captions", "labels", "splits", "lines", "csv"])
def test_a_missing_file_is_named_once(tmp_path: Path, kind: str) -> None:
    (tmp_path / "c.csv").write_text("file,caption,label\nx.jpg,one,two\n")
    missing = str(tmp_path / "none.csv")
    with pytest.raises(DataError, match="No such file") as caught:
        if kind in ("lines", "csv"):
            read_texts(TextSource("s", kind, "none.csv"), tmp_path)
        elif kind == "splits":
            list_photos(PhotoSource("s", "captions", "c.csv", splits="none.csv"), tmp_path)
        else:
            list_photos(PhotoSource("s", kind, "none.csv"), tmp_path)
    assert str(caught.value).count(missing) == 1 and "Errno" not in str(caught.value)


def test_a_splits_file_needs_its_columns(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("photo,part\nx.jpg,train\n")
    with pytest.raises(DataError, match="needs the columns `file` and `split`"):
        read_splits(tmp_path / "s.csv")


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_captions_can_be_lists_and_empty_ones_are_counted(tmp_path: Path, name: str) -> None:
    captions = [["a", "b", "", None], None, "", "  ", float("nan"), [], "c"]
    lines = [{"file": f"{number}.jpg", "caption": caption} for number, caption in enumerate(captions)]
    lines.append({"file": "", "caption": "of nothing"})
    if name == "c.jsonl":
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        with (tmp_path / name).open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["file", "caption"])
            table.writerows([line["file"], as_text(line["caption"])] for line in lines)
    found = list_photos(PhotoSource("s", "captions", name), tmp_path)
    assert [(sample.photo.path.name, sample.texts) for sample in found.photos] == [
        ("0.jpg", ("a", "b")),
        ("6.jpg", ("c",)),
    ]
    assert found.skipped == {"rows without a caption": 5, "rows without a file name": 1}


def test_empty_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    labels = ["dog||", "", " | ", "dog|cat|dog", None, ["red_car", "cat"]]
    lines = [{"file": f"{number}.jpg", "label": label} for number, label in enumerate(labels)]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = list_photos(PhotoSource("s", "labels", "l.jsonl", templates=("a photo of {}",)), tmp_path)
    assert [s.texts[0] for s in found.photos] == [
        "a photo of dog",
        "a photo of dog and cat",
        "a photo of red car and cat",
    ]
    assert found.skipped == {"rows without a label": 3}


def test_a_table_without_any_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,caption\na.jpg,\nb.jpg,\n")
    with pytest.raises(DataError, match=r"c\.csv: none of its 2 rows has a file and a caption"):
        list_photos(PhotoSource("s", "captions", "c.csv"), tmp_path)


def test_evaluation_reads_lists_of_captions_as_training_does(tmp_path: Path) -> None:
    from distill.evaluate.evidence import Evidence, read_known_photos

    (tmp_path / "set").mkdir()
    (tmp_path / "set/captions.jsonl").write_text('{"file": "a.jpg", "caption": ["A dog", "a CAT"]}\n')
    (tmp_path / "set/splits.csv").write_text("file,split\n")
    (photo,) = read_known_photos(tmp_path, Evidence((), ("set",)))
    assert "[" not in photo.text and " a dog " in photo.text and " a cat " in photo.text


def test_names_that_no_file_system_can_hold_are_missing() -> None:
    assert not is_photo_file(Path("x" * 5000)) and not is_photo_file(Path("nul\0byte.jpg"))


@pytest.mark.parametrize("templates", [["{label}"], [], ["a photo"], ["{"], ["{0}"], ["{:>9}"], ["{} and {}"]])
@pytest.mark.parametrize("source", ["photos", "texts"])
def test_templates_are_checked(templates: list[str], source: str) -> None:
    kind = PhotoSource if source == "photos" else TextSource
    fields = {"name": "s", "kind": "labels" if source == "photos" else "lines", "file": "f", "templates": templates}
    with pytest.raises(ConfigError, match=rf"{source}\.s: template"):
        build(kind, fields, "")


def test_braces_in_a_template_are_doubled(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,label\na.jpg,dog\n")
    source = PhotoSource("s", "labels", "l.csv", templates=("{{{}}}",))
    assert list_photos(source, tmp_path).photos[0].texts == ("{dog}",)

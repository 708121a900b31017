"""Captions in any script, in every kind of table: the student reads the tokens that open_clip makes of them."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.config import PhotoSource, TextSource
from distill.data.sources import captioned, list_photos, read_texts
from distill.data.tables import read_lines
from distill.data.tars import read_index
from distill.teachers.encoders import SentenceEncoder
from mobileclip.tokenizer import Tokenizer
from tests.distill.conftest import run
from tests.distill.mixed import jpeg, write_tar

ft = pytest.importorskip("ftfy")
oc = pytest.importorskip("open_clip.tokenizer")

CAPTIONS = (
    "a café in the Straße",
    unicodedata.normalize("NFD", "a café in Ångström, piñata"),
    "a dog, “quoted”, and a\tcat",
    'she said "hello", twice',
    "שלום עולם, כלב",
    "مَرْحَبًا \u200fكلب\u200e RTL",
    "می\u200cخواهم گربه",
    "👩‍👩‍👧‍👦 on a beach 🏳️‍🌈 👍🏽 🇩🇪 ☃️",
    "क्षत्रिय बिल्ली\u200d छवि",
    "漢字かな交じり文 ｶﾞｷﾞ 𠮷野家",
    "z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍a̴̵̜̰͔l̸̢g̷o",
    "İstanbul ΑΣ ς ẞ ﬁne Ⅷ ½",
    "no\u00a0break\u2003em\u3000ideographic",
    "next\u0085line, line\u2028separator, form\x0cfeed, file\x1cseparator, vertical\x0btab",
    "zero\u200bwidth \ufeffmark soft\u00adhyphen \u202ereversed",
    "[1] a numbered dog",
    "&amp; an entity &#39; &EACUTE;",
    "nothing but ascii",
)
BROKEN = (
    "half a pair \ud83d of a dog",
    "the other half \ude00",
    "\ude00\ud83d the wrong way round",
    "an undecodable byte \udce9",
)
"""Captions that only JSON's escapes can hold."""
ONE_LINE = tuple(text for text in CAPTIONS if not {"\t", "\n"} & set(text))


def name(number: int) -> str:
    return f"{number:03}.jpg"


def separated(delimiter: str, path: Path, texts: tuple[str, ...]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, delimiter=delimiter)
        table.writerow(["file", "caption"])
        table.writerows([name(number), text] for number, text in enumerate(texts))


def jsonl(escaped: bool, path: Path, texts: tuple[str, ...]) -> None:
    lines = [
        json.dumps({"file": name(number), "caption": text}, ensure_ascii=escaped) for number, text in enumerate(texts)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def jsonl_lists(path: Path, texts: tuple[str, ...]) -> None:
    lines = [json.dumps({"file": name(number), "caption": [text]}) for number, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def coco(escaped: bool, path: Path, texts: tuple[str, ...]) -> None:
    images = [{"id": number, "file_name": name(number)} for number in range(len(texts))]
    notes = [{"image_id": number, "caption": text} for number, text in enumerate(texts)]
    path.write_text(json.dumps({"images": images, "annotations": notes}, ensure_ascii=escaped), "utf-8")


def parquet(path: Path, texts: tuple[str, ...]) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow.parquet import write_table

    columns: dict[str, list[str]] = {"file": [name(number) for number in range(len(texts))], "caption": list(texts)}
    write_table(arrow.table(columns), path)


def tar(member: str, escaped: bool, path: Path, texts: tuple[str, ...]) -> None:
    members = []
    for number, text in enumerate(texts):
        content = text if member == "txt" else json.dumps({"caption": text}, ensure_ascii=escaped)
        members += [(f"{number:03}.jpg", b"x"), (f"{number:03}.{member}", content.encode("utf-8"))]
    write_tar(path, members)


KINDS: dict[str, tuple[str, str, Callable[[Path, tuple[str, ...]], None], tuple[str, ...]]] = {
    "csv": ("captions", "c.csv", partial(separated, ","), CAPTIONS),
    "tsv": ("captions", "c.tsv", partial(separated, "\t"), CAPTIONS),
    "jsonl": ("captions", "c.jsonl", partial(jsonl, False), CAPTIONS),
    "jsonl-escaped": ("captions", "c.jsonl", partial(jsonl, True), CAPTIONS + BROKEN),
    "jsonl-lists": ("captions", "c.jsonl", jsonl_lists, CAPTIONS + BROKEN),
    "parquet": ("captions", "c.parquet", parquet, CAPTIONS),
    "coco": ("coco", "c.json", partial(coco, False), CAPTIONS),
    "coco-escaped": ("coco", "c.json", partial(coco, True), CAPTIONS + BROKEN),
    "tar-txt": ("webdataset", "c.tar", partial(tar, "txt", False), CAPTIONS),
    "tar-json": ("webdataset", "c.tar", partial(tar, "json", False), CAPTIONS),
    "tar-json-escaped": ("webdataset", "c.tar", partial(tar, "json", True), CAPTIONS + BROKEN),
}
"""For each kind of table: the kind of the source, the file, what writes it, and the captions that it can hold."""


def read(source: PhotoSource, data: Path) -> list[str]:
    """Read the caption of each photo, in order."""
    if source.kind == "webdataset":
        found = [captioned(sample, source, data).captions for sample in read_index(data / source.file)[0]]
    else:
        found = [sample.texts for sample in list_photos(source, data).photos]
    assert all(len(captions) == 1 for captions in found)
    return [captions[0] for captions in found]


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.load((Path(oc.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes(), max_merges=48_894)


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """open_clip's tokenizer without ftfy's guesses at wrong encodings."""
    monkeypatch.setattr(oc, "ftfy", SimpleNamespace(fix_text=partial(ft.fix_text, fix_encoding=False)))
    return oc.SimpleTokenizer()


@pytest.mark.filterwarnings("ignore:.*cut to the")
@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_has_open_clips_tokens_wherever_it_comes_from(
    kind: str, tmp_path: Path, ours: Tokenizer, theirs: Any
) -> None:
    source, file, write, texts = KINDS[kind]
    write(tmp_path / file, texts)
    found = read(PhotoSource("s", source, file), tmp_path)  # type: ignore[arg-type]
    assert len(found) == len(texts)
    for text, read_back in zip(texts, found, strict=True):
        assert (ours([read_back])[0] == theirs([text]).numpy()[0]).all(), ascii(text)


def test_spellings_of_one_caption_are_one_text_to_the_student(ours: Tokenizer) -> None:
    """Composed and decomposed letters, and full-width forms: photos with them aren't each other's negatives."""
    for text in CAPTIONS:
        forms = {tuple(ours.encode(unicodedata.normalize(form, text))) for form in ("NFC", "NFD")}
        assert len(forms) == 1, ascii(text)


def test_a_file_of_lines_has_one_text_per_line(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"{text}\n" for text in ONE_LINE), "utf-8")
    assert read_lines(tmp_path / "t.txt") == list(ONE_LINE)
    assert read_texts(TextSource("t", "lines", "t.txt"), tmp_path) == [text.strip() for text in ONE_LINE]
    jsonl(True, tmp_path / "t.jsonl", CAPTIONS + BROKEN)
    for text in read_texts(TextSource("t", "csv", "t.jsonl", "caption"), tmp_path):
        assert text.encode("utf-8")
    (tmp_path / "t.txt").write_bytes("\ufeffone\r\ntwo\rthree\n\nfour".encode())
    assert read_lines(tmp_path / "t.txt") == ["one", "two", "three", "", "four"]
    (tmp_path / "t.txt").write_bytes(b"")
    assert read_lines(tmp_path / "t.txt") == []


@pytest.mark.parametrize("layers", [(), (0,)])
def test_a_sentence_encoder_takes_every_caption(layers: tuple[int, ...], encoders: Path, tmp_path: Path) -> None:
    """As they are read: the encoder's own tokenizer refuses half a surrogate pair."""
    jsonl(True, tmp_path / "c.jsonl", CAPTIONS + BROKEN)
    texts = read(PhotoSource("s", "captions", "c.jsonl"), tmp_path)
    assert len(SentenceEncoder(encoders / "sentences", layers).encode_texts(texts)) == len(texts)


def test_members_of_a_tar_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As Windows writes them: a class must not become another one."""
    mark = b"\xef\xbb\xbf"
    members = [("1.jpg", b"x"), ("1.cls", mark + b"dog"), ("2.jpg", b"x"), ("2.cls", b"dog")]
    members += [
        ("3.jpg", b"x"),
        ("3.txt", mark + b"a cat"),
        ("4.jpg", b"x"),
        ("4.json", mark + b'{"caption": "a cat"}'),
    ]
    write_tar(tmp_path / "c.tar", members)
    found = list_photos(PhotoSource("s", "webdataset", "c.tar", templates=("a {}",)), tmp_path).photos
    assert [photo.texts for photo in found] == [("a dog",), ("a dog",), ("a cat",), ("a cat",)]
    assert found[0].group == found[1].group == "dog"


@pytest.mark.parametrize("kind", [kind for kind, (*_, texts) in KINDS.items() if texts is not CAPTIONS])
def test_every_caption_can_be_written_to_a_file(kind: str, tmp_path: Path) -> None:
    source, file, write, texts = KINDS[kind]
    write(tmp_path / file, texts)
    for text in read(PhotoSource("s", source, file), tmp_path):  # type: ignore[arg-type]
        assert text.encode("utf-8")


@pytest.mark.filterwarnings("ignore:.*cut to the")
@pytest.mark.parametrize("teach", ["cached", "online"])
def test_a_run_takes_every_caption(teach: str, recipe_folder: Path, tmp_path: Path) -> None:
    """From the teacher's fit to a checkpoint, in files named after digests of the captions."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(len(CAPTIONS + BROKEN)):
        (data / name(number)).write_bytes(jpeg(number))
    jsonl(True, data / "c.jsonl", CAPTIONS + BROKEN)
    photos = [{"name": "s", "kind": "captions", "file": "c.jsonl"}]
    settings = {"photos": photos, "texts": [], "teach": teach, "aligned.epochs": 1, "aligned.batch": 8}
    settings |= {"optim.batch": 8, "loss.bank": 0 if teach == "online" else 8, "save_every": 1}
    run(recipe_folder, data, tmp_path / "run", 1, **settings)
    assert list((tmp_path / "run/checkpoints").glob("*.pt"))

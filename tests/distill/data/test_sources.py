"""Readers of captions, labels and texts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.config import PhotoSource, Recipe, TextSource
from distill.data.bpe import train_merges
from distill.data.corpus import Corpus
from distill.data.sources import DataError, read_photos, read_texts, readable_name
from distill.data.wordnet import plurals
from distill.evaluate.evidence import LabelEvidence, read_known_photos, truth
from mobileclip.tokenizer import Tokenizer


def test_captions_keep_their_photo_and_split(data: Path) -> None:
    source = PhotoSource("s", "captions", "shapes/captions.jsonl", splits="shapes/splits.csv", use=("test",))
    samples = read_photos(source, data)
    assert len(samples) == 16 and all(len(s.texts) == 2 for s in samples)
    assert len({s.group for s in samples}) == 16


def test_labels_become_texts_and_one_group_a_class(data: Path) -> None:
    source = PhotoSource("c", "labels", "colours/labels.csv", use=("train",), templates=("a {} thing", "{}"))
    samples = read_photos(source, data)
    assert len(samples) == 80 and {s.group for s in samples} == {"red", "green", "blue", "yellow"}
    assert samples[0].texts == ("a red thing", "red")


def test_csv_and_tsv_with_bom_quotes_and_unicode(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('file,caption\nä 1.jpg,"a ""quoted"", café"\n', "utf-8-sig")
    (tmp_path / "a.tsv").write_text("file\tcaption\nx.jpg\tone, two\n", "utf-8")
    for name, text in (("a.csv", 'a "quoted", café'), ("a.tsv", "one, two")):
        assert read_photos(PhotoSource("s", "captions", name), tmp_path)[0].texts == (text,)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"file": "x", "caption": "y"}\n{broken\n', "line 2"),
        ("a.jsonl", '["a list"]\n', "line 1"),
        ("a.csv", "photo,text\nx,y\n", "columns `file` and `caption`"),
        ("a.csv", "file,caption\n", "no sample"),
        ("a.csv", b"\xff\xfe\x00x", "cannot be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said):
        read_photos(PhotoSource("s", "captions", name), tmp_path)


def test_texts_are_unique_and_limited(data: Path) -> None:
    assert len(read_texts(TextSource("w", "lines", "words.txt", limit=2), data)) == 2
    said = read_texts(TextSource("w", "lines", "words.txt", limit=2, templates=("{}", "a photo of {}")), data)
    assert said == ["a purple disc", "a square", "a photo of a purple disc", "a photo of a square"]


def test_wordnet_nouns_come_most_frequent_first(tmp_path: Path) -> None:
    (tmp_path / "index.noun").write_text("  licence text\nbank n 1 0 1 0 001\nhot_dog n 1 0 1 0 002\n9 n 1 0 1 0 003\n")
    (tmp_path / "cntlist.rev").write_text("bank%1:04:00:: 1 2\nhot_dog%1:13:00:: 1 9\nbank%2:40:00:: 1 99\n")
    assert read_texts(TextSource("w", "wordnet", "."), tmp_path) == ["hot dog", "bank"]
    several = TextSource("w", "wordnet", ".", plural=True, templates=("{}", "many {}"))
    assert read_texts(several, tmp_path) == ["hot dogs", "banks", "many hot dogs", "many banks"]


def test_plurals_are_spelt_as_english_spells_them() -> None:
    words = ["city", "boy", "dish", "wolf", "woman", "mouse", "sheep", "leopard", "sea horse", "scissors", "cats"]
    assert plurals(words) == [
        *("cities", "boys", "dishes", "wolves", "women", "mice", "sheep", "leopards", "sea horses", "scissors", "cats")
    ]


def test_an_epoch_draws_each_source_by_its_share(data: Path, recipe_folder: Path) -> None:
    recipe = Recipe.load(recipe_folder / "recipe.toml")
    corpus = Corpus.read(recipe, data)
    order = corpus.epoch(0, 3)
    assert len(order) == 80 + 40 and len(set(order)) == len(order)
    assert np.array_equal(order, corpus.epoch(0, 3)) and not np.array_equal(order, corpus.epoch(0, 4))


@given(st.text())
def test_spoken_never_fails(label: str) -> None:
    assert "_" not in readable_name(label)


def test_trained_merges_make_whole_words_one_token() -> None:
    texts = ["a red disc on the beach"] * 4 + ["the beach at night, don't run!"] * 4
    tokenizer = Tokenizer(train_merges(texts, 600), 16)
    assert len(tokenizer.encode("the beach")) == 2
    assert tokenizer.decode(tokenizer.encode("red disc at night")).strip() == "red disc at night"
    assert tokenizer.vocab_size <= 600


def test_evidence_says_yes_no_and_unknown(data: Path) -> None:
    photos = read_known_photos(data, ["shapes", "colours"])
    labels = [
        LabelEvidence("red", "g", ("red",), words=("red",), classes=("colours:red",)),
        LabelEvidence("disc", "g", ("disc",), words=("disc",), unsure=("colours:*",)),
        LabelEvidence("is", "g", ("is",), words=("is tha",)),
    ]
    table = truth(photos, labels)
    for photo, (red, disc, part) in zip(photos, table, strict=True):
        number = int(photo.path.stem)
        assert red == (number % 4 == 0)
        assert disc == (-1 if photo.collection == "colours" else number // 4 % 2)
        assert part == 0, "only whole words count"
    roles = [p.role for p in photos if p.collection == "colours"]
    assert roles.count("seen") == 80 and 0 < roles.count("measure") < 16
    assert {p.role for p in photos if p.collection == "shapes"} == {"seen", "measure"}

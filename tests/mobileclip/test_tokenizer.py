import gzip
import random
import unicodedata
import warnings
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobileclip.errors import BundleError, TextCutWarning
from mobileclip.text_repair import clean
from mobileclip.tokenizer import Tokenizer, split_words

ft = pytest.importorskip("ftfy")
oc = pytest.importorskip("open_clip.tokenizer")

FIXED = (
    "",
    " ",
    "\t\n\r ",
    "a photo of a dog.",
    "pavement",
    "HELLO, World!",
    "they're we've I'm she'll he'd it's can't 'sand 'TIS don''t",
    "'S 'T 'ſ ſ's <ſtart_of_text>",
    "1234567890 12.5% 3rd ½ ² Ⅷ ① ٣٤ ५",
    "café CAFÉ cafe\u0301 İstanbul ΑΣ ς ẞ K",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ☃️",
    "漢字かな交じり文 中文 한국어 ｶﾞｷﾞ",
    "Привет, мир! Ёлка",
    "مَرْحَبًا बिल्ली ছবি รูปภาพ",
    "&amp; &lt;b&gt; &amp;amp;lt; &#39; &#x41; &eacute; &EACUTE; &notit; &nosuch; &amp &#0; &#xD800; &#1;",
    "<b>&ldquo;markup&rdquo;</b>",
    "plain &ldquo;one&rdquo;\n<i>then &ldquo;markup&rdquo;\nthen &ldquo;more&rdquo;",
    "“curly” ‘quotes’ ʼn ŉ „low“",
    "ﬁne ﬂuﬀy oﬃce ﬆop ﬅop ĳs ǆ Ǉ",
    "ＦＵＬＬ　ｗｉｄｔｈ！ ＆amp;",
    "zero\u200bwidth\u200d\u00ad\ufeff\u2060 joiner",
    "bell\x07null\x00vt\x0bdel\x7f \x1b[31mred\x1b[0m \x1b[",
    "nel\x85 c1\x91\x92 \x81",
    "line\u2028para\u2029nbsp\u00a0thin\u2009\u3000",
    "\ud83d\ude00 \ud83d \ude00",
    "<|endoftext|> <|startoftext|>",
    "<end_of_text> <START_OF_TEXT>x<start_of_text",
    "</w> a</w>b",
    "a\u0345b \u1fb3 _under_score_ __init__",
    "&" + "amp;" * 50 + "lt;",
    " ".join(f"word{number}" for number in range(200)),
    "long" * 300,
    "!" * 300,
    "汉" * 300,
)

POOLS = (
    "abcxyz ABCXYZ",
    "the dog's cat isn't they'll we've i'm re d t ll",
    "0123456789 ½²Ⅷ①٣५",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "éàüñßœøåİıſΣςẞ\u0301\u0308\u0345",
    "😀👩🏽‍👧🇩🇪❤️☃\u200d\ufe0f",
    "漢字かなカナ中文한국어",
    "приветЁжПРИВЕТ",
    "مرحبًا\u064eबिल्लीছবিรูป",
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u206a",
    "\x00\x07\x0b\x0c\x1b[31m\x7f\x85\x91\x9d",
    "“”‘’ʼ„ﬁﬂﬀﬆĳ",
    "ＡＢ１！　ｶﾞﾊﾟ￥",
    " \t\n\r\u00a0\u2003\u2028\u3000",
    "\ud83d\ude00\ud800",
)
ENTITIES = (
    *("&amp;", "&lt;", "&gt;", "&eacute;", "&EACUTE;", "&ldquo;", "&#39;", "&#x41;"),
    *("&amp;amp;", "&not", "&nbsp;", "&hearts;", "<b>", "</b>"),
)
MARKS = ("<|endoftext|>", "<|startoftext|>", "<start_of_text>", "<end_of_text>", "</w>")

MOJIBAKE = (
    "cafÃ© au lait",
    "itâ€™s a dog",
    "â€œquotedâ€\x9d",
    "naÃ¯ve rÃ©sumÃ©",
    "Ð¿Ñ€Ð¸Ð²ÐµÑ‚",
    "smile ðŸ˜€",
)


def hostile_texts() -> list[str]:
    rng = random.Random(20240229)
    texts = list(FIXED)
    while len(texts) < 2600:
        parts = []
        for _ in range(rng.randint(1, 10)):
            kind = rng.random()
            if kind < 0.15:
                parts.append(rng.choice(ENTITIES))
            elif kind < 0.2:
                parts.append(rng.choice(MARKS))
            else:
                pool = rng.choice(POOLS)
                parts.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 8))))
        texts.append(rng.choice(("", " ")).join(parts))
    return texts


def is_assigned(text: str) -> bool:
    return all(unicodedata.category(character) != "Cn" for character in text)


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    return (Path(oc.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()


@pytest.fixture(scope="module")
def ours(vocabulary: bytes) -> Tokenizer:
    return Tokenizer.load(vocabulary, max_merges=48_894)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return oc.SimpleTokenizer()


@pytest.fixture
def no_mojibake_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use open_clip without ftfy's guesses at wrong encodings, but with all its other repairs."""
    monkeypatch.setattr(oc, "ftfy", SimpleNamespace(fix_text=partial(ft.fix_text, fix_encoding=False)))


def test_vocabulary_is_openais(ours: Tokenizer, theirs: Any) -> None:
    assert (ours.vocab_size, ours.sot, ours.eot) == (49_408, 49_406, 49_407)
    assert (theirs.vocab_size, theirs.sot_token_id, theirs.eot_token_id) == (49_408, 49_406, 49_407)


def test_equal_to_open_clip_on_hostile_texts(ours: Tokenizer, theirs: Any, no_mojibake_repair: None) -> None:
    texts = hostile_texts()
    assert len(set(texts)) >= 2000
    for text in texts:
        ids = ours.encode(text)
        assert ids == theirs.encode(text), ascii(text)
        assert ours.decode(ids) == theirs.decode(ids), ascii(text)
    np.testing.assert_array_equal(ours(texts), theirs(texts).numpy())


def test_results_differ_from_open_clip_only_for_mojibake(ours: Tokenizer, theirs: Any) -> None:
    different = [text for text in hostile_texts() if ours.encode(text) != theirs.encode(text)]
    assert all(ft.fix_text(text) != ft.fix_text(text, fix_encoding=False) for text in different)
    assert len(different) < 100  # random accents and control characters sometimes look like mojibake
    assert not set(different) & set(FIXED)


@pytest.mark.parametrize("text", MOJIBAKE)
def test_mojibake_is_not_repaired(ours: Tokenizer, theirs: Any, text: str) -> None:
    assert theirs.encode(text) == theirs.encode(ft.fix_encoding(text))
    assert ours.encode(text) != theirs.encode(text)
    assert ours.encode(ft.fix_encoding(text)) == theirs.encode(text)


def test_every_assigned_character_is_classified_as_in_open_clip(theirs: Any) -> None:
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) in ("Cs", "Cn") or character.isspace():
            continue
        assert split_words(f"x{character}x") == theirs.pat.findall(f"x{character}x"), hex(code)
        assert split_words(f"1{character}!") == theirs.pat.findall(f"1{character}!"), hex(code)


@settings(max_examples=400, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
@example("&#" + "9" * 5000 + ";")
@example("&#" + "0" * 5000 + "65;")
@example("\ud800")
def test_any_text_has_valid_ids_and_is_decoded_again(ours: Tokenizer, text: str) -> None:
    ids = ours.encode(text)
    assert all(0 <= i < ours.vocab_size for i in ids)
    assert "".join(ours.decode(ids).split()) == "".join(split_words(clean(text)))
    row = ours(text)[0]
    length = min(len(ids) + 2, 77)
    assert row.shape == (77,) and row.dtype == np.int32
    assert row[0] == ours.sot and row[length - 1] == ours.eot and not row[length:].any()


@settings(max_examples=400, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cn",))).filter(is_assigned))
def test_any_assigned_text_is_equal_to_open_clip(ours: Tokenizer, theirs: Any, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oc, "ftfy", SimpleNamespace(fix_text=partial(ft.fix_text, fix_encoding=False)))
        assert ours.encode(text) == theirs.encode(text)


def test_a_long_text_keeps_its_end_token(ours: Tokenizer) -> None:
    row = ours(" ".join(["dog"] * 200))[0]
    assert row[0] == ours.sot and row[-1] == ours.eot and (row[1:-1] == ours.encode("dog")[0]).all()


def test_a_warning_reports_texts_that_were_cut(ours: Tokenizer) -> None:
    with pytest.warns(TextCutWarning, match="1 of 2 texts were cut to the 75 tokens"):
        ours(["short", "word " * 76])
    with pytest.warns(TextCutWarning, match="a text was cut"):
        ours("word " * 76)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(["word " * 75])


def test_shapes_of_no_one_and_many_texts(ours: Tokenizer) -> None:
    assert ours([]).shape == (0, 77)
    assert ours("one text").shape == (1, 77)
    assert ours(["one", "", "three"]).shape == (3, 77)
    assert ours([""])[0].tolist() == [ours.sot, ours.eot] + [0] * 75


def test_hostile_lengths_finish(ours: Tokenizer) -> None:
    rng = random.Random(0)
    word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(100_000))
    assert len(ours.encode(word)) > 10_000
    assert ours.encode("&" + "amp;" * 100_000 + "lt;") == ours.encode("<")


def test_the_cache_of_words_is_limited(ours: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobileclip.tokenizer._MAX_CACHED_WORDS", 10)
    tokenizer = Tokenizer([("x", "x"), ("x", "x</w>")])
    for number in [*range(1, 100), 50]:
        assert tokenizer.encode("x" * number) == list(tokenizer._encode_word("x" * number))
    assert len(tokenizer._cache) == 10


def plain_bpe(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """The textbook loop: merge all occurrences of the pair with the lowest rank until none is left."""
    symbols = [*word[:-1], word[-1] + "</w>"]
    ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
    while pairs := [pair for pair in pairwise(symbols) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        merged: list[str] = []
        place = 0
        while place < len(symbols):
            if tuple(symbols[place : place + 2]) == best:
                merged.append(best[0] + best[1])
                place += 2
            else:
                merged.append(symbols[place])
                place += 1
        symbols = merged
    return symbols


def test_merging_agrees_with_the_textbook_loop_on_random_vocabularies() -> None:
    rng = random.Random(7)
    for _ in range(60):
        symbols = [*"abc", *(letter + "</w>" for letter in "abc")]
        merges = []
        for _ in range(rng.randint(0, 25)):
            left = rng.choice([symbol for symbol in symbols if not symbol.endswith("</w>")])
            pair = (left, rng.choice(symbols))
            merges.append(pair)
            symbols.append("".join(pair))
        tokenizer = Tokenizer(merges)
        for _ in range(20):
            word = "".join(rng.choice("abc") for _ in range(rng.randint(1, 14)))
            expected = [tokenizer._ids[symbol] for symbol in plain_bpe(word, merges)]
            assert tokenizer.encode(word) == expected, (merges, word)


def test_a_small_vocabulary() -> None:
    tokenizer = Tokenizer.load(b"d o\ndo g</w>\n", context_length=6)
    assert (tokenizer.vocab_size, tokenizer.sot, tokenizer.eot) == (516, 514, 515)
    assert tokenizer.encode("dog") == [513]
    assert tokenizer.decode(tokenizer.encode("Dog do!")) == "dog do ! "
    assert tokenizer("dog dog dog dog dog dog").tolist() == [[514, 513, 513, 513, 513, 515]]


def test_header_and_gzip_are_optional() -> None:
    plain = b'"bpe_simple_vocab_16e6.txt#version: 0.2\nd o\ndo g</w>\nx y\n'
    for data in (plain, gzip.compress(plain), b"#version: 0.2\nd o\ndo g</w>\nx y"):
        assert Tokenizer.load(data).vocab_size == 517
        assert Tokenizer.load(data, max_merges=2).vocab_size == 516


@pytest.mark.parametrize(
    "data",
    [
        b"\x1f\x8bbroken",
        gzip.compress(b"d o\n", mtime=0)[:-6],
        b"\xff\xfe",
        b"d o\nonly-one\n",
        b"a b c\n",
        b"d o\n\ndo g</w>\n",
        b"dog cat\n",
        b"d</w> o\n",
    ],
)
def test_bad_merges_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"^merges: "):
        Tokenizer.load(data)


def test_bad_arguments_are_refused(ours: Tokenizer) -> None:
    with pytest.raises(ValueError, match="context_length"):
        Tokenizer([], context_length=1)
    with pytest.raises(ValueError, match="outside"):
        ours.decode([49_408])
    with pytest.raises(ValueError, match="outside"):
        ours.decode([-1])

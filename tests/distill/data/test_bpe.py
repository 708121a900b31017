"""Byte-pair merges."""

from distill.data.bpe import train_merges
from mobileclip.tokenizer import Tokenizer


def test_frequent_words_become_one_token() -> None:
    texts = ["a red disc on the beach"] * 4 + ["the beach at night, don't run!"] * 4
    tokenizer = Tokenizer(train_merges(texts, 600), 16)
    assert len(tokenizer.encode("the beach")) == 2
    assert tokenizer.decode(tokenizer.encode("red disc at night")).strip() == "red disc at night"
    assert tokenizer.vocab_size <= 600

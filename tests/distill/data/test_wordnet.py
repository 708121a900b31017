"""Nouns of WordNet, and plurals."""

from pathlib import Path

from distill.config import TextSource
from distill.data.sources import read_texts
from distill.data.wordnet import plurals


def test_wordnet_nouns_come_most_frequent_first(tmp_path: Path) -> None:
    (tmp_path / "index.noun").write_text("  header\nbank n 1 0 1 0 001\nhot_dog n 1 0 1 0 002\n9 n 1 0 1 0 003\n")
    (tmp_path / "cntlist.rev").write_text("bank%1:04:00:: 1 2\nhot_dog%1:13:00:: 1 9\nbank%2:40:00:: 1 99\n")
    assert read_texts(TextSource("w", "wordnet", "."), tmp_path) == ["hot dog", "bank"]
    several = TextSource("w", "wordnet", ".", plural=True, templates=("{}", "many {}"))
    assert read_texts(several, tmp_path) == ["hot dogs", "banks", "many hot dogs", "many banks"]


def test_plurals_follow_english_spelling() -> None:
    words = ["city", "boy", "dish", "wolf", "woman", "mouse", "sheep", "leopard", "sea horse", "scissors", "cats"]
    assert plurals(words) == [
        *("cities", "boys", "dishes", "wolves", "women", "mice", "sheep", "leopards", "sea horses", "scissors", "cats")
    ]

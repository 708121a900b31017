"""Learn byte-pair merges, for a student with a smaller vocabulary than CLIP's."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from mobileclip.files import PathLike

# How CLIP splits words (github.com/openai/CLIP, simple_tokenizer): contractions, letters, single digits, the rest.
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_merges(texts: Iterable[str], vocab_size: int) -> list[tuple[str, str]]:
    """Learn byte-pair merges from texts, in CLIP's convention.

    Args:
        texts: what the student will read; converted to lower case.
        vocab_size: size of the tokenizer's vocabulary: 512 byte symbols, the merges and two special tokens.

    Returns:
        At most `vocab_size − 514` pairs, in the order in which the tokenizer applies them.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) for pair in merges][: vocab_size - 514]


def save_merges(merges: Iterable[tuple[str, str]], path: PathLike) -> None:
    """Write merges as `merges.txt.gz`, one pair per line. The same merges give the same bytes."""
    text = "#version: pocketclip 1\n" + "".join(f"{a} {b}\n" for a, b in merges)
    Path(path).write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))


def main(recipe: Path, data: Path, out: Path, vocab_size: int = 16384) -> None:
    """Learn merges from every text that a recipe reads, and write them to `out`."""
    from distill.config import Recipe
    from distill.data.corpus import Corpus

    save_merges(train_merges(Corpus.read(Recipe.load(recipe), data).texts, vocab_size), out)


if __name__ == "__main__":
    import typer

    typer.run(main)

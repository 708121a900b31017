"""CLIP byte-pair encoding with the standard library and NumPy only.

The rules are those of OpenAI's CLIP tokenizer (Radford et al. 2021) as implemented in open_clip. The merges come from
the bundle, so one class handles OpenAI's 49,408 tokens and the smaller vocabularies trained here.

Equal to `open_clip.tokenizer.SimpleTokenizer`, token for token, with two exceptions:

- **Mojibake** ("cafÃ©") isn't repaired, see `mobileclip.text_repair`.
- **Letters newer than the interpreter.** Code points missing from Python's Unicode tables count as punctuation, where
  open_clip's newer tables may call them letters or numerals.
"""

import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import groupby
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from mobileclip.errors import BundleError, TextCutWarning
from mobileclip.lru import LruCache
from mobileclip.text_repair import clean

__all__ = ["Tokenizer", "pad_after_end", "split_words", "without_padding"]

_WORD_END = "</w>"
# open_clip reads these as the tokens themselves even if a user typed them, so they are here too.
_SPECIALS = ("<start_of_text>", "<end_of_text>")
_MAX_MERGES_BYTES = 64 * 2**20
_MAX_CACHED_WORDS = 50_000

# `\w` without the underscore is exactly the Unicode categories L and N; runs of anything else are one word. U+0345
# matches nothing: its capital is the letter iota, so open_clip, which ignores case, drops it.
_WORD = re.compile(rf"{'|'.join(_SPECIALS)}|'s|'t|'re|'ve|'m|'ll|'d|[^\W_]+|(?:[^\w\s\u0345]|_)+", re.IGNORECASE)


def _byte_symbols() -> list[str]:
    """The printable characters that represent the 256 bytes, in OpenAI's vocabulary order (not byte order)."""
    return [_SYMBOL_OF_BYTE[byte] for byte in _BYTES_IN_ORDER]


_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES_IN_ORDER = (*_PRINTABLE, *sorted(set(range(256)) - set(_PRINTABLE)))
_SYMBOL_OF_BYTE = {
    byte: chr(byte if place < len(_PRINTABLE) else 256 + place - len(_PRINTABLE))
    for place, byte in enumerate(_BYTES_IN_ORDER)
}


def split_words(text: str) -> list[str]:
    """Split clean text into the words to encode: contractions, runs of letters, single numerals, runs of the rest."""
    words: list[str] = []
    for word in _WORD.findall(text):
        if word.isalpha() or not word.isalnum():
            words.append(word)
            continue
        for is_letters, run in groupby(word, str.isalpha):
            characters = "".join(run)
            words.extend([characters] if is_letters else characters)
    return words


class Tokenizer:
    """Text to token ids and back.

    Ids are in OpenAI's order: 256 byte symbols, the same 256 at the end of a word, one per merge, the start token, the
    end token.

    Attributes:
        context_length: columns of a token matrix.
        vocab_size: number of ids, 512 + merges + 2.
        sot: id of the start token.
        eot: id of the end token, the largest id.
    """

    def __init__(self, merges: Sequence[tuple[str, str]], context_length: int = 77) -> None:
        """Build the vocabulary.

        Args:
            merges: pairs of symbols in the order of merging, spelled as in OpenAI's file.
            context_length: at least 2, for the start and end tokens.

        Raises:
            BundleError: a pair uses a symbol that no earlier pair makes.
        """
        if context_length < 2:
            raise ValueError(f"context_length must be at least 2, not {context_length}")
        self.context_length = context_length
        symbols = _byte_symbols()
        pieces = [bytes([byte]) for byte in _BYTES_IN_ORDER]
        self._ids = {symbol: i for i, symbol in enumerate([*symbols, *(s + _WORD_END for s in symbols)])}
        self._pieces = [*pieces, *(piece + b" " for piece in pieces)]
        for number, (left, right) in enumerate(merges, start=1):
            if left not in self._ids or right not in self._ids or left.endswith(_WORD_END):
                raise BundleError(f"merges: pair {number} ({left!r}, {right!r}) joins symbols that do not exist")
            self._pieces.append(self._pieces[self._ids[left]] + self._pieces[self._ids[right]])
            # Two pairs may make the same symbol; the later id wins, as in open_clip.
            self._ids[left + right] = len(self._pieces) - 1
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges)))}
        self._pieces.extend(mark.encode() for mark in _SPECIALS)
        self.vocab_size = len(self._pieces)
        self.sot, self.eot = self.vocab_size - 2, self.vocab_size - 1
        self._cache: LruCache[str, tuple[int, ...]] = LruCache(_MAX_CACHED_WORDS)

    @classmethod
    def load(cls, data: bytes, context_length: int = 77, max_merges: int | None = None) -> "Tokenizer":
        """Read a merges file.

        Args:
            data: `merges.txt`, plain or gzipped: UTF-8, one "left right" per line, at most one header line.
            context_length: columns of a token matrix.
            max_merges: use only the first `max_merges` pairs. OpenAI's file has more than its vocabulary uses (48,894).

        Raises:
            BundleError: it isn't a merges file.
        """
        try:
            if data[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                    data = file.read(_MAX_MERGES_BYTES + 1)
            if len(data) > _MAX_MERGES_BYTES:
                raise BundleError("merges: the file is too large")
            lines = data.decode("utf-8").split("\n")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise BundleError(f"merges: the file cannot be read ({error})") from None
        if lines[0].startswith(("#version", '"bpe_simple_vocab')):
            del lines[0]
        merges: list[tuple[str, str]] = []
        for number, line in enumerate(lines[:max_merges], start=1):
            parts = line.split()
            if len(parts) == 2:
                merges.append((parts[0], parts[1]))
            elif parts or number < len(lines):
                raise BundleError(f"merges: line {number} is not a pair of symbols")
        return cls(merges, context_length)

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Symbol, spelled as in the merges file, → its id; without the start and end tokens."""
        return MappingProxyType(self._ids)

    @property
    def merges(self) -> list[tuple[str, str]]:
        """Pairs of symbols in the order of merging, each once."""
        return sorted(self._ranks, key=self._ranks.__getitem__)

    def encode(self, text: str) -> list[int]:
        """Encode a text, without start and end tokens; never raises on a `str`."""
        ids: list[int] = []
        for word in split_words(clean(text)):
            found = self._cache.get(word)
            if found is None:
                found = self._encode_word(word)
                self._cache.put(word, found)
            ids.extend(found)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Turn token ids into text: lower case, a space after each word; invalid UTF-8 becomes U+FFFD.

        Raises:
            ValueError: an id outside 0 … vocab_size − 1.
        """
        pieces = []
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"token id {i} is outside 0 … {self.vocab_size - 1}")
            pieces.append(self._pieces[i])
        return b"".join(pieces).decode("utf-8", "replace")

    def __call__(self, texts: str | Sequence[str]) -> npt.NDArray[np.int32]:
        """Encode texts as a matrix, int32 (n, context_length): start token, ids, end token, zeros.

        A text that is too long loses its last ids, never its end token, and a `TextCutWarning` is issued.
        """
        longest, cut = self.context_length - 2, 0
        texts = [texts] if isinstance(texts, str) else texts
        tokens = np.zeros((len(texts), self.context_length), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            ids = self.encode(text)
            cut += len(ids) > longest
            row[: len(ids[:longest]) + 2] = [self.sot, *ids[:longest], self.eot]
        if cut:
            count = "a text was" if len(texts) == 1 else f"{cut} of {len(texts)} texts were"
            warnings.warn(f"{count} cut to the {longest} tokens that the model reads", TextCutWarning, stacklevel=2)
        return tokens

    def _encode_word(self, word: str) -> tuple[int, ...]:
        """Encode one word: merge every occurrence of the pair with the lowest rank until no pair has a rank.

        Uses a heap over a linked list, so that a hostile "word" of a megabyte takes seconds, not hours.
        """
        if word in _SPECIALS:
            return (self.sot + _SPECIALS.index(word),)
        symbols: list[str | None] = [_SYMBOL_OF_BYTE[byte] for byte in word.encode("utf-8")]
        symbols[-1] = f"{symbols[-1]}{_WORD_END}"
        following = list(range(1, len(symbols) + 1))
        previous = list(range(-1, len(symbols) - 1))

        def rank_at(place: int) -> int | None:
            left = symbols[place] if place >= 0 else None
            right = symbols[following[place]] if left is not None and following[place] < len(symbols) else None
            return None if left is None or right is None else self._ranks.get((left, right))

        heap = [(rank, place) for place in range(len(symbols)) if (rank := rank_at(place)) is not None]
        heapify(heap)
        while heap:
            lowest = heap[0][0]
            changed = []
            # All places of one rank, left to right, before any new pairs that they lead to.
            while heap and heap[0][0] == lowest:
                place = heappop(heap)[1]
                if rank_at(place) != lowest:
                    continue
                right = following[place]
                symbols[place] = f"{symbols[place]}{symbols[right]}"
                symbols[right] = None
                following[place] = following[right]
                if following[place] < len(symbols):
                    previous[following[place]] = place
                changed += [previous[place], place]
            for place in changed:
                if (rank := rank_at(place)) is not None:
                    heappush(heap, (rank, place))
        return tuple(self._ids[symbol] for symbol in symbols if symbol is not None)


def without_padding(tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Drop the columns in which every row is padding.

    Only for causal text towers, which ignore padding; in a bidirectional tower it changes every vector.

    Args:
        tokens: int32 (n, length), 0 is padding.

    Returns:
        int32 (n, shorter), a view.
    """
    used = np.flatnonzero((tokens != 0).any(axis=0))
    return tokens[:, : used[-1] + 1] if len(used) else tokens


def pad_after_end(tokens: npt.NDArray[np.int32], eot: int) -> npt.NDArray[np.int32]:
    """Replace everything after the first end token of each row by padding.

    Only a text in which somebody typed `<end_of_text>` has anything there. CLIP pools at the first end token (the
    highest id), and the towers here expect only one.

    Args:
        tokens: int32 (n, length).
        eot: id of the end token.

    Returns:
        int32 (n, length); a copy if something changed.
    """
    ends = tokens == eot
    after = (np.cumsum(ends, axis=1) - ends) > 0
    return np.where(after, np.int32(0), tokens) if (tokens[after] != 0).any() else tokens

"""CLIP byte-pair encoding with the standard library and NumPy only.

The rules are those of OpenAI's CLIP tokenizer (Radford et al., 2021) as open_clip runs them; the merges come
from the bundle, so one class serves OpenAI's 49,408 symbols and smaller vocabularies trained by us.

Equal to `open_clip.tokenizer.SimpleTokenizer`, token for token, with two exceptions:

- **Mojibake.** open_clip passes text through ftfy, which also guesses that "cafÃ©" was meant to be "café".
  That needs large statistical tables; here such text is read as it stands. The rest of ftfy's repairs (HTML
  entities, curly quotes, Latin ligatures, full-width forms, control characters, terminal colours, surrogates,
  NFC) is done.
- **Letters younger than the interpreter.** Code points that Python's own Unicode tables do not know yet count
  as punctuation, where open_clip's newer tables may call them letters or numerals.
"""

import gzip
import html
import html.entities
import io
import re
import unicodedata
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

__all__ = ["Tokenizer", "clean", "split_words", "up_to_end_mark", "without_padding"]

_WORD_END = "</w>"
# Users can type these too; open_clip reads them as the marks themselves, so the same must happen here.
_SPECIALS = ("<start_of_text>", "<end_of_text>")
_MAX_MERGES_BYTES = 64 * 2**20
_MAX_CACHED_WORDS = 50_000

# `\w` without the underscore is exactly the Unicode categories L and N; all other signs go together. U+0345
# alone matches nothing: its capital is the letter iota, and open_clip, ignoring case, drops it.
_WORD = re.compile(rf"{'|'.join(_SPECIALS)}|'s|'t|'re|'ve|'m|'ll|'d|[^\W_]+|(?:[^\w\s\u0345]|_)+", re.IGNORECASE)

_NEEDS_REPAIR = re.compile(r"[^\t\n\f\r -%'-~]")
_ENTITY = re.compile(r"&(#?[0-9A-Za-z]{1,24};)")
# "&amp;amp;amp;" ends as "&", whatever its depth; taken at once, a hostile depth costs nothing.
_DEEP_AMPERSAND = re.compile(r"&(?:(?:amp|AMP|#38);){2,}")
_LONG_REFERENCE = re.compile(r"&#[0-9]{500,};?")
_TERMINAL_COLOUR = re.compile(r"\x1b\[[\d;]*[A-Za-z]")


def _build_plain_forms() -> dict[int, str]:
    """Code point → the plain spelling that ftfy gives it."""
    # Some bytes have no meaning in Windows-1252; those controls stay what they are.
    plain = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(0x80, 0xA0)}
    for code in range(0xFF01, 0xFFF0):  # half- and full-width forms
        plain[code] = unicodedata.normalize("NFKC", chr(code))
    plain[0x3000] = " "
    for code in (0x132, 0x133, *range(0x1C4, 0x1CD), *range(0x1F1, 0x1F4), *range(0xFB00, 0xFB05), 0xFB06):
        plain[code] = unicodedata.normalize("NFKC", chr(code))  # digraphs and ligatures of Latin letters
    plain[0x149] = "'n"
    plain[0xFB05] = "ſt"
    plain.update(dict.fromkeys((0x2BC, *range(0x2018, 0x201C)), "'"))
    plain.update(dict.fromkeys(range(0x201C, 0x2020), '"'))
    plain.update(dict.fromkeys((0x2028, 0x2029), "\n"))
    return plain


_PLAIN_FORMS = _build_plain_forms()
_UNWANTED: dict[int, None] = dict.fromkeys(
    (*range(0x09), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD))
)


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes in OpenAI's vocabulary order, which is not byte order."""
    return [_SYMBOL_OF_BYTE[byte] for byte in _BYTES_IN_ORDER]


_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES_IN_ORDER = (*_PRINTABLE, *sorted(set(range(256)) - set(_PRINTABLE)))
_SYMBOL_OF_BYTE = {
    byte: chr(byte if place < len(_PRINTABLE) else 256 + place - len(_PRINTABLE))
    for place, byte in enumerate(_BYTES_IN_ORDER)
}


def _named_character(match: re.Match[str]) -> str:
    """One `&name;` or `&#number;` as its character, or unchanged where it is none."""
    name = match[1]
    if name.startswith("#"):
        character = html.unescape(match[0])
        return match[0] if ";" in character else character
    if name in html.entities.html5:
        return html.entities.html5[name]
    # Shouted entities: an upper-cased caption may carry &EACUTE;
    quiet = html.entities.html5.get(name.lower())
    if quiet is None or name != name.upper() or html.unescape(match[0]) != match[0]:
        return match[0]
    return quiet.upper()


def _repair_line(line: str, unescape: bool) -> str:
    """ftfy's character repairs on one line, repeated until nothing changes."""
    while True:
        before = line
        if unescape:
            line = _ENTITY.sub(_named_character, _DEEP_AMPERSAND.sub("&amp;", line))
        line = line.translate(_PLAIN_FORMS)
        # Joins surrogate pairs; a lone half becomes U+FFFD.
        line = line.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        line = _TERMINAL_COLOUR.sub("", line).translate(_UNWANTED)
        line = unicodedata.normalize("NFC", line)
        if line == before:
            return line


def _repair(text: str) -> str:
    """All lines repaired. From the first line with a `<` on, text is markup and its entities stay for now."""
    if not _NEEDS_REPAIR.search(text):
        return text
    lines = []
    unescape = True
    for line in text.split("\n"):
        unescape = unescape and "<" not in line
        lines.append(_repair_line(line, unescape))
    return "\n".join(lines)


def _unescape(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # a number with more digits than Python agrees to read
        return html.unescape(_LONG_REFERENCE.sub("\ufffd", text))


def clean(text: str) -> str:
    """Repaired, HTML-unescaped, lower-case text with single spaces: what the byte-pair encoding sees."""
    text = _unescape(_unescape(_repair(text)))
    return " ".join(text.split()).lower()


def split_words(text: str) -> list[str]:
    """Clean text in the words to encode apart: contractions, letters, single numerals, runs of the rest."""
    words: list[str] = []
    for word in _WORD.findall(text):
        if word.isalpha() or not word.isalnum():
            words.append(word)
            continue
        for is_letters, run in groupby(word, str.isalpha):
            signs = "".join(run)
            words.extend([signs] if is_letters else signs)
    return words


class Tokenizer:
    """Text to token ids and back.

    Ids are in OpenAI's order: 256 byte symbols, the same 256 at the end of a word, one per merge, the start
    mark, the end mark.

    Attributes:
        context_length: columns of a token matrix.
        vocab_size: number of ids, 512 + merges + 2.
        sot: id of the start mark.
        eot: id of the end mark, the largest of all.
    """

    def __init__(self, merges: Sequence[tuple[str, str]], context_length: int = 77) -> None:
        """Build the vocabulary.

        Args:
            merges: pairs of symbols, the first to be merged first, spelt as in OpenAI's file.
            context_length: at least 2, for the two marks.

        Raises:
            BundleError: a pair uses a symbol that nothing before it has made.
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
            # Two pairs may spell one symbol; the later id wins, as in open_clip.
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
            max_merges: use only the first so many (48,894 of OpenAI's file make its 49,408 ids).

        Raises:
            BundleError: not such a file.
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
        """Symbol, spelt as in the merges file, → its id; the two marks are not among them."""
        return MappingProxyType(self._ids)

    def encode(self, text: str) -> list[int]:
        """Ids of any text, without the start and end marks; never raises on a `str`."""
        ids: list[int] = []
        for word in split_words(clean(text)):
            found = self._cache.get(word)
            if found is None:
                found = self._encode_word(word)
                self._cache.put(word, found)
            ids.extend(found)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids: lower case, a space after each word; broken UTF-8 becomes U+FFFD.

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
        """Token matrix, int32 (n, context_length): start mark, ids, end mark, zeros.

        A text that is too long loses its last ids, never its end mark, and a `TextCutWarning` says so.
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
        """Byte-pair encode one word: merge the pair of lowest rank, everywhere, until no pair has a rank.

        A heap over a linked list, so that a hostile "word" of a megabyte takes seconds, not hours.
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
            # All places of one rank before any pair that they bring about, left to right.
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

    Only for causal text towers, which never look at those: in a bidirectional one padding changes every vector.

    Args:
        tokens: int32 (n, length), 0 is padding.

    Returns:
        int32 (n, shorter), a view.
    """
    used = np.flatnonzero((tokens != 0).any(axis=0))
    return tokens[:, : used[-1] + 1] if len(used) else tokens


def up_to_end_mark(tokens: npt.NDArray[np.int32], eot: int) -> npt.NDArray[np.int32]:
    """Make padding of all that follows the first end mark of each row.

    Only a text in which somebody typed the mark has anything there. CLIP reads a text up to its first end mark (it
    pools at the highest id); our towers expect a single mark.

    Args:
        tokens: int32 (n, length).
        eot: id of the end mark.

    Returns:
        int32 (n, length), a copy where something changed.
    """
    ends = tokens == eot
    after = (np.cumsum(ends, axis=1) - ends) > 0
    return np.where(after, np.int32(0), tokens) if (tokens[after] != 0).any() else tokens

"""Text repaired as ftfy repairs it, for the tokenizer: the same input as in CLIP's training, without ftfy.

HTML entities, curly quotes, Latin ligatures, full-width forms, control characters, terminal colors, surrogates and
NFC are handled as in ftfy 6. One repair is missing: ftfy also guesses that "cafÃ©" was meant to be "café" (mojibake),
which needs large statistical tables. Such text is left as it is.
"""

import html
import html.entities
import re
import unicodedata

__all__ = ["clean"]

_NEEDS_REPAIR = re.compile(r"[^\t\n\f\r -%'-~]")
_ENTITY = re.compile(r"&(#?[0-9A-Za-z]{1,24};)")
# "&amp;amp;amp;" becomes "&" at any depth. All levels in one step, so that hostile depths cost nothing.
_DEEP_AMPERSAND = re.compile(r"&(?:(?:amp|AMP|#38);){2,}")
_LONG_REFERENCE = re.compile(r"&#[0-9]{500,};?")
_TERMINAL_COLOR = re.compile(r"\x1b\[[\d;]*[A-Za-z]")


def _build_plain_forms() -> dict[int, str]:
    """Code point → ftfy's plain spelling."""
    # Some bytes have no meaning in Windows-1252; those control characters stay as they are.
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


def _named_character(match: re.Match[str]) -> str:
    """The character that `&name;` or `&#number;` stands for; unchanged if it isn't an entity."""
    name = match[1]
    if name.startswith("#"):
        character = html.unescape(match[0])
        return match[0] if ";" in character else character
    if name in html.entities.html5:
        return html.entities.html5[name]
    # A caption in capitals may contain &EACUTE;
    lower = html.entities.html5.get(name.lower())
    if lower is None or name != name.upper() or html.unescape(match[0]) != match[0]:
        return match[0]
    return lower.upper()


def _repair_line(line: str, unescape: bool) -> str:
    """Apply ftfy's character repairs to one line until nothing changes."""
    while True:
        before = line
        if unescape:
            line = _ENTITY.sub(_named_character, _DEEP_AMPERSAND.sub("&amp;", line))
        line = line.translate(_PLAIN_FORMS)
        # Joins surrogate pairs; a lone half becomes U+FFFD.
        line = line.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        line = _TERMINAL_COLOR.sub("", line).translate(_UNWANTED)
        line = unicodedata.normalize("NFC", line)
        if line == before:
            return line


def _repair(text: str) -> str:
    """Repair all lines. From the first line with a `<`, the text counts as markup, and entities stay for now."""
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
    except ValueError:  # more digits than Python converts
        return html.unescape(_LONG_REFERENCE.sub("\ufffd", text))


def clean(text: str) -> str:
    """Repair and unescape a text, in lower case with single spaces: the input of byte-pair encoding."""
    text = _unescape(_unescape(_repair(text)))
    return " ".join(text.split()).lower()

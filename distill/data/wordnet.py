"""English nouns from WordNet's own data files (Miller 1995; the Debian package `wordnet-base` has them)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobileclip.errors import PocketclipError


def nouns(folder: Path) -> list[str]:
    """Return noun lemmas in lower case, the most often sense-tagged first, then alphabetically.

    Proper names, which WordNet writes with capitals in `data.noun`, are left in: places and dog breeds are among
    what people search for. Reads `index.noun` and, for the counts, `cntlist.rev`.

    Raises:
        PocketclipError: the folder does not hold WordNet's files.
    """
    try:
        lines = (folder / "index.noun").read_text("latin-1").splitlines()
        counts_text = (folder / "cntlist.rev").read_text("latin-1")
    except OSError as error:
        raise PocketclipError(f"{folder}: no WordNet data files ({error.strerror}); install wordnet-base") from error
    counts: dict[str, int] = {}
    for line in counts_text.splitlines():
        # sense_key sense_number tag_count, where the key is lemma%type:… and type 1 is a noun.
        key, _, count = line.split()
        lemma, _, kind = key.partition("%")
        if kind.startswith("1:"):
            counts[lemma] = counts.get(lemma, 0) + int(count)
    lemmas = [line.split(" ", 1)[0] for line in lines if line and not line.startswith(" ")]
    ordered = sorted(lemmas, key=lambda lemma: (-counts.get(lemma, 0), lemma))
    return [lemma.replace("_", " ") for lemma in ordered if any(c.isalpha() for c in lemma)]


def plurals(words: Sequence[str]) -> list[str]:
    """Return each noun's plural, as English spells it; those that are plurals already stay."""
    import inflect

    spelling = inflect.engine()
    # `singular_noun` says False of what is no plural.
    return [word if spelling.singular_noun(word) else spelling.plural_noun(word) for word in words]

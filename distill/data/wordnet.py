"""English nouns from WordNet's data files (Miller 1995), which the Debian package `wordnet-base` contains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike


def nouns(folder: PathLike) -> list[str]:
    """Return noun lemmas in lower case, the most frequently sense-tagged first, then in alphabetical order.

    Proper names, which WordNet capitalizes in `data.noun`, are included: people search for places and dog breeds.
    Reads `index.noun` and, for the counts, `cntlist.rev`.

    Raises:
        PocketclipError: the folder doesn't contain WordNet's files.
    """
    folder = Path(folder)
    try:
        lines = (folder / "index.noun").read_text("latin-1").splitlines()
        counts_text = (folder / "cntlist.rev").read_text("latin-1")
    except OSError as error:
        raise PocketclipError(f"{folder}: no WordNet data files ({error.strerror}); install wordnet-base") from error
    counts: dict[str, int] = {}
    for line in counts_text.splitlines():
        # sense_key sense_number tag_count; the key is lemma%type:…, and type 1 is a noun.
        key, _, count = line.split()
        lemma, _, kind = key.partition("%")
        if kind.startswith("1:"):
            counts[lemma] = counts.get(lemma, 0) + int(count)
    lemmas = [line.split(" ", 1)[0] for line in lines if line and not line.startswith(" ")]
    ordered = sorted(lemmas, key=lambda lemma: (-counts.get(lemma, 0), lemma))
    return [lemma.replace("_", " ") for lemma in ordered if any(c.isalpha() for c in lemma)]


def plurals(words: Sequence[str]) -> list[str]:
    """Return the plural of each noun; words that are already plural stay the same."""
    import inflect

    spelling = inflect.engine()
    # `singular_noun` returns False for a word that isn't plural.
    return [word if spelling.singular_noun(word) else spelling.plural_noun(word) for word in words]

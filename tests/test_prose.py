"""The words of CONTRIBUTING.md hold: phrases that we avoid don't come back, and new spelling is American."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

AVOIDED = {
    r"(?<!there )\bis no (?!longer\b|more\b|different\b|less\b|such\b|worse\b)": "isn't a …",
    r"\banew\b": "again",
    r"\bfor ever\b": "permanently",
    r"\bof late\b": "recently",
    r"\b(one|a caption|an object|a word|a label|a file|a photo) a line\b": "one per line",
    r"\bwhat is no number\b|\bis not? (a )?number\b.{0,20}\bvector\b": "NaN or infinity",
    r"\bleaves? (it |one |them )?away\b": "drop, leave out",
    r"\blet(s|ting)? go( of)?\b": "remove, release",
    r"\btrunk(s)? at rest\b|\brests\b": "frozen trunk",
    r"\bto be (seen|had)\b": "visible, available",
    r"\bstands? (on|at|beside|in for)\b": "is on top of, is next to",
    r"\bdivided off\b": "shown separately",
    r"\bas often as you like\b|\bas many .{0,20}as one likes\b": "any number of times",
    r"\bsaid as\b": "given as",
    r"\bgoes on (with|after|from|where)\b": "continues, resumes",
    r"\bbrought nothing\b": "made no difference",
    r"\bin a process of its own\b": "in a separate process",
    r"\bwhat is not there\b|\bis there twice\b": "is missing, is defined twice",
    r"\bbeside it\b": "next to it",
    r"\bhow (near|far|good) .{0,30}\bmay lie\b": "how close … may be",
    r"\bin a (moment|while) of its own\b": "separately",
    r"\bone another out\b": "each other out",
    r"\bas ever\b": "as usual",
    r"\bwhatever (it|they|that) (is|was|are)\b": "of any kind",
    r"\btaken? back\b": "undo",
    r"\b(colours?|coloured|grey|greyscale|neighbours?|neighbouring|catalogues?)\b": "US spelling",
    # `licence` is a key of recipes, manifests and checkpoints.
    r"(?<![\"'`.{])\blicences?\b(?![\"'`]| ?=|: str)": "license",
    r"\b(behaviours?|labelled|labelling|cancelled|travell(ed|ing)|judgement)\b": "US spelling",
    r"\b(normali|recogni|initiali|organi|quanti|seriali)s(e|es|ed|ing|ation)\b": "US spelling",
    r"\b(optimi|minimi|maximi|summari)s(e|es|ed|ing|ation)\b": "US spelling",
    r"\b(centre|centres|centred|distils|modelled|analyse|analysed|artefacts?|favourites?|honour)\b": "US spelling",
}
"""Patterns, with what to write instead. Phrases that read like a translation, mostly."""

ALLOWED = (
    "`colour`",  # the changelog names the old key
    "DRIVING LICENCE",  # drawn into training pictures
    "centred|",  # part of the digest that names cached files
    "normalised: bool",  # a key of a file format, as is the next
    ".normalised",
    'without = ["colour"]',  # a misspelled name, on purpose, as is the next
    "no photos 'colour'",
)
"""Lines with one of these are left out."""

SUFFIXES = {".py", ".md", ".kv", ".html", ".toml", ".cfg", ".yml", ".yaml"}
DATA = {"labels.toml", "catalog.toml", "test_prose.py", "CONTRIBUTING.md"}
"""Prompts, names that others chose, and the lists themselves."""


def texts() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    paths = [REPOSITORY / name for name in listed.splitlines()]
    chosen = [path for path in paths if path.suffix in SUFFIXES and path.name not in DATA and path.is_file()]
    return {str(path.relative_to(REPOSITORY)): path.read_text("utf-8") for path in chosen}


@pytest.mark.parametrize("pattern", AVOIDED)
def test_an_avoided_phrase_does_not_come_back(pattern: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line, re.IGNORECASE) and not any(allowed in line for allowed in ALLOWED)
    ]
    assert not found, f"write {AVOIDED[pattern]!r} instead:\n" + "\n".join(found)


def test_the_list_finds_what_it_is_for() -> None:
    for sentence in (
        "this is no bundle",
        "read anew",
        "your word wins for ever",
        "one a line",
        "the trunk at rest",
        "grey photos",
        "a normalised vector",
    ):
        assert any(re.search(pattern, sentence, re.IGNORECASE) for pattern in AVOIDED), sentence
    for sentence in ("it is no longer there", "there is no photo here"[:8], "normalized", "the head is on top"):
        assert not any(re.search(pattern, sentence, re.IGNORECASE) for pattern in AVOIDED), sentence


def test_contributing_lists_every_avoided_phrase_group() -> None:
    """A contributor reads the list before the test does."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    for phrase in (
        "anew",
        "for ever",
        "of late",
        "one a line",
        "leave away",
        "let go",
        "at rest",
        "stands on",
        "is no X",
    ):
        assert phrase in text, phrase

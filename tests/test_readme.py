"""The commands in the guides exist, with their options, and those that need no data and no network run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli.main import app

REPOSITORY = Path(__file__).parents[1]
RECIPES = sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("distill/recipes/*/README.md"))
GUIDES = ("README.md", "distill/README.md", "export/README.md", "export/mobile.md", *RECIPES)
PREFIXES = ("pocketclip ", "make ")


def commands(prefix: str) -> list[tuple[str, str]]:
    """Find the lines of fenced blocks that start with `prefix`, as pairs of guide and command line."""
    found = []
    for guide in GUIDES:
        for block in re.findall(
            r"^```\w*\n(.*?)^```", (REPOSITORY / guide).read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            for line in block.replace("\\\n", " ").splitlines():
                line = re.sub(r"^\$ |^\.venv/bin/", "", re.sub(r"^\$ ", "", line.strip()))
                if f"{line} ".startswith(prefix):
                    found.append((guide, line))
    return found


def words(line: str) -> list[str]:
    """Split the first command of a line, without comments, pipes and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>&;")
    lexer.whitespace_split = True
    found = []
    for word in lexer:
        if word[0] in "|>&;":
            break
        found.append(word)
    return found


def parse(arguments: list[str]) -> None:
    """Parse a command line without running it.

    Raises:
        typer.BadParameter: or another usage error, except for files that don't exist here.
    """
    command: Any = typer.main.get_command(app)
    parent = None
    name = "pocketclip"
    while True:
        try:
            context = command.make_context(name, arguments, parent=parent)
        except typer.BadParameter as error:
            if "does not exist" in str(error):
                return
            raise
        if not hasattr(command, "resolve_command"):
            return
        arguments = [*context._protected_args, *context.args]
        if not arguments:
            return
        parent = context
        name, command, arguments = command.resolve_command(context, arguments)


def test_the_guides_have_commands() -> None:
    assert len(commands("pocketclip ")) >= 15
    assert {"make run", "make test"} <= {" ".join(words(line)[:2]) for _, line in commands("make ")}


@pytest.mark.parametrize(("guide", "line"), commands("pocketclip "))
def test_a_command_parses(guide: str, line: str) -> None:
    parse(words(line)[1:])


def test_wrong_commands_do_not_parse() -> None:
    for wrong in (
        "no-such-command",
        "index --no-such-option x",
        "search a --top 0",
        "models pull",
        "train r.toml --no-such 1",
    ):
        with pytest.raises(Exception) as caught:
            parse(wrong.split())
        assert hasattr(caught.value, "exit_code") and caught.value.exit_code == 2, wrong


@pytest.mark.parametrize(("guide", "line"), commands("make "))
def test_a_make_target_exists(guide: str, line: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = [word for word in words(line)[1:] if "=" not in word and not word.startswith("-")]
    assert set(named) <= targets


RUNNABLE = {"labels", "status", "models"}


@pytest.mark.parametrize("line", sorted({line for _, line in commands("pocketclip ") if words(line)[1] in RUNNABLE}))
def test_a_command_runs_without_data_and_network(line: str, tmp_path: Path) -> None:
    arguments = words(line)[1:]
    if "pull" in arguments:
        pytest.skip("needs a network")
    if "--model" in arguments or "-m" in arguments:
        pytest.skip("names a model that only the reader has")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "POCKETCLIP_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "app", *arguments]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: nothing is indexed yet
    assert "Traceback" not in done.stderr

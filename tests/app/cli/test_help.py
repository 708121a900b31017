"""The help of all commands in an emulated light install, shell completion, and a full disk behind stdout."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli.plugins import COMMANDS, MODELS, SUMMARIES
from tests.app.cli.conftest import BUNDLE, REPOSITORY, CommandLine

WALK = """
import contextlib, io, json, sys

HEAVY = {
    "torch", "torchvision", "timm", "open_clip", "transformers", "tokenizers", "sentence_transformers", "safetensors",
    "onnx", "onnxscript", "ai_edge_litert", "litert_torch", "coremltools", "kivy", "huggingface_hub", "matplotlib",
    "jinja2", "markupsafe", "tensorboard", "webdataset", "inflect", "filelock", "segno", "sklearn", "skimage",
}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"{name} isn't part of the light install", name=name)

sys.meta_path.insert(0, Blocker())
import typer
from app.cli.main import app

def walk(group, context, path):
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        options = {
            parameter.opts[0]: parameter.metavar
            for parameter in command.get_params(inner)
            if parameter.param_type_name == "option" and not parameter.is_flag
        }
        pages[" ".join([*path, name])] = page([*path, name]) | {"options": options}
        if hasattr(command, "list_commands"):
            walk(command, inner, [*path, name])

def page(path):
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            root.main([*path, "--help"], prog_name="pocketclip")
        except SystemExit as ended:
            code = ended.code
    return {"code": code, "text": out.getvalue()}

root = typer.main.get_command(app)
pages = {"": page([]) | {"options": {}}}
walk(root, root.make_context("pocketclip", [], resilient_parsing=True), [])
print(json.dumps(pages))
"""


@pytest.fixture(scope="module")
def pages() -> Mapping[str, Mapping[str, Any]]:
    """Command → its exit code, text and metavars of options."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "160", "TERM": "dumb"}
    command = [sys.executable, "-c", WALK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def test_every_command_has_help_in_the_light_install(pages: Mapping[str, Mapping[str, Any]]) -> None:
    assert {"index", "gallery", "corrections export", "models pull", "models show", "train", "report"} <= set(pages)
    assert {f"models {entry.name}" for entry in entry_points(group=MODELS)} <= set(pages)
    assert {entry.name for entry in entry_points(group=COMMANDS)} <= set(pages)
    for name, page in pages.items():
        assert page["code"] == 0, (name, page)


def test_every_help_has_an_example_and_no_doubled_blank_lines(pages: Mapping[str, Mapping[str, Any]]) -> None:
    for name, page in pages.items():
        lines = [line.strip() for line in page["text"].strip().splitlines()]
        assert any(re.match(r"Examples?$", line) for line in lines), name
        assert any(line.startswith(f"pocketclip {name}".strip()) for line in lines), name
        assert not any(not first and not second for first, second in pairwise(lines)), name


def test_placeholders_have_one_style(pages: Mapping[str, Mapping[str, Any]]) -> None:
    """Capitals, `...` for repeated arguments, brackets for optional ones."""
    for name, page in pages.items():
        (usage,) = re.findall(r"Usage: (.*?) *\n", page["text"])
        assert re.fullmatch(rf"pocketclip ?{name} \[OPTIONS\]( \[?[A-Z]+( \[ARGS\])?\]?(\.\.\.)?)*", usage), usage
        assert not re.search(r"<\w+", page["text"].replace("<NAME>", "")), name
        for option, metavar in page["options"].items():
            assert metavar and metavar == metavar.upper(), (name, option, metavar)


def test_brackets_are_literal(pages: Mapping[str, Mapping[str, Any]]) -> None:
    assert "[[photos]]" in pages["corrections export"]["text"]
    assert "'pocketclip[ui]'" in pages["gallery"]["text"]


def test_summaries_are_the_first_lines_of_the_docstrings() -> None:
    entries = {entry.name: entry for group in (COMMANDS, MODELS) for entry in entry_points(group=group)}
    assert set(SUMMARIES) <= set(entries)
    for name, summary in SUMMARIES.items():
        loaded = entries[name].load()
        command = loaded.registered_callback.callback if isinstance(loaded, typer.Typer) else loaded
        assert (command.__doc__ or "").partition("\n")[0] == summary


def test_exit_codes_are_documented(pages: Mapping[str, Mapping[str, Any]]) -> None:
    text = " ".join(pages[""]["text"].split())
    assert "Exit codes:" in text
    for code in (0, 1, 2, 3, 4, 130, 141):
        assert re.search(rf"[:·] {code} [a-z]", text), code


def test_help_takes_hardly_longer_than_its_libraries(cli: CommandLine) -> None:
    def seconds(run: Any) -> float:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        return min(times)

    bare = [sys.executable, "-c", "import typer.rich_utils"]
    assert seconds(lambda: cli("--help")) < 4 * seconds(lambda: subprocess.run(bare, check=True))


COMPLETIONS = [
    ("pocketclip tr", "train"),
    ("pocketclip models pu", "pull"),
    ("pocketclip search --sub", "--subtract"),
    ("pocketclip train --da", "--data"),
]


@pytest.mark.parametrize(("typed", "offered"), COMPLETIONS)
def test_shell_completion(typed: str, offered: str) -> None:
    done = run_as_installed(
        _POCKETCLIP_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1)
    )
    assert done.stdout.split() == [offered], done.stderr


def test_the_completion_script_can_be_shown() -> None:
    done = run_as_installed("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0 and "_POCKETCLIP_COMPLETE" in done.stdout


def run_as_installed(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command under its installed name, which completion depends on."""
    program = "import sys; sys.argv[0] = 'pocketclip'; from app.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models"], ["labels", "--model", BUNDLE]])
def test_a_full_stdout_is_one_line(cli: CommandLine, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = cli(*arguments, stdout=full)
    assert result.code == 4 and result.err == "pocketclip: No space left on device\n"


def test_a_missing_file_is_named_once(cli: CommandLine) -> None:
    cli.environment = {"POCKETCLIP_GUARD_ALLOW": "distill", "COLUMNS": "160"}
    result = cli("train", "no-such-recipe.toml")
    assert result.code == 2 and result.err.count("no-such-recipe.toml") == 1 and "Errno" not in result.err

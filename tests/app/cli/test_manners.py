"""Data on stdout, messages on stderr, and an exit code for every outcome."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.app.cli.conftest import BUNDLE, GUARD, CommandLine


def test_help_is_quick_grouped_and_has_examples(cli: CommandLine) -> None:
    started = time.perf_counter()
    shown = cli("--help")
    # Much more than the goal of half a second, because test machines are busy; the benchmark measures it.
    assert time.perf_counter() - started < 5
    text = shown.out.decode()
    assert shown.code == 0 and "Gallery" in text and 'pocketclip search "two dogs on a beach"' in text
    for command in ("index", "search", "tag", "labels", "status", "models"):
        assert command in text
        assert "pocketclip" in cli(command, "-h").out.decode()


def test_help_except_for_examples_wraps_at_the_width_of_the_terminal(cli: CommandLine) -> None:
    text = cli("search", "--help").out.decode()
    paragraph = text[text.index("Strong matches") : text.index("Examples")].strip().splitlines()
    assert len(paragraph) > 1 and all(len(line.strip()) > 60 for line in paragraph[:-1])
    assert sum(line.strip().startswith("pocketclip search") for line in text.splitlines()) >= 2


def test_version(cli: CommandLine) -> None:
    assert re.match(rb"pocketclip", cli("--version").out)


@pytest.mark.parametrize(
    "arguments",
    [
        ["index"],
        ["index", "/no/such/folder"],
        ["index", __file__],
        ["search"],
        ["search", ""],
        ["search", "cat", "-t", "0"],
        ["search", "./no-such.jpg"],
        ["search", "0:cat"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_is_2(cli: CommandLine, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert not cli.home.exists()
    assert result.code == 2 and result.out == b"" and "Traceback" not in result.err


@pytest.mark.parametrize("arguments", [["search", "cat"], ["tag"], ["status"], ["tag", "--json"]])
def test_nothing_indexed_is_1_and_writes_no_file(cli: CommandLine, arguments: list[str]) -> None:
    more = [] if arguments[0] == "status" else ["--model", BUNDLE]
    result = cli(*arguments, *more)
    assert result.code == 1 and "pocketclip index" in result.err and len(result.lines) == 1
    assert not cli.home.exists()


def test_a_folder_without_photos_is_1(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.index(tmp_path / "empty").code == 1


def test_trouble_is_4_in_one_line(cli: CommandLine, photos: Path, tmp_path: Path) -> None:
    assert_one_line(cli("index", photos, "--model", "no-such-model"))
    (tmp_path / "file").write_text("in the way")
    cli.home = tmp_path / "file" / "home"
    assert_one_line(cli.index(photos))
    cli.home = photos
    assert_one_line(cli.index(photos))
    assert not list(photos.glob("index*"))
    cli.home = tmp_path / "garbage"
    cli.home.mkdir()
    (cli.home / "index.db").write_bytes(b"not a database" * 1000)
    assert_one_line(cli.index(photos))
    assert_one_line(cli.search("cat"))


def assert_one_line(result) -> None:
    assert result.code == 4 and len(result.lines) == 1 and result.out == b"", result.err
    assert result.err.startswith("pocketclip: ")


def test_quiet_prints_nothing(cli: CommandLine, photos: Path) -> None:
    result = cli.index(photos, "--quiet")
    assert (result.code, result.out, result.err) == (0, b"", "")


def test_a_closed_pipe_ends_quietly(cli: CommandLine, photos: Path) -> None:
    cli.index(photos)
    for arguments in (["tag"], ["search", "cat"], ["search", "cat", "--json"]):
        process = cli.popen(*arguments, "--model", BUNDLE)
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 141 and err == b""
        process.stderr.close()


def on_a_terminal(cli: CommandLine, *arguments: str | Path, **environment: str) -> bytes:
    """Run a command with a terminal as its stderr, and return what it writes there."""
    ours, theirs = pty.openpty()
    cli.environment = {"TERM": "xterm", **environment}
    process = cli.popen(*arguments, "--model", BUNDLE, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    output = b""
    while True:
        if not select.select([ours], [], [], 120)[0]:
            process.kill()
            raise TimeoutError
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        output += part
    process.wait()
    os.close(ours)
    return output


def test_progress_is_shown_only_on_a_terminal(cli: CommandLine, photos: Path, tmp_path: Path) -> None:
    assert "Indexing" not in cli.index(photos).err
    for number, (more, environment, shown) in enumerate(
        [([], {}, True), (["--quiet"], {}, False), ([], {"TERM": "dumb"}, False)]
    ):
        cli.home = tmp_path / f"home{number}"
        assert (b"photos" in (output := on_a_terminal(cli, "index", photos, *more, **environment))) or not shown
        assert (b"\x1b[" in output) == shown


def test_no_color_turns_colors_off(cli: CommandLine, photos: Path) -> None:
    output = on_a_terminal(cli, "index", photos, NO_COLOR="1")
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", output)


def test_the_guard_works(cli: CommandLine) -> None:
    environment = os.environ | {"PYTHONPATH": str(GUARD), "POCKETCLIP_GUARD_LOG": str(cli.log)}
    attempts = {
        "import socket; socket.create_connection(('127.0.0.1', 9), 0.1)": "socket.",
        "import socket; socket.getaddrinfo('localhost', 80)": "socket.getaddrinfo",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')": "socket.",
        "try:\n import torch\nexcept BaseException: pass": "import torch",
    }
    for code, offense in attempts.items():
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
        assert offense in cli.log.read_text()
        cli.log.unlink()
    subprocess.run([sys.executable, "-c", "print()"], env=environment, capture_output=True, check=True)
    assert not cli.log.exists()


@pytest.fixture
def plugins(tmp_path: Path, cli: CommandLine) -> Path:
    """Commands of another package: one that works, one that can't be imported, and a group."""
    folder = tmp_path / "site"
    info = folder / "demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[pocketclip.commands]\ndemo-good = demo_good:run\ndemo-broken = demo_broken.inner:run\n"
        "demo-group = demo_group:commands\n"
    )
    (folder / "demo_good.py").write_text(
        f"open({str(tmp_path / 'loaded')!r}, 'w')\n"
        "def run(count: int = 1) -> None:\n    '''Do something good.\n\n    More.\n    '''\n    print('good' * count)\n"
    )
    (folder / "demo_group.py").write_text(
        "import typer\nfrom mobileclip.errors import PocketclipError\ncommands = typer.Typer()\n"
        "@commands.callback()\ndef _all() -> None:\n    '''Do several things.'''\n"
        "@commands.command()\ndef works() -> None:\n    print('done')\n"
        "@commands.command()\ndef fails() -> None:\n    raise PocketclipError('it failed')\n"
    )
    (folder / "demo_broken").mkdir()
    (folder / "demo_broken" / "inner.py").write_text(
        "import no_such_library\ndef run() -> None:\n    '''Never runs.'''\n"
    )
    repository = Path(__file__).parents[3]
    cli.environment = {"PYTHONPATH": os.pathsep.join(map(str, (GUARD, folder, repository)))}
    return tmp_path


def test_commands_of_other_packages_are_listed_without_loading_them(cli: CommandLine, plugins: Path) -> None:
    text = cli("--help").out.decode()
    for name in ("demo-good", "demo-broken", "demo-group"):
        assert re.search(rf"{name}\s+From another package\.", text)
    assert "Workstation" in text
    assert not (plugins / "loaded").exists()


def test_a_command_of_another_package_runs(cli: CommandLine, plugins: Path) -> None:
    assert cli("demo-good", "--count", "2").out == b"goodgood\n"
    assert (plugins / "loaded").exists()


def test_a_group_of_commands_of_another_package_runs(cli: CommandLine, plugins: Path) -> None:
    assert cli("demo-group", "works").out == b"done\n"
    assert "Do several things." in cli("demo-group", "-h").out.decode()
    failed = cli("demo-group", "fails")
    assert failed.code == 4 and failed.lines == ["pocketclip: it failed"]


def test_a_broken_command_does_not_affect_others(cli: CommandLine, plugins: Path) -> None:
    assert cli("models").code in (0, 1)
    for arguments in (["demo-broken"], ["demo-broken", "--anything", "x"], ["demo-broken", "--help"]):
        broken = cli(*arguments)
        assert broken.code == 4 and len(broken.lines) == 1 and "no_such_library" in broken.err

"""Files and folders that appear as a whole or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mobileclip.files import atomic_write, new_folder, write_bytes


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as part:
        part.write_bytes(b"half of the new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == ["file"]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "below" / "folder"
    with new_folder(path) as part:
        (part / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1" and names(path.parent) == ["folder"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "folder") as part:
        (part / "a").write_text("1")
        raise RuntimeError
    assert names(tmp_path) == []


def test_an_empty_folder_is_replaced_and_another_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as part:
        (part / "a").touch()
    assert names(tmp_path / "empty") == ["a"]
    with pytest.raises(OSError), new_folder(tmp_path / "empty") as part:
        (part / "b").touch()
    assert names(tmp_path / "empty") == ["a"] and names(tmp_path) == ["empty"]


def test_a_killed_process_leaves_no_half_folder(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from mobileclip.files import new_folder\n"
        "with new_folder(sys.argv[1]) as part:\n"
        "    (part / 'a').write_text('1')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "folder")])
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "folder").exists()
    with new_folder(tmp_path / "folder") as part:
        (part / "b").touch()
    assert names(tmp_path / "folder") == ["b"]

"""`pocketclip train` opens everything that a recipe names before anything long starts."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distill.config import Recipe
from distill.data.corpus import Corpus
from distill.data.tables import DataError

WRONG = ("--set", 'validate.captions="shapes/none.jsonl"', "--set", 'init="nowhere_at_all:x.pth"')


def train(recipe_folder: Path, data: Path, out: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app", "train", str(recipe_folder / "recipe.toml"), "--data", str(data)]
    command += ["--out", str(out), "--workers", "0", *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment})


def test_every_problem_is_a_line_and_nothing_is_written(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    run = train(recipe_folder, data, tmp_path / "run", *WRONG)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 4 and not (tmp_path / "run").exists()
    lines = said.splitlines()
    assert len(lines) == 2 and "nowhere_at_all" in lines[0], said
    assert lines[1].startswith("pocketclip: validate.captions: ") and "none.jsonl: cannot be read" in lines[1]


def test_all_processes_stop_together(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [
        train(recipe_folder, data, tmp_path / "run", *WRONG, **both, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [4, 4], said
    assert sum(text.count("pocketclip: ") for text in said) == 2 and "pocketclip: " not in said[1]


def test_missing_photos_are_counted_and_listed(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    copy, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, copy)
    for number in (5, 7):
        (copy / f"shapes/images/{number}.png").unlink()
    settings = ("--set", "aligned.epochs=1", "--set", "stages=[{epochs=1,px=32}]")
    run = train(recipe_folder, copy, out, *settings)
    said = run.communicate(timeout=300)[1]
    assert run.returncode == 0, said
    assert "2 in shapes" in said and "missing-photos.txt" in said
    listed = (out / "missing-photos.txt").read_text().splitlines()
    assert listed == [str(copy / f"shapes/images/{number}.png") for number in (5, 7)]


def test_a_folder_without_the_photos_is_one_line(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """Also for those who don't use the command."""
    copy = tmp_path / "data"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*.png"))
    run = train(recipe_folder, copy, tmp_path / "run")
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 4 and "Traceback" not in said
    (shapes, colors) = said.splitlines()
    assert f"none of its 80 photos exists; they were looked for in {copy / 'shapes'}" in shapes
    assert f"{copy / 'colors'}" in colors
    with pytest.raises(DataError, match="none of its 80 photos exists"):
        Corpus.read(Recipe.load(recipe_folder / "recipe.toml"), copy)

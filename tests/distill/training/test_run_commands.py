"""What a run leaves behind is a model for every command, by its path."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

Pocketclip = Callable[..., Result]

PATHS = (
    ".",
    "student",
    "student/model.safetensors",
    "best",
    "best/model.safetensors",
    "checkpoints/step-00000002.pt",
    "checkpoints/step-00000004.pt",
)
SETTINGS = ("save_every=2", "stages=[{epochs=1,px=32}]", "optim.batch=30", "aligned.epochs=1")


def pocketclip(*arguments: object) -> Result:
    """Run the whole command line in this process."""
    from app.cli.main import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(recipe_folder: Path, data: Path, out: Path, *more: object) -> Result:
    settings = [part for text in SETTINGS for part in ("--set", text)]
    plan = [recipe_folder / "recipe.toml", "--data", data, "--out", out, "--workers", 0]
    return pocketclip("train", *plan, *settings, *more)


@pytest.fixture(scope="module")
def run(recipe_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps, with a best student."""
    out = tmp_path_factory.mktemp("runs") / "run"
    best = 'validate={labels="colors/labels.csv",split="test",every=2}'
    done = train(recipe_folder, data, out, "--set", best)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(out / "student")
    return out


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("path", PATHS)
def test_it_is_evaluated(path: str, run: Path, data: Path) -> None:
    done = pocketclip("evaluate", run / path, "--labels", data / "colors/labels.csv", "--split", "test", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 16


@pytest.mark.parametrize("path", [".", "student", "best/model.safetensors", "checkpoints/step-00000002.pt"])
def test_it_is_exported(path: str, run: Path, tmp_path: Path) -> None:
    done = pocketclip("export", run / path, "-o", tmp_path / "bundle", "--precision", "fp32", "--force", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "bundle/manifest.json").read_text())["name"] == "tiny"


@pytest.mark.parametrize("path", PATHS)
def test_a_new_run_starts_from_it(path: str, run: Path, recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    done = train(recipe_folder, data, tmp_path / "next", "--set", f"start={run / path}")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "next/student/model.safetensors").is_file()


def test_a_finished_run_can_be_lengthened(run: Path, recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """With a constant learning rate; with another one, the message says what to do."""
    constant = ("--set", "optim.schedule=constant")
    longer = ("--set", "stages=[{epochs=2,px=32}]")
    assert train(recipe_folder, data, tmp_path, *constant).exit_code == 0
    done = train(recipe_folder, data, tmp_path, *constant, *longer)
    assert done.exit_code == 0 and "resumed at step 4 of 8" in done.stderr, done.stderr
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 8
    refused = train(recipe_folder, data, run, *longer)
    assert refused.exit_code == 4 and "start a new run with start = " in " ".join(refused.stderr.split())


def test_resume_says_where_it_starts(run: Path, recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    path = run / "checkpoints/step-00000002.pt"
    best = ("--set", 'validate={labels="colors/labels.csv",split="test",every=2}')
    other = train(recipe_folder, data, tmp_path, *best, "--resume", path)
    assert other.exit_code == 0 and "resumed at step 2 of 4" in " ".join(other.stderr.split()), other.stderr
    assert (tmp_path / "best/model.safetensors").is_file()
    refused = train(recipe_folder, data, tmp_path, *best, "--resume", "never")
    assert refused.exit_code == 4 and "use another --out" in refused.stderr
    for weights in ("student", "best", "student/model.safetensors"):
        refused = train(recipe_folder, data, tmp_path / "next", "--resume", run / weights)
        assert refused.exit_code == 4 and refused.stderr.count("\n") == 1, refused.stderr

"""The log to Weights & Biases: what it sends, with a stand-in for the package, and with the package if it is there."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from distill.logs import LogError
from distill.wandb_log import RUN_ID, WandbLog
from mobileclip.extras import MissingExtraError
from tests.distill.training.toys import toy_recipe


class FakeRun:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.steps, self.finished = settings, list[tuple[int, dict[str, float]]](), False

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.steps.append((step, dict(values)))

    def finish(self) -> None:
        self.finished = True


class FakeWandb(ModuleType):
    """What we use of the package."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[FakeRun] = []
        self.refusal = ""

    def init(self, **settings: Any) -> FakeRun:
        if self.refusal:
            raise self.Error(self.refusal)
        self.runs.append(FakeRun(settings))
        return self.runs[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_each_step_is_sent_under_the_names_of_tensorboard(fake: FakeWandb, tmp_path: Path) -> None:
    log = WandbLog("me/birds", tmp_path / "run", toy_recipe(tmp_path))
    log.write({"step": 3, "loss": 0.5, "lr": 1e-3, "gradient_norm": float("inf")})
    log.close()
    (run,) = fake.runs
    assert run.steps == [(3, {"loss/loss": 0.5, "run/lr": 1e-3})] and run.finished
    settings = run.settings
    assert (settings["entity"], settings["project"], settings["name"]) == ("me", "birds", "toy")
    assert settings["resume"] == "allow" and settings["dir"] == str(tmp_path / "run")
    assert settings["config"]["optim"]["batch"] == 8
    json.dumps(settings["config"])


def test_a_resumed_run_is_the_same_run(fake: FakeWandb, tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path)
    for folder in ("a", "a", "b"):
        WandbLog("birds", tmp_path / folder, recipe).close()
    first, again, other = (run.settings["id"] for run in fake.runs)
    assert first == again != other
    assert (tmp_path / "a" / RUN_ID).read_text() == first
    assert fake.runs[0].settings["entity"] is None


def test_a_refusal_and_a_missing_package_are_one_line(
    fake: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.refusal = "api_key not configured (no-tty).\nCall wandb.login(key=[your_api_key])"
    with pytest.raises(LogError, match=r"Weights & Biases: api_key not configured .* Call wandb.login"):
        WandbLog("birds", tmp_path, toy_recipe(tmp_path))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"--wandb needs wandb: .* -m pip install .*\[wandb\]"):
        WandbLog("birds", tmp_path, toy_recipe(tmp_path))


def test_the_command_sends_what_it_logs(
    fake: FakeWandb, recipe_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.cli.main import app

    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path / "home"))
    settings = ("stages=[{epochs=1,px=32}]", "optim.batch=60", "aligned.epochs=1")
    arguments = ["train", recipe_folder / "recipe.toml", "--data", data, "--out", tmp_path / "run", "--workers", "0"]
    arguments += [part for text in settings for part in ("--set", text)]
    done = CliRunner().invoke(app, [*map(str, arguments), "--wandb", "birds"])
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    (run,) = fake.runs
    assert [(step, values["loss/loss"]) for step, values in run.steps] == [(x["step"], x["loss"]) for x in lines]
    assert run.finished


def test_the_real_package_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (1, 2):
        log = WandbLog("birds", tmp_path, toy_recipe(tmp_path))
        log.write({"step": step, "loss": 0.5})
        log.close()
    identity = (tmp_path / RUN_ID).read_text()
    assert list(tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb"))

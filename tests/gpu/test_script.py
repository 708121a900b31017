"""The script for a GPU runs on the CPU too, with a tiny student, so that its code is tested."""

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from mobileclip.towers import CLIP

script = import_module("tests.gpu.__main__")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.gpu", *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_every_part_agrees_with_the_cpu_and_is_written_as_json(tmp_path: Path) -> None:
    """All but `compile`, which takes a minute here; test_optimizer.py compiles towers."""
    parts = [name for name in script.PARTS if name != "compile"]
    done = run("--device", "cpu", "--tiny", "--parts", ",".join(parts), "--json", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["tiny"] and list(written["parts"]) == parts
    for name, result in written["parts"].items():
        assert result["agrees"] and result["samples_per_second"] > 0 and result["memory"] > 2**20, name
        assert name in done.stdout
    assert all(written["parts"][name]["gradient_cosine"] > 0.999999 for name in parts if name != "bf16")
    assert 0 < written["parts"]["bf16"]["loss_difference"] < 0.01
    assert written["parts"]["cache"]["batch"] == 64


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_ends_with_one_line() -> None:
    done = run()
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "tests.gpu: this machine has no CUDA; --device cpu --tiny tries the script without"
    ]


def test_a_failure_is_a_row_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = argparse.Namespace(device="cpu", tiny=True, limit=None)
    answers: dict[str, Any] = {
        "fp32": subprocess.CompletedProcess([], 1, "", "Traceback\n…\ntorch.OutOfMemoryError: CUDA out of memory.\n"),
        "bf16": subprocess.CompletedProcess([], -9, "", ""),
        "ddp": subprocess.CompletedProcess([], 0, 'a warning\n{"agrees": true}\n', ""),
    }

    def answer(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        name = command[command.index("--one") + 1]
        if name not in answers:
            raise subprocess.TimeoutExpired(command, 90)
        return answers[name]

    monkeypatch.setattr(script.subprocess, "run", answer)
    results = {name: script.measure_apart(name, arguments) for name in ("fp32", "bf16", "fsdp", "ddp")}
    assert results == {
        "fp32": {"error": "torch.OutOfMemoryError: CUDA out of memory."},
        "bf16": {"error": "exit code -9"},
        "fsdp": {"error": "took more than 60 seconds"},
        "ddp": {"agrees": True},
    }
    script.show({name: result for name, result in results.items() if "error" in result}, "cpu")


def test_all_parts_end_within_ten_minutes() -> None:
    assert sum(part.limit for part in script.PARTS.values()) <= 600


def test_the_comparison_notices_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step with a broken tower doesn't agree."""
    config = script.student(tiny=True)
    settings = script.PARTS["fp32"].optim
    loss, cosine = script.agreement(config, settings, torch.device("cpu"), tiny=True)
    assert loss == 0 and cosine == pytest.approx(1)
    count = iter(range(100))
    load = CLIP.load_state_dict

    def altered(model: CLIP, state: dict[str, torch.Tensor]) -> None:
        load(model, state)
        if next(count) == 1:
            model.text.positions.data *= 30

    monkeypatch.setattr(CLIP, "load_state_dict", altered)
    loss, cosine = script.agreement(config, settings, torch.device("cpu"), tiny=True)
    assert loss > 1e-4 and cosine < 0.999

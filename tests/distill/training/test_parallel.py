"""Two processes end with the weights of one: DDP and FSDP2, with and without gradient caching, resumed in between."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.distill.training.ranks import run_two_ranks
from tests.distill.training.two_ranks import CASES, train

# float64 throughout; AdamW divides by the gradients' size, which enlarges the rounding of small ones.
TOLERANCE = 1e-7


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run_two_ranks("tests.distill.training.two_ranks", str(folder))
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return train("ddp", tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_with_the_weights_of_one(case: str, together: Path, alone: dict[str, torch.Tensor]) -> None:
    weights = torch.load(together / case / "weights.pt", weights_only=True)
    assert weights.keys() == alone.keys()
    for name, value in alone.items():
        assert torch.allclose(weights[name], value, rtol=0, atol=TOLERANCE), name


@pytest.mark.parametrize("case", CASES)
def test_the_first_process_alone_writes(case: str, together: Path) -> None:
    steps = [json.loads(line)["step"] for line in (together / case / "metrics.jsonl").open()]
    assert steps == list(range(1, 7))
    assert sorted(path.name for path in (together / case / "checkpoints").iterdir()) == [
        "step-00000003.pt",
        "step-00000006.pt",
    ]


def test_torchrun_trains_one_student(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "app"]
    command += ["train", str(recipe_folder / "recipe.toml"), "--data", str(data), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "POCKETCLIP_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "run/student")]
    last = [line for line in done.stderr.splitlines() if line.startswith("step 10/10  epoch 2  loss ")]
    assert len(last) == 1 and "  lr 4.77e-05  " in last[0] and "samples/s" in last[0], done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert [line["step"] for line in lines] == list(range(1, 11)) and lines[-1]["loss"] < lines[0]["loss"]
    assert len(list((tmp_path / "run/cache").glob("heads-*"))) == 1

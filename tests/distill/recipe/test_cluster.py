"""The recipe `cluster` trains on two processes, with its own settings, and tars that are copied first."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.data.remote import DOWNLOADS
from distill.recipe.shipped import RECIPES
from tests.distill.reinforce.common import write_teacher
from tests.test_readme import parse, words

PAGE = RECIPES / "cluster/README.md"


@pytest.mark.slow
def test_two_processes_copy_tars_and_train_with_fsdp(mixed_data: Path, mixed_model: Path, tmp_path: Path) -> None:
    base, data, out = tmp_path / "model", tmp_path / "scratch", tmp_path / "run"
    shutil.copytree(mixed_model, base)
    teacher = write_teacher(base)
    data.mkdir()
    url = f"file://{mixed_data}/tars/{{00000..00001}}.tar"
    # Only what makes it small.
    settings = [
        f"model={base / 'tiny.toml'}",
        f"merges={base / 'merges.txt.gz'}",
        f'photos=[{{name="web", kind="webdataset", file="{url}"}}]',
        "open_clip=[]",
        f'checkpoints=[{{path="{teacher}"}}]',
        *("optim.batch=8", "optim.micro_batch=2", "optim.warmup=1", "save_every=2"),
        "stages=[{epochs=2, px=32}, {epochs=1, px=48}]",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "app"]
    command += ["train", "cluster", "--data", str(data), "--out", str(out), "--workers", "1"]
    command += [part for text in settings for part in ("--set", text)]
    environment = {**os.environ, "POCKETCLIP_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(out / "student")]
    assert [path.name for path in sorted((data / DOWNLOADS).rglob("*.tar"))] == ["00000.tar", "00001.tar"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert [line["px"] for line in lines] == [32] * 4 + [48] * 2
    assert {"contrastive", "affinity", "feature"} <= lines[0].keys()
    saved = json.loads((out / "recipe.json").read_text())
    assert saved["optim"]["strategy"] == "fsdp" and saved["optim"]["precision"] == "bf16"
    assert saved["teach"] == "online"


def test_the_page_has_lines_for_torchrun_and_slurm_that_agree() -> None:
    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    trains = [block.replace("\\\n", " ") for block in blocks if "torchrun" in block]
    assert len(trains) == 2 and "#SBATCH" in trains[1]
    for block in trains:
        line = next(line for line in block.splitlines() if "torchrun" in line)
        options = line.partition("torchrun")[2].split()
        assert {"--nnodes", "--max-restarts", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint"} <= set(options)
        assert "--no-python pocketclip train cluster" in " ".join(options)


def test_the_commands_of_the_page_parse() -> None:
    text = PAGE.read_text("utf-8").replace("\\\n", " ")
    found = [line.strip() for line in text.splitlines() if re.match(r" *(torchrun .*|srun .*)?pocketclip ", line)]
    commands = [line[line.index("pocketclip ") :] for line in found]
    assert len(commands) == 7 and sum("train cluster" in line for line in commands) == 3
    for line in commands:
        parse(words(line)[1:])

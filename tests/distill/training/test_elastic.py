"""A run survives the loss of a process, and of a machine, and doesn't depend on how many processes it has."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.distributed import LostProcessError, joined_processes
from tests.distill.mixed import jpeg, write_tar
from tests.distill.training import elastic_run
from tests.distill.training.ranks import run_two_ranks

PHOTOS = 30
SOURCES: dict[str, dict[str, Any]] = {
    "listed": {"photos": {"kind": "captions", "file": "listed/captions.jsonl"}},
    "tars": {"photos": {"kind": "webdataset", "file": "tars"}},
}
LIMIT = 240


@pytest.fixture(scope="module")
def distinct_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a caption each, as files and in two tars."""
    root = tmp_path_factory.mktemp("distinct")
    (root / "listed").mkdir()
    rows, members = [], []
    for number in range(PHOTOS):
        (root / f"listed/{number}.jpg").write_bytes(jpeg(number))
        rows.append({"file": f"{number}.jpg", "caption": f"red {number}"})
        members.append([(f"{number:04}.jpg", jpeg(number)), (f"{number:04}.txt", f"red {number}".encode())])
    (root / "listed/captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for tar, part in enumerate((members[:10], members[10:])):
        write_tar(root / f"tars/{tar}.tar", [member for sample in part for member in sample])
    return root


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("kind", "stop"), [("listed", 8), ("tars", 3)])
def test_a_run_of_two_processes_continues_with_one(
    kind: str, stop: int, mixed_model: Path, distinct_photos: Path, tmp_path: Path
) -> None:
    """The schedule stays as it was, and an epoch still shows every photo once."""
    source, run, alone = SOURCES[kind], tmp_path / "run", tmp_path / "alone"
    folders = [str(mixed_model), str(distinct_photos)]
    run_two_ranks("tests.distill.training.elastic_run", *folders, str(run), str(stop), json.dumps(source), limit=LIMIT)
    assert [line["step"] for line in metrics(run)] == list(range(1, stop + 1))
    for out in (run, alone):
        elastic_run.train(mixed_model, distinct_photos, out, 0, source)
    wanted, found = ([(line["step"], line["epoch"], line["lr"]) for line in metrics(out)] for out in (alone, run))
    assert found == wanted
    drawn = [json.loads(line) for path in sorted(run.glob("rank-*/drawn.jsonl")) for line in path.open()]
    # A process may prepare a step that another one stopped before.
    taken = [row for row in drawn if row["epoch"] * elastic_run.STEPS + row["step"] < stop or row["size"] == 1]
    assert {row["size"] for row in taken} == {1, 2}
    epochs = sorted({row["epoch"] for row in taken if row["groups"]})
    assert len(epochs) == 3
    for epoch in epochs:
        shown = sorted(group for row in taken if row["epoch"] == epoch for group in row["groups"])
        assert len(shown) == len(set(shown)) == PHOTOS


@contextmanager
def torchrun(recipe_folder: Path, data: Path, out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`torchrun pocketclip train` with a long run, in a process group of its own; what is left of it is killed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts", "3", *options, "-m", "app", "train"]
    command += [str(recipe_folder / "recipe.toml"), "--data", str(data), "--out", str(out), "--workers", "0"]
    settings = ("stages=[{epochs=6,px=32}]", "aligned.epochs=1", "save_every=2", "optim.device=cpu")
    command += [part for text in settings for part in ("--set", text)]
    environment = {**os.environ, "POCKETCLIP_HOME": str(out / "home"), "OMP_NUM_THREADS": "1"}
    # By default, a restarted process can read the address of one that is gone.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    agent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield agent
    finally:
        kill_group(agent)
        agent.wait()


def kill_group(agent: subprocess.Popen[str]) -> None:
    """Kill a torchrun and its workers at once, as the loss of a machine does."""
    for pid in [*workers(agent).values(), agent.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def workers(agent: subprocess.Popen[str]) -> dict[int, int]:
    """Return rank → process of the workers that a torchrun started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == agent.pid and (rank := next((name[5:] for name in names if name.startswith(b"RANK=")), b"")):
            found[int(rank)] = int(folder.name)
    return found


def wait_for_step(run: Path, step: int) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    pytest.fail(f"no step {step} after {LIMIT} seconds")


def assert_complete(run: Path, agent: subprocess.Popen[str]) -> str:
    """Every step was taken once, by the schedule of a run that nothing happened to; returns what was said."""
    said = agent.communicate(timeout=LIMIT)[1]
    assert agent.returncode == 0, said
    assert "resumed at step" in said
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, 31))
    rates = [line["lr"] for line in lines]
    assert rates[:2] == [5e-4, 1e-3] and rates[1:] == sorted(rates[1:], reverse=True)
    assert (run / "student/model.safetensors").is_file()
    assert not list((run / "checkpoints").glob("*.part"))
    return said


def test_a_lost_process_is_one_line_and_other_errors_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    lost = "[/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:17638: Connection reset by peer"
    expected = pytest.raises(LostProcessError, match=r"^another process .*Connection reset by peer\); .*--max-restarts")
    with expected, joined_processes("cpu"):
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), joined_processes("cpu"):
        raise RuntimeError("shapes differ")
    assert not torch.distributed.is_initialized()


def test_preparations_may_take_long_and_steps_may_not(tmp_path: Path) -> None:
    """While the first process computes embeddings, the others wait; a step gives it up after `optim.timeout`."""
    run_two_ranks("tests.distill.training.patience", str(tmp_path), limit=LIMIT)
    assert (tmp_path / "0.prepared").exists() and (tmp_path / "1.prepared").exists()
    assert (tmp_path / "1.lost").read_text().startswith("another process of this run ended, or doesn't answer")


linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


@linux
@pytest.mark.slow
def test_a_killed_process_is_started_again(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """The first one, which writes everything."""
    run = tmp_path / "run"
    with torchrun(recipe_folder, data, run, "--standalone", "--nproc-per-node", "2") as agent:
        wait_for_step(run, 5)
        os.kill(workers(agent)[0], signal.SIGKILL)
        said = assert_complete(run, agent)
    assert said.count("resumed at step") == 1 and "Traceback" not in said


@linux
@pytest.mark.slow
def test_a_run_continues_on_the_machines_that_are_left(recipe_folder: Path, data: Path, tmp_path: Path) -> None:
    """Two torchruns, of which the second is killed with its worker. The first one hosts the rendezvous."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    run = tmp_path / "run"
    common = ("--nnodes", "1:2", "--nproc-per-node", "1", "--rdzv-id", "test", "--rdzv-backend", "c10d")
    common += ("--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1")
    conf = "join_timeout=60,last_call_timeout=10,keep_alive_interval=1,keep_alive_max_attempt=3"
    with (
        torchrun(recipe_folder, data, run, *common, "--rdzv-conf", f"is_host=true,{conf}") as first,
        torchrun(recipe_folder, data, run, *common, "--rdzv-conf", f"is_host=false,{conf}") as second,
    ):
        wait_for_step(run, 5)
        assert sorted({**workers(first), **workers(second)}) == [0, 1]
        kill_group(second)
        assert_complete(run, first)

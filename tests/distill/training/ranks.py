"""Start two processes that train together, with a time limit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time


def run_two_ranks(module: str, *arguments: str, limit: float = 300) -> None:
    """Run a module in two processes that find each other as under torchrun.

    Args:
        module: the name of a module with a `__main__`.
        arguments: of both processes.
        limit: seconds until both are killed.

    Raises:
        AssertionError: a process failed, or the time is up; says what the processes wrote on stderr.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    both = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**both, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    end = time.monotonic() + limit
    while any(process.poll() is None for process in ranks) and time.monotonic() < end:
        if any(process.poll() for process in ranks):  # the other one would wait for it
            break
        time.sleep(0.1)
    late = time.monotonic() >= end
    for process in ranks:
        if process.poll() is None:
            process.kill()
    errors = [process.communicate()[1] for process in ranks]
    assert not late, f"not done after {limit:.0f} seconds: {errors}"
    assert [process.returncode for process in ranks] == [0, 0], errors

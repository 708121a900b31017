"""Memory of a training step by batch size, with gradient caching: `python -m tests.benchmarks.gradient_cache`.

Each step runs in a separate process. Its memory is the process's peak minus the peak before the step, when the model
and the batch were already there. Contrastive loss, feature and ensemble distillation on the towers of `pocket`. Prints
a table, asserts nothing.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

PX, MICRO = 64, 64
SIZES = (128, 256, 512, 1024, 2048)


def main() -> None:
    """Measure all sizes, or the one in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest-at-once", type=int, default=1024, help="larger batches only with caching")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    table = Table(title=f"A training step of `pocket`, {PX} px, gradient caching with micro-batches of {MICRO}")
    for heading in ("batch", "pixels MB", "at once MB", "cached MB", "at once s", "cached s"):
        table.add_column(heading, justify="right")
    for size in SIZES:
        at_once = step(size, 0) if size <= arguments.largest_at_once else None
        cached = step(size, MICRO)
        memory, seconds = (f"{at_once[0]:.0f}", f"{at_once[1]:.1f}") if at_once else ("–", "–")
        pixels = size * 3 * PX * PX * 4 / 2**20
        table.add_row(str(size), f"{pixels:.0f}", memory, f"{cached[0]:.0f}", seconds, f"{cached[1]:.1f}")
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    console.print(table)


def step(size: int, micro: int) -> tuple[float, float]:
    """Measure a step in a new process: MB and seconds."""
    command = [sys.executable, "-m", "tests.benchmarks.gradient_cache", "--one", str(size), str(micro)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    megabytes, seconds = json.loads(done.stdout)
    return megabytes, seconds


def measure(size: int, micro: int) -> tuple[float, float]:
    """Return the memory that a step adds, in MB, and its seconds."""
    from distill.batch import Batch
    from distill.config import LossConfig
    from distill.losses import TeacherEmbeddings
    from distill.training.gradient_cache import backward_in_parts
    from distill.training.parallel import Parallel
    from distill.training.task import DistillTask
    from mobileclip.towers import create_model

    torch.manual_seed(0)
    weights = LossConfig({"ensemble": 1.0, "affinity": 0.0})
    task = DistillTask(create_model("pocket"), weights, (512,)).to(memory_format=torch.channels_last).train()
    tokens = torch.randint(1, 16000, (size, 16))
    tokens[:, -1] = 16383
    vectors = torch.nn.functional.normalize(torch.randn(2, size, 512), dim=-1)
    teacher = TeacherEmbeddings(vectors[0], vectors[1], 40.0)
    batch = Batch(torch.randn(size, 3, PX, PX), tokens, torch.arange(size), (teacher,))
    parallel = Parallel(task, "ddp")
    for value in task.parameters():  # gradients exist at every step except the first
        value.grad = torch.zeros_like(value)
    before, start = peak(), time.perf_counter()
    if micro:
        backward_in_parts(parallel, batch, micro, (0,))
    else:
        parallel(batch)["loss"].backward()
    return peak() - before, time.perf_counter() - start


def peak() -> float:
    """Return the peak memory of this process, in MB."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()

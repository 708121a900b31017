"""How fast a student trains on this machine: `python -m tests.benchmarks.training`.

One row for each way to allocate memory and each precision, each measured in a process of its own, because the
allocator is set up once. Prints a table, asserts nothing.
"""

import argparse
import os
import platform
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

BATCH, EXTRA_TEXTS, STEPS = 64, 128, 3


def main() -> None:
    """Measure all variants, or the one that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--px", type=int, default=160)
    parser.add_argument("--one", nargs=2, metavar=("ALLOCATOR", "PRECISION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(*arguments.one, arguments.px))
        return
    table = Table(title=f"Training steps of `pocket`, {arguments.px} px, batch {BATCH} and {EXTRA_TEXTS} further texts")
    for heading in ("allocator", "precision", "photos/s"):
        table.add_column(heading, justify="right" if heading == "photos/s" else "left")
    for allocator in ("as it comes", "keeps freed memory"):
        for precision in ("fp32", "bf16"):
            command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
            command += ["--px", str(arguments.px), "--one", allocator, precision]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            table.add_row(allocator, precision, f"{float(done.stdout):.1f}")
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    console.print(table)


def measure(allocator: str, precision: str, px: int) -> float:
    """Return photos a second, forward, backward and optimizer, after one step to warm up."""
    import torch

    from distill.allocator import keep_freed_memory
    from distill.losses import info_nce
    from mobileclip.towers import create_model

    if allocator == "keeps freed memory":
        keep_freed_memory()
    torch.manual_seed(0)
    model = create_model("pocket").train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pixels = torch.rand(BATCH, 3, px, px).contiguous(memory_format=torch.channels_last)
    tokens = torch.randint(1, 16000, (BATCH + EXTRA_TEXTS, 16))
    tokens[:, -1] = 16383
    start = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            image, text = model.encode_image(pixels), model.encode_text(tokens)
        loss = info_nce(image, text[:BATCH], model.logit_scale.exp(), torch.arange(BATCH))
        optimizer.zero_grad()
        (loss + 0 * text.sum()).backward()
        optimizer.step()
    return BATCH * STEPS / (time.perf_counter() - start)


if __name__ == "__main__":
    main()

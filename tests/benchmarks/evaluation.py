"""Time and memory of retrieval metrics by number of photos and captions: `python -m tests.benchmarks.evaluation`.

Each size runs in a separate process, to measure its peak memory. Recall in both directions, five captions per photo,
without the bootstrap. The last column is the memory of the whole similarity matrix.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from distill.evaluate.metrics import ranks

SIZES, CAPTIONS, WIDTH = (1_000, 5_000, 20_000), 5, 64
MEASURE = "--measure"


def measure(photos: int) -> tuple[float, float]:
    """Return the seconds for both directions, and how many MB they added to the process's peak memory."""
    random = np.random.default_rng(0)
    images = random.normal(size=(photos, WIDTH)).astype(np.float32)
    texts = random.normal(size=(CAPTIONS * photos, WIDTH)).astype(np.float32)
    owner, number = np.arange(len(texts)) // CAPTIONS, np.arange(len(texts))
    before, started = _peak(), time.perf_counter()
    ranks(texts, images, number, owner)
    ranks(images, texts, owner, number)
    return time.perf_counter() - started, _peak() - before


def _peak() -> float:
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> None:
    """Print a table."""
    table = Table(title=f"Recall in both directions, {CAPTIONS} captions per photo, {WIDTH} dimensions")
    for title in ("photos", "captions", "seconds", "peak memory, MB", "whole matrix, MB"):
        table.add_column(title, justify="right")
    for photos in SIZES:
        command = [sys.executable, "-m", "tests.benchmarks.evaluation", MEASURE, str(photos)]
        seconds, memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        whole = photos * photos * CAPTIONS * 4 / 1e6
        table.add_row(f"{photos:,}", f"{photos * CAPTIONS:,}", f"{float(seconds):.2f}", memory, f"{whole:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURE]:
        elapsed, added = measure(int(sys.argv[2]))
        print(f"{elapsed:.3f} {added:.0f}")
    else:
        main()

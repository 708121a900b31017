"""One of two processes that wait for each other; started by test_elastic.py with a folder as argument."""

import os
import sys
import time
from pathlib import Path

import torch

from distill.distributed import (
    LostProcessError,
    barrier,
    first_process_first,
    from_first_process,
    joined_processes,
    mean,
    rank,
)

TIMEOUT, LONGER = 2.0, 5.0
"""Seconds that a step waits, and that the first process takes."""


def main() -> None:
    """Leave `prepared`, then what ended the step."""
    own = Path(sys.argv[1]) / os.environ["RANK"]
    try:
        with joined_processes("cpu", timeout=TIMEOUT / 60):
            with first_process_first():
                time.sleep(LONGER * (rank() == 0))
            time.sleep(LONGER * (rank() == 0))
            assert from_first_process(rank()) == 0
            time.sleep(LONGER * (rank() == 0))
            barrier()
            own.with_suffix(".prepared").touch()
            time.sleep(LONGER * (rank() == 0))
            mean(torch.ones(1))
    except LostProcessError as error:
        own.with_suffix(".lost").write_text(str(error))


if __name__ == "__main__":
    main()

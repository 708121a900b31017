"""Set up the C library's memory allocator for training on a CPU."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""


def keep_freed_memory() -> bool:
    """Keep freed memory in this process instead of returning it to the kernel.

    A training step allocates and frees gigabytes of activations. By default, glibc returns each large block at once, so
    every step pays for new, zeroed pages; `python -m tests.benchmarks.training` measures the cost.

    Returns:
        Whether it took effect; False if the C library isn't glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))

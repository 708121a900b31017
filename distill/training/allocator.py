"""The C library's memory allocator, set up for training on a CPU."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameter numbers of glibc's `mallopt`."""


def keep_freed_memory() -> bool:
    """Make this process keep freed memory for its next allocation instead of handing it back to the kernel.

    A training step takes and frees gigabytes of activations. glibc returns each large block at once, so that every
    step pays for fresh, zeroed pages again: `python -m tests.benchmarks.training` shows what that costs.

    Returns:
        Whether it took effect; False where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))

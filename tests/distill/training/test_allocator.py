import subprocess
import sys

import pytest

PROBE = """
import resource, sys
import torch
from distill.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(32 * 2**20 // 4)
before = faults()
for _ in range(24):
    torch.ones(32 * 2**20 // 4)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_used_again() -> None:
    """Once warm, large blocks cost few page faults, which the untouched allocator pays for every one."""

    def faults(mode: str) -> int:
        done = subprocess.run([sys.executable, "-c", PROBE, mode], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") * 3 < faults("leave")

"""Half-precision arithmetic, switched on in the same way for the trainer and for the heads of teachers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of the arithmetic by the name of a precision; without an entry, float32."""


@contextmanager
def half_precision(device: str, precision: str) -> Iterator[None]:
    """Run the matrix products of a block in half precision.

    On a CPU, attention runs as plain matrix products then: in bfloat16, the backward pass of PyTorch's fused attention
    takes ten times as long as in float32 (PyTorch 2.14).

    Args:
        device: the type of the device, such as "cpu".
        precision: "fp32", which changes nothing, "bf16" or "fp16".
    """
    dtype = HALF.get(precision)
    attention = sdpa_kernel(SDPBackend.MATH) if dtype and device == "cpu" else nullcontext()
    with torch.autocast(device, dtype, enabled=dtype is not None), attention:
        yield

"""How fast a frozen trunk computes the features of photos: in PyTorch, and in ONNX Runtime as training uses it.

    python -m tests.benchmarks.trunk

One thread, EfficientNet-Lite2 at 260 pixels with its two last feature maps; the best of three rounds.
"""

from __future__ import annotations

import time

import numpy as np
import timm
import torch

from distill.teachers.fast_trunk import fast_trunk
from mobileclip.towers.image import trunk_features

PHOTOS, ROUNDS, SIZE, MAPS = 32, 3, 260, 2


def main() -> None:
    """Print photos per second of both, and how much their features differ."""
    torch.set_num_threads(1)
    trunk = timm.create_model("tf_efficientnet_lite2", num_classes=0).eval()
    fast = fast_trunk(trunk, SIZE, MAPS)
    assert fast is not None, "the extra export isn't installed"
    pixels = np.random.default_rng(0).normal(0, 1, (PHOTOS, 3, SIZE, SIZE)).astype(np.float32)
    channels_last = torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)
    slow = trunk.to(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {"PyTorch": [], "ONNX Runtime": []}
    with torch.inference_mode():
        for _ in range(ROUNDS):  # alternating, so that a busy machine slows both
            started = time.perf_counter()
            expected = trunk_features(slow, channels_last, MAPS).numpy()
            times["PyTorch"].append(time.perf_counter() - started)
            started = time.perf_counter()
            found = fast(pixels)
            times["ONNX Runtime"].append(time.perf_counter() - started)
    for name, seconds in times.items():
        print(f"{name:13}{PHOTOS / min(seconds):6.1f} photos/s")
    print(f"largest difference {np.abs(found - expected).max():.1e}, of values up to {np.abs(expected).max():.0f}")


if __name__ == "__main__":
    main()

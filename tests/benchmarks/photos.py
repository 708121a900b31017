"""Photos for benchmarks, with the size of those in caption data sets."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = ("a", "red", "dog", "on", "the", "beach", "two", "children", "playing", "with", "small", "boats")


def write_photos(home: Path, count: int) -> None:
    """Write `captions.jsonl` and `count` JPEGs of 500 × 375 pixels, smooth with some noise."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 255, (12, 16, 3)).astype(np.uint8))
        pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + random.integers(-20, 20, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(home / f"{number}.jpg", quality=90)
        lines.append(json.dumps({"file": f"{number}.jpg", "caption": " ".join(random.choice(WORDS, 9))}) + "\n")
    (home / "captions.jsonl").write_text("".join(lines))

"""Does the map of `where` point at the right thing?

    python -m tests.benchmarks.pointing --data DATA [--bundle BUNDLE]

A pointing game (Zhang et al. 2016, section 4.2) on composed scenes: four photos of different classes of Caltech-101, in
two rows. For each class, the map's hottest place should lie in its quarter. Chance is 25 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from distill.data.sources import readable_name
from distill.data.tables import read_table
from distill.evaluate.metrics import bootstrap, share
from mobileclip import load
from mobileclip.localize import heat_maps

SCENES, SIDE = 200, 256


def scene(photos: list[Path]) -> Image.Image:
    """Return a square picture of four photos, in reading order."""
    canvas = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    for number, path in enumerate(photos):
        with Image.open(path) as photo:
            canvas.paste(ImageOps.fit(photo.convert("RGB"), (SIDE, SIDE)), (number % 2 * SIDE, number // 2 * SIDE))
    return canvas


def main() -> None:
    """Print the share of maps that point at the right photo, with its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that has caltech101")
    parser.add_argument("--bundle", default="pocket", help="a bundle's name or folder")
    options = parser.parse_args()
    folder, model = options.data / "caltech101", load(options.bundle)
    files: dict[str, list[Path]] = {}
    for row in read_table(folder / "labels.csv", needs=("file", "label")):
        files.setdefault(row["label"], []).append(folder / row["file"])
    random, names, hits = np.random.default_rng(0), sorted(files), []
    for _ in range(SCENES):
        classes = [names[i] for i in random.choice(len(names), 4, replace=False)]
        picture = scene([files[name][int(random.integers(len(files[name])))] for name in classes])
        maps = heat_maps(model, picture, [f"a photo of a {readable_name(name)}" for name in classes])
        for number, values in enumerate(maps):
            row, column = np.unravel_index(values.argmax(), values.shape)
            right = (2 * row >= values.shape[0]) * 2 + (2 * column >= values.shape[1]) == number
            hits.append(float(right))
    rate = share(np.array(hits), np.ones(len(hits)))
    low, high = bootstrap(len(hits), rate)
    print(
        f"{options.bundle}: {100 * rate(np.arange(len(hits))):.1f} % ({100 * low:.1f}–{100 * high:.1f}), n={len(hits)}"
    )


if __name__ == "__main__":
    main()

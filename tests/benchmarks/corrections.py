"""What fine-tuning with a person's corrections gains and what it forgets, for several shares of the starting weights.

    python -m tests.benchmarks.corrections DATA [--corrections 200] [--shares 0 0.1 0.25 0.5]

The recipe `corrections` fine-tunes the default model. Labels of DATA/flowers102 take the place of a person's: that many
of its training photos, drawn once. The gain is the zero-shot accuracy on flowers of the test split, among all kinds;
what is forgotten shows in two sets without flowers. Each rate has its 95 % interval. Asserts nothing.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from distill.config import Recipe
from distill.config.command_line import parse_settings
from distill.evaluate.run import evaluate_captions, evaluate_labels
from distill.recipe.shipped import find_recipe
from distill.training.allocator import keep_freed_memory
from distill.training.initialize import interpolate
from distill.training.run import prepare
from mobileclip.checkpoints import load_checkpoint
from mobileclip.tokenizer import Tokenizer
from mobileclip.torch_model import TorchModel
from mobileclip.towers import CLIP
from mobileclip.vectors import Floats

START = find_recipe("pocket").parent
SEED = 0

Rate = tuple[float, float, float]
"""A rate with its interval."""


class FrozenTrunkModel(TorchModel):
    """A model that runs the trunk, which no student here changes, once per photo for all students."""

    def __init__(self, model: CLIP, tokenizer: Tokenizer, features: dict[bytes, torch.Tensor]) -> None:
        super().__init__(model, tokenizer)
        self.known = features

    def encode_pixels(self, pixels: np.ndarray) -> Floats:
        """Return unit vectors (n, d)."""
        keys = [hashlib.sha256(picture.tobytes()).digest() for picture in pixels]
        if missing := [number for number, key in enumerate(keys) if key not in self.known]:
            with torch.inference_mode():
                computed = self.model.image.trunk(torch.from_numpy(pixels[missing]))
            self.known.update(zip([keys[number] for number in missing], computed, strict=True))
        with torch.inference_mode():
            vectors: Floats = self.model.encode_image(torch.stack([self.known[key] for key in keys])).numpy()
        return vectors


def write_corrections(data: Path, count: int, folder: Path) -> tuple[Path, int]:
    """Write a table as `pocketclip corrections export` does; returns it and the number of different labels."""
    with (data / "flowers102/labels.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "train"]
    drawn = np.random.default_rng(SEED).permutation(len(rows))[:count]
    lines = [
        {"file": str((data / "flowers102" / rows[i]["file"]).resolve()), "label": rows[i]["label"], "rejected": ""}
        for i in drawn
    ]
    table = folder / "corrections.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return table, len({line["label"] for line in lines})


def fine_tune(table: Path, out: Path, settings: Mapping[str, Any]) -> CLIP:
    """Run the recipe without `keep_start`; returns the student."""
    path = find_recipe("corrections")
    overrides = {"photos[0].file": table.name, **settings, "keep_start": 0.0}
    run = prepare(Recipe.load(path, overrides), path.parent, table.parent, out, lambda *_: None)
    for _ in run.trainer.run():
        pass
    return run.trainer.student()


def measure(model: FrozenTrunkModel, data: Path) -> dict[str, tuple[Rate, int]]:
    """Return each set's rate with its interval, and its number of photos."""
    labeled = {"flowers": ("flowers102", "test"), "house rooms": ("house-rooms", None)}
    rates = {}
    for name, (folder, split) in labeled.items():
        found = evaluate_labels(model, data / folder / "labels.csv", split=split)
        rates[name] = ((found["top1"], *found["intervals"]["top1"]), found["n"])
    flickr = data / "flickr8k"
    found = evaluate_captions(model, flickr / "captions.jsonl", flickr / "splits.csv", "test")
    recall, interval = found["text_to_photo"]["R@10"], found["intervals"]["text_to_photo"]["R@10"]
    rates["Flickr8k R@10"] = ((recall, *interval), found["n_photos"])
    return rates


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--corrections", type=int, default=200)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.1, 0.25, 0.5])
    parser.add_argument("--set", dest="settings", action="append", default=[], help="Change a setting of the recipe.")
    chosen = parser.parse_args(arguments)
    keep_freed_memory()
    start, features = load_checkpoint(START), dict[bytes, torch.Tensor]()
    with tempfile.TemporaryDirectory() as folder:
        table, labels = write_corrections(chosen.data, chosen.corrections, Path(folder))
        began = time.perf_counter()
        tuned = fine_tune(table, Path(folder) / "run", parse_settings(chosen.settings))
        took = time.perf_counter() - began
    students = {"before": start.model}
    for share in chosen.shares:
        students[f"keep_start = {share:g}"] = interpolate(start.model, tuned, 1 - share)
    measured = {}
    for name, student in students.items():
        measured[name] = measure(FrozenTrunkModel(student, start.tokenizer, features), chosen.data)
        print(name, *(f"{100 * rate[0]:.1f}" for rate, _ in measured[name].values()), flush=True)
    counts = {name: count for name, (_, count) in measured["before"].items()}
    printed = Table(title=f"{chosen.corrections} corrections with {labels} labels; training took {took:.0f} s")
    for heading in ("student", *(f"{name}, {count} photos" for name, count in counts.items())):
        printed.add_column(heading, justify="left" if heading == "student" else "right")
    for name, rates in measured.items():
        cells = [f"{100 * rate:.1f} ({100 * low:.0f}–{100 * high:.0f})" for (rate, low, high), _ in rates.values()]
        printed.add_row(name, *cells)
    console = Console(width=120)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    console.print(printed)


if __name__ == "__main__":
    main()

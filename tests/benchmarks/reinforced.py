"""How much faster a student trains on reinforced data than with an online teacher.

    python -m tests.benchmarks.reinforced [--teachers ViT-B-32 ViT-L-14]

Both use the same student, photos, augmentations, batch and loss, and take turns in one process. Teachers have the named
open_clip architectures with random weights, which don't affect the time. Prints a table, asserts nothing.
"""

import argparse
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from distill.config import Recipe
from distill.reinforce.run import Reinforcer
from distill.training.trainer import Trainer
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import create_model
from tests.benchmarks.photos import write_photos
from tests.distill.feeds.common import online_feed_of, reinforced_feed_of

REPOSITORY = Path(__file__).parents[2]
POCKET = REPOSITORY / "distill/recipes/pocket"
BATCH, ROUNDS = 16, 3


class RandomTeacher:
    """An open_clip model with random weights."""

    def __init__(self, name: str) -> None:
        import open_clip

        logging.disable(logging.WARNING)  # open_clip warns that the weights are random

        self.model, _, self.transform = open_clip.create_model_and_transforms(name)
        self.tokenizer = open_clip.get_tokenizer(name)
        self.model.eval().requires_grad_(False)
        self.identity, self.logit_scale, self.px = name, 70.0, 224

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return unit vectors (n, d)."""
        return self.model.encode_image(torch.stack([self.transform(p) for p in pictures]), normalize=True).numpy()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors (n, d)."""
        return self.model.encode_text(self.tokenizer(list(texts)), normalize=True).numpy()

    def encode_images(self, photos: Sequence[Path]) -> np.ndarray:
        """Return unit vectors (n, d)."""
        return self.encode_pictures([Image.open(photo) for photo in photos])


def recipe(px: int, **overrides: object) -> Recipe:
    """Return a recipe for `pocket` with MobileCLIP's ensemble loss, which takes teachers of any dimension."""
    weights = {"contrastive": 0.25, "ensemble": 0.75, "affinity": 0.0, "feature": 0.0, "bank": 0}
    fields = {
        "name": "benchmark",
        "loss": weights,
        "texts": [],
        "optim": {"batch": BATCH, "extra_texts": 0},
        "stages": [{"epochs": 100, "px": px}],
        "reinforcement": {"augmentations": 1},
        "open_clip": [{"model": "random"}],
        "save_every": 1_000_000,
        "init": "",
    }
    (folder := Path(tempfile.mkdtemp())).joinpath("recipe.toml").write_text(
        'model = "pocket"\nmerges = "merges.txt.gz"\n'
    )
    loaded = Recipe.load(folder / "recipe.toml", {**fields, **overrides})
    folder.joinpath("recipe.toml").unlink()
    folder.rmdir()
    return loaded


def photos(workers: int, px: int, feed_of: str, teacher: RandomTeacher, home: Path) -> Iterator[float]:
    """Yield the seconds of each training step, including the wait for data."""
    torch.manual_seed(0)
    model = create_model("pocket")
    tokenizer = Tokenizer.load((POCKET / "merges.txt.gz").read_bytes(), model.config.text.context_length)
    if feed_of == "reinforced":
        plan = recipe(px, photos=[{"name": "p", "kind": "reinforced", "file": "reinforced"}])
        feed = reinforced_feed_of(plan, home, model.config, tokenizer, workers)
    else:
        plan = recipe(px, photos=[{"name": "p", "kind": "captions", "file": "captions.jsonl"}], teach="online")
        feed = online_feed_of(plan, home, model.config, tokenizer, [teacher], workers)
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(plan, model, feed, Path(out), torch.device("cpu"))
        started = time.perf_counter()
        for _ in trainer.run():
            yield time.perf_counter() - started
            started = time.perf_counter()


def compare(name: str, px: int, workers: int) -> tuple[float, float, float]:
    """Return seconds per step online and reinforced, and seconds per view to reinforce."""
    teacher = RandomTeacher(name)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_photos(home, 2 * BATCH)
        plan = recipe(px, photos=[{"name": "p", "kind": "captions", "file": "captions.jsonl"}])
        started = time.perf_counter()
        Reinforcer(plan, home, home / "reinforced", [teacher], workers).run(lambda *_: None)
        each = (time.perf_counter() - started) / (2 * BATCH)
        steps = {kind: photos(workers, px, kind, teacher, home) for kind in ("online", "reinforced")}
        for running in steps.values():  # the first step warms up
            next(running)
        seconds: dict[str, list[float]] = {kind: [] for kind in steps}
        for _ in range(ROUNDS):
            for kind, running in steps.items():
                seconds[kind] += [next(running) for _ in range(1 if kind == "online" else 3)]
        for running in steps.values():
            running.close()
    return statistics.median(seconds["online"]), statistics.median(seconds["reinforced"]), each


def main() -> None:
    """Measure with each teacher and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", nargs="+", default=["ViT-B-32", "ViT-L-14"])
    parser.add_argument("--px", type=int, default=160)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    table = Table(title=f"Training steps of `pocket`, {arguments.px} px, batch {BATCH}")
    for heading in ("teacher", "online, photos/s", "reinforced, photos/s", "times faster", "to store a view, s"):
        table.add_column(heading, justify="left" if heading == "teacher" else "right")
    for name in arguments.teachers:
        online, reinforced, each = compare(name, arguments.px, arguments.workers)
        figures = (f"{BATCH / online:.1f}", f"{BATCH / reinforced:.1f}", f"{online / reinforced:.1f}", f"{each:.2f}")
        table.add_row(name, *figures)
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()

"""How fast reinforced samples are loaded, and how long training waits for them: `python -m tests.benchmarks.loader`.

Photos of 500 × 375 pixels as files and in tars, by number of workers. Prints a table, asserts nothing.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from distill.reinforce.run import Reinforcer
from distill.training.trainer import Trainer
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import create_model
from tests.benchmarks.photos import write_photos
from tests.benchmarks.reinforced import POCKET, recipe
from tests.distill.feeds.common import reinforced_feed_of

PHOTOS, PX, BATCH, STEPS = 256, 160, 32, 5
WORKERS = (0, 1, 2)


class NoTeacher:
    """Returns random unit vectors, because only reading them is measured here."""

    identity, logit_scale, px = "none", 70.0, 224

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Return unit vectors (n, 512)."""
        return self.encode_texts([""] * len(pictures))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors (n, 512)."""
        vectors = np.random.default_rng(0).normal(size=(len(texts), 512)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_images(self, photos: Sequence[Path]) -> np.ndarray:
        """Return unit vectors (n, 512)."""
        return self.encode_texts([""] * len(photos))


def pack(home: Path) -> None:
    """Put the photos into tars of 128."""
    import webdataset

    lines = [json.loads(line) for line in (home / "captions.jsonl").open()]
    (home / "tars").mkdir()
    for start in range(0, len(lines), 128):
        with webdataset.TarWriter(str(home / f"tars/{start:05}.tar")) as tar:
            for number, line in enumerate(lines[start : start + 128]):
                tar.write(
                    {"__key__": f"{number:05}", "jpg": (home / line["file"]).read_bytes(), "txt": line["caption"]}
                )


def main() -> None:
    """Measure and print."""
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    model = create_model("pocket")
    tokenizer = Tokenizer.load((POCKET / "merges.txt.gz").read_bytes(), model.config.text.context_length)
    table = Table(title=f"Reinforced samples of {PX} px, JPEGs of 500 × 375, batch {BATCH}")
    for heading in ("photos in", "workers", "samples/s alone", "photos/s training", "share of training spent waiting"):
        table.add_column(heading, justify="left" if heading == "photos in" else "right")
    sources = {"files": ("captions", "captions.jsonl"), "tars": ("webdataset", "tars")}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_photos(home, PHOTOS)
        pack(home)
        optim = {"batch": BATCH, "extra_texts": 64}
        for where, (kind, file) in sources.items():
            plan = recipe(PX, photos=[{"name": where, "kind": kind, "file": file}])
            Reinforcer(plan, home, home / f"reinforced-{where}", [NoTeacher()], 1).run(lambda *_: None)
            source = {"name": where, "kind": "reinforced", "file": f"reinforced-{where}"}
            ready = recipe(PX, photos=[source], optim=optim)
            for workers in WORKERS:
                feed = reinforced_feed_of(ready, home, model.config, tokenizer, workers)
                started = time.perf_counter()
                count = sum(len(batch.pixels) for batch in feed.batches(0, ready.stages[0], 0))
                alone = count / (time.perf_counter() - started)
                trainer = Trainer(ready, model, feed, home / f"run-{where}-{workers}", torch.device("cpu"))
                steps = [step for step, _ in zip(trainer.run(), range(STEPS), strict=False)][1:]
                rate = float(np.mean([step.photos_per_second for step in steps]))
                wait = float(np.mean([step.wait for step in steps]))
                table.add_row(where, str(workers), f"{alone:.0f}", f"{rate:.1f}", f"{wait:.1%}")
    console.print(table)


if __name__ == "__main__":
    main()

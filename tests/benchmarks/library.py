"""How long screens wait for the library: `python -m tests.benchmarks.library [--photos 50000]`.

An index of invented photos. Each has a vector close to those of three labels of the default bundle, so that the number
of tags is realistic: about three, and none for a fifth of the photos. Prints a table, asserts nothing.
"""

import argparse
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import mobileclip
from app.library.files.exif import Facts
from app.library.files.scan import Found
from app.library.gallery import Filter, Gallery, Query, Term
from app.library.index.record import record_photo
from app.library.pictures.thumbnails import Thumbnails
from app.library.store.connection import Store
from app.library.store.roots import add_root
from app.library.store.vectors import add_model, put_vector
from mobileclip.model import Model

REPEATS = 3


def main() -> None:
    """Make the index in a temporary folder, and time the calls that screens make."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=50_000)
    count: int = parser.parse_args().photos
    model = mobileclip.load("pocket")
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index.db"
        make_index(index, model, count)
        with Gallery(index, Thumbnails(Path(folder) / "thumbnails"), lambda: model) as gallery:
            start = time.perf_counter()
            gallery.refresh_tags()
            table = Table(title=f"{count:,} photos")
            table.add_column("call")
            table.add_column("ms, best of 3", justify="right")
            table.add_row("all tags from stored vectors, once for a new label set", ms(time.perf_counter() - start))
            for what, seconds in timings(gallery):
                table.add_row(what, ms(seconds))
            tags = gallery.counts().tags
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {tags:,} tags")
    console.print(table)


def make_index(path: Path, model: Model, count: int) -> None:
    """Write photos ten minutes apart in folders of two hundred."""
    random = np.random.default_rng(0)
    labels = model.label_vectors - model.label_vectors.mean(axis=0)
    labels /= np.linalg.norm(labels, axis=1, keepdims=True)
    with Store(path, create=True) as store, store.transaction():
        root = add_root(store, "/p")
        model_id = add_model(store, model.fingerprint, model.name, model.dim)
        for number in range(count):
            tags = labels[random.choice(len(labels), 3, replace=False)]
            vector = random.normal(size=model.dim) * model.dim**-0.5 + random.uniform(0.2, 0.9, 3) @ tags
            facts = Facts(4000, 3000, 1.2e9 + 600.0 * number, "camera")
            found = Found(f"/p/{number // 200}/{number}.jpg", 1, 1)
            content_id = record_photo(store, found, root, random.bytes(32), facts)
            put_vector(store, content_id, model_id, (vector / np.linalg.norm(vector)).astype(np.float32))


def timings(gallery: Gallery) -> list[tuple[str, float]]:
    """Return each call and its seconds."""
    ids = gallery.timeline().ids
    photo, some = int(ids[len(ids) // 2]), ids[len(ids) // 2 :][:60]
    label = gallery.albums()[0].label
    narrow = Filter(labels=(label,), first=date(2008, 6, 1))
    dog_on_beach, dog = (Term("a dog on a beach"),), (Term("a dog"),)

    def open_matrix() -> None:
        gallery._matrix = None
        gallery.matrix()

    def correct() -> None:
        gallery.correct(photo, label, False)

    verdicts = itertools.cycle((None, False))

    def learn() -> None:
        gallery.correct(photo, label, next(verdicts))
        gallery.refresh_tags()

    calls: list[tuple[str, Callable[[], object]]] = [
        ("order and days of all photos", gallery.timeline),
        ("order and days of a label's photos", lambda: gallery.timeline(Filter(labels=(label,)))),
        ("60 rows of the grid", lambda: gallery.photos(some)),
        ("all albums with count and cover", gallery.albums),
        ("open and check all vectors after a change", open_matrix),
        ("search for words", lambda: gallery.search(Query(dog_on_beach))),
        (
            "search for words, with a label and a date",
            lambda: gallery.search(Query(dog_on_beach, filter=narrow)),
        ),
        (
            "search for words, another word excluded",
            lambda: gallery.search(Query(dog, without=("people",))),
        ),
        ("similar photos", lambda: gallery.similar(photo)),
        ("preview of a new label", lambda: gallery.preview(["a red car"])),
        ("tags of a photo", lambda: gallery.tags(photo)),
        ("accept or reject a tag", correct),
        ("apply that to the label of all photos", learn),
        ("the fifty most doubtful tags", gallery.review),
    ]
    return [(what, best(call)) for what, call in calls]


def best(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few calls."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def ms(seconds: float) -> str:
    """Format seconds as milliseconds."""
    return f"{1000 * seconds:.1f}" if seconds < 0.01 else f"{1000 * seconds:,.0f}"


if __name__ == "__main__":
    main()

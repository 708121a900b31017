"""Speed of indexing and searching on this machine: `python -m tests.benchmarks [MODEL]`.

Prints tables, asserts nothing. Only compare figures of the same run, never those of two machines, or of the same
machine on two days.
"""

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import mobileclip
from app.library.files.content import content_hash
from app.library.files.scan import Found, walk
from app.library.index.decode import read_photo
from app.library.index.record import record_photo
from app.library.index.run import Options, index_folders
from app.library.labels.rules import rules_of
from app.library.labels.tagging import label_fingerprint
from app.library.search.rank import best_rows, strong_from
from app.library.store.connection import Store
from app.library.store.matrix import load_matrix
from app.library.store.photos import paths_of
from app.library.store.roots import add_root
from app.library.store.tags import put_tags
from app.library.store.vectors import add_model, put_vector
from mobileclip.encoder import DECODE_MARGIN
from mobileclip.model import Model
from mobileclip.photos import open_photo

PHOTOS = 48
BATCH = 16
REPEATS = 7
REPOSITORY = Path(__file__).parents[2]

console = Console(width=110)


def main() -> None:
    """Run all benchmarks and print them."""
    name = sys.argv[1] if len(sys.argv) > 1 else "pocket"
    packages = ", ".join(f"{package} {version(package)}" for package in ("numpy", "pillow", "onnxruntime"))
    console.print(
        f"{platform.platform()}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"
        f" processors, Python {platform.python_version()}, {packages}, load {os.getloadavg()[0]:.1f}"
    )
    model = mobileclip.load(name)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        make_photos(photos)
        console.print(indexing(model, photos, Path(folder, "stages.db")))
        console.print(whole_runs(model, photos, Path(folder)))
        for count in (10_000, 100_000):
            console.print(searching(model, count, Path(folder, f"{count}.db")))
        console.print(starting(name, photos, Path(folder, "home")))


def make_photos(folder: Path) -> None:
    """Write JPEGs of 4000 × 3000 pixels, as a phone stores them, from different parts of real photographs."""
    folder.mkdir()
    spec = find_spec("sklearn"), find_spec("skimage")
    roots = [Path(found.submodule_search_locations[0]) for found in spec if found and found.submodule_search_locations]
    sources = [
        Image.open(path).convert("RGB")
        for path in (
            roots[0] / "datasets/images/china.jpg",
            roots[0] / "datasets/images/flower.jpg",
            roots[1] / "data/astronaut.png",
            roots[1] / "data/coffee.png",
        )
    ]
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 4, (3000, 4000, 1))
    for number in range(PHOTOS):
        source = sources[number % len(sources)]
        left, top = int(rng.integers(0, source.width // 4)), int(rng.integers(0, source.height // 4))
        part = source.crop((left, top, left + source.width * 3 // 4, top + source.height * 3 // 4))
        # Noise, because enlarged photos without it would compress and decode unlike real ones.
        pixels = np.asarray(part.resize((4000, 3000), Image.Resampling.BICUBIC)) + np.roll(grain, 97 * number, axis=1)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.jpg", quality=90)


@contextmanager
def clock(times: dict[str, float], stage: str) -> Iterator[None]:
    """Add the wall time of the block to `times[stage]`, seconds."""
    started = time.perf_counter()
    yield
    times[stage] = times.get(stage, 0.0) + time.perf_counter() - started


def indexing(model: Model, folder: Path, path: Path) -> Table:
    """Measure each stage of indexing separately, in one thread (except for the tower, which chooses its threads)."""
    found = [event for event in walk(str(folder)) if isinstance(event, Found)]
    times: dict[str, float] = {}
    model.encode_pixels(read_photo(found[0], model.recipe)[None])
    labels = label_fingerprint(model)
    with Store(path, create=True) as store:
        with store.transaction():
            root, model_id = add_root(store, str(folder)), add_model(store, model.fingerprint, model.name, model.dim)
        rules = rules_of(store, model)
        for start in range(0, len(found), BATCH):
            batch = found[start : start + BATCH]
            with clock(times, "hash"):
                hashes = [content_hash(photo.path) for photo in batch]
            with clock(times, "decode"):
                images = [open_photo(photo.path, min_side=DECODE_MARGIN * model.recipe.size) for photo in batch]
            with clock(times, "resize and normalize"):
                pixels = np.stack([model.recipe(image) for image in images])
            with clock(times, "tower"):
                vectors = model.encode_pixels(pixels)
            with clock(times, "labels"):
                tags = rules.decide(vectors)
            with clock(times, "store"), store.transaction():
                for photo, content, vector, given in zip(batch, hashes, vectors, tags, strict=True):
                    content_id = record_photo(store, photo, root, content)
                    put_vector(store, content_id, model_id, vector)
                    put_tags(store, content_id, given, labels)
    size = sum(photo.size for photo in found) / len(found) / 1e6
    table = Table(title=f"Indexing, stage by stage: {len(found)} JPEGs of 12 megapixels, {size:.1f} MB each")
    for column in ("stage", "ms per photo", "photos/s", "share"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    total = sum(times.values())
    for stage, seconds in [*times.items(), ("all stages", total)]:
        each = seconds / len(found)
        table.add_row(stage, f"{each * 1e3:.2f}", f"{1 / each:.1f}", f"{seconds / total:.0%}")
    return table


def whole_runs(model: Model, folder: Path, home: Path) -> Table:
    """Measure the real pipeline: first runs with 1, 2 and 4 decoding threads, unchanged photos, decoding alone."""
    table = Table(title="Indexing, the whole pipeline")
    for column in ("run", "photos/s", "relative to 1 decoder"):
        table.add_column(column, justify="left" if column == "run" else "right")
    speeds: dict[str, float] = {}
    for decoders in (1, 2, 4):
        with Store(home / f"run{decoders}" / "index.db", create=True) as store:
            report = index_folders(store, model, [str(folder)], Options(decoders=decoders, batch_size=BATCH))
            speeds[f"new, {decoders} decoders ahead of the tower"] = report.embedded / report.seconds
            report = index_folders(store, model, [str(folder)], Options(decoders=decoders))
    speeds["unchanged"] = report.unchanged / report.seconds
    found = [event for event in walk(str(folder)) if isinstance(event, Found)]
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda photo: read_photo(photo, model.recipe), found))
    speeds["decoding alone, 2 threads"] = len(found) / (time.perf_counter() - started)
    first = next(iter(speeds.values()))
    for name, speed in speeds.items():
        table.add_row(name, f"{speed:.1f}", f"{speed / first:.2f} ×")
    return table


def median(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median wall time of `work` in seconds, after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def searching(model: Model, count: int, path: Path) -> Table:
    """Compare search over stored vectors with the matrix product alone."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, model.dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    presence = [label.threshold for label in model.labels]
    nothing = np.empty(0, np.int64)
    with Store(path, create=True) as store:
        with store.transaction():
            root, model_id = add_root(store, "/p"), add_model(store, model.fingerprint, model.name, model.dim)
            for number, row in enumerate(rows):
                content = record_photo(store, Found(f"/p/{number}.jpg", 1, 1), root, number.to_bytes(32, "big"))
                put_vector(store, content, model_id, row)
        started = time.perf_counter()
        matrix = load_matrix(store, model.fingerprint)
        built = time.perf_counter() - started
        query = model.encode_texts(["a dog on a beach"])[0]
        scores = matrix.rows @ query

        def whole() -> list[str]:
            mapped = load_matrix(store, model.fingerprint)
            found = mapped.rows @ query
            strong_from(found, presence)
            return [
                p
                for row in best_rows(found, None, nothing, mapped.ids, 10)
                for p in paths_of(store, int(mapped.ids[row]))
            ]

        figures = {
            "NumPy product alone, vectors in memory": median(lambda: rows @ query),
            "product with the mapped file": median(lambda: matrix.rows @ query),
            "ten best hits": median(lambda: best_rows(scores, None, nothing, matrix.ids, 10)),
            "strong or weak": median(lambda: strong_from(scores, presence)),
            "opening the mapped file, with its checksum": median(lambda: load_matrix(store, model.fingerprint)),
            "whole search without the text tower": median(whole),
            "text tower, one query": median(lambda: model.encode_texts(["a dog on a beach"])),
            "rebuilding the mapped file from SQLite": built,
        }
    table = Table(title=f"Search over {count:,} vectors of {model.dim}")
    for column in ("step", "ms", "relative to the product"):
        table.add_column(column, justify="left" if column == "step" else "right")
    product = next(iter(figures.values()))
    for step, seconds in figures.items():
        table.add_row(step, f"{seconds * 1e3:.2f}", f"{seconds / product:.1f} ×")
    return table


def starting(name: str, photos: Path, home: Path) -> Table:
    """Compare whole commands with an interpreter that does nothing."""

    def run(*arguments: str) -> Callable[[], object]:
        environment = os.environ | {"POCKETCLIP_HOME": str(home)}
        command = [sys.executable, *arguments]
        return lambda: subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, check=True)

    few = home.parent / "few"
    few.mkdir()
    for photo in sorted(photos.iterdir())[:4]:
        shutil.copy(photo, few)
    run("-m", "app", "index", str(few), "--model", name)()
    figures = {
        "python -c pass": median(run("-c", "pass")),
        "pocketclip --help": median(run("-m", "app", "--help")),
        "pocketclip status": median(run("-m", "app", "status")),
        "pocketclip tag": median(run("-m", "app", "tag", "--model", name)),
        "pocketclip search, in a new process": median(run("-m", "app", "search", "a dog", "--model", name)),
    }
    table = Table(title="Startup")
    for column in ("command", "s", "relative to bare Python"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for command, seconds in figures.items():
        table.add_row(command, f"{seconds:.3f}", f"{seconds / figures['python -c pass']:.1f} ×")
    return table


if __name__ == "__main__":
    main()

"""How soon the gallery shows photos, and the time and memory of scrolling: `python -m tests.benchmarks.gallery`.

Two windows in separate processes, without a display. One opens an indexed library of 10,000 photos, measured from the
start of the interpreter to the first frame and to the first screen full of thumbnails. The other scrolls through 50,000
photos, one screenful per step, with its memory. Prints tables, asserts nothing. Thumbnails exist already, as after
indexing.
"""

import argparse
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import mobileclip
from app.library.files.exif import Facts
from app.library.files.scan import Found
from app.library.gallery import Gallery
from app.library.index.record import record_photo
from app.library.pictures.thumbnails import Thumbnails
from app.library.store.connection import Store
from app.library.store.roots import add_root
from app.library.store.vectors import add_model, put_vector

FIRST, SCROLLED, STARTS = 10_000, 50_000, 3
STEPS, REPORTS = 1500, 10
PICTURES = 36
REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> None:
    """Make both libraries in a temporary folder and open them, or run one of the windows (`--child`)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", choices=["start", "scroll"])
    parser.add_argument("--home", type=Path)
    parser.add_argument("--since", type=float)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.home, arguments.since)
        return
    console = Console(width=110)
    console.print(f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        first, scrolled = Path(name, "first"), Path(name, "scrolled")
        model = mobileclip.load("pocket")
        fill(first, Path(name, "photos"), FIRST, model, thumbnails=400)
        with Gallery(first / "index.db", Thumbnails(first / "cache" / "thumbnails"), lambda: model) as gallery:
            gallery.refresh_tags()  # as indexing does
        started = [window("start", first)[0] for _ in range(STARTS)]
        table = Table(title=f"Opening the gallery on {FIRST:,} indexed photos, from the start of Python")
        for column in ("what", "s, best", "s, median"):
            table.add_column(column, justify="left" if column == "what" else "right")
        for what in started[0]:
            seconds = sorted(times[what] for times in started)
            table.add_row(what, f"{seconds[0]:.2f}", f"{seconds[len(seconds) // 2]:.2f}")
        console.print(table)
        fill(scrolled, Path(name, "more"), SCROLLED)
        table = Table(title=f"Scrolling through {SCROLLED:,} photos, {STEPS:,} screenfuls")
        for column in ("photos passed", "memory, MB", "textures, MB", "widgets", "ms per step"):
            table.add_column(column, justify="right")
        for line in window("scroll", scrolled):
            table.add_row(*(f"{line[key]:,.0f}" for key in ("passed", "memory", "textures", "widgets", "step")))
        console.print(table)


def fill(home: Path, photos: Path, count: int, model: Any = None, *, thumbnails: int = 0, longest: int = 320) -> None:
    """Make an index of `count` photos, twenty per day, which are links to a few real ones.

    Args:
        home: folder for the index and the thumbnails.
        photos: folder for the photos and the links.
        count: number of photos.
        model: the index gets a random vector of this model for each photo; None for no vectors.
        thumbnails: number of the newest photos to make thumbnails of.
        longest: longer side of the real photos, in pixels.
    """
    from tests.app.ui.library import write_photos

    random = np.random.default_rng(0)
    originals = write_photos(photos / "originals", PICTURES, longest=longest)
    links = photos / "links"
    links.mkdir()
    cache = Thumbnails(home / "cache" / "thumbnails")
    with Store(home / "index.db", create=True) as store, store.transaction():
        root = add_root(store, str(links))
        model_id = add_model(store, model.fingerprint, model.name, model.dim) if model is not None else 0
        for number in range(count):
            original, path = originals[number % PICTURES], links / f"{number:06}.jpg"
            path.symlink_to(original)
            key = hashlib.sha256(str(number).encode()).digest()
            facts = Facts(320, 240, 1.7e9 - 4320.0 * number, "camera")
            content = record_photo(store, Found(str(path), 1, 1), root, key, facts)
            if model is not None:
                vector = random.normal(size=model.dim)
                put_vector(store, content, model_id, (vector / np.linalg.norm(vector)).astype(np.float32))
            if number < thumbnails:
                with Image.open(path) as photo:
                    cache.keep(key.hex(), photo)


def window(what: str, home: Path) -> list[dict[str, float]]:
    """Run one window until it closes, and read its measurements."""
    command = [sys.executable, "-m", "tests.benchmarks.gallery", "--child", what, "--home", str(home)]
    done = subprocess.run(
        [*command, "--since", str(time.monotonic())],
        cwd=REPOSITORY,
        env=os.environ | {"SDL_VIDEODRIVER": os.environ.get("SDL_VIDEODRIVER", "offscreen")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def child(what: str, home: Path, since: float) -> None:
    """Open the gallery as the command does, measure, and close it."""
    from app.ui.launch import configure, make_app, prepare
    from mobileclip.home import Folders

    folders = Folders(home, home / "cache", home / "config")
    prepare(folders)
    configure(1180, 780)
    from kivy.clock import Clock
    from kivy.core.window import Window

    wait_for_rendering()
    app = make_app(folders, functools.partial(mobileclip.load, "pocket"))
    if what == "scroll":
        Clock.schedule_once(lambda _: scroll(app, Clock), 1)
        app.run()
        return
    times: dict[str, float] = {}

    def flipped(_: object) -> None:
        times.setdefault("first frame", time.monotonic() - since)
        screen = app.shell.screen
        if screen is not None and screen.grid.tiles:
            times.setdefault("photos laid out", time.monotonic() - since)
            if all(tile.texture for tile in screen.grid.tiles):
                times["a screen full of thumbnails"] = time.monotonic() - since
                Window.unbind(on_flip=flipped)
                app.stop()

    Window.bind(on_flip=flipped)
    app.run()
    print(json.dumps(times))


def scroll(app: Any, clock: Any) -> None:
    """Scroll through all photos, one screenful per frame, and print measurements from time to time."""
    grid = app.shell.screen.grid
    began = [time.monotonic()]
    at = [0]

    def step(_: float) -> bool:
        at[0] += 1
        grid.scroll.scroll_y = 1 - at[0] / STEPS
        if at[0] % (STEPS // REPORTS) == 0:
            now = time.monotonic()
            line = {
                "passed": len(grid.ids_shown) * at[0] / STEPS,
                "memory": resident() / 1e6,
                "textures": app.pictures.bytes / 1e6,
                "widgets": len(grid.content.children),
                "step": 1e3 * (now - began[0]) * REPORTS / STEPS,
            }
            began[0] = now
            print(json.dumps(line), flush=True)
        if at[0] == STEPS:
            app.stop()
        return at[0] < STEPS

    clock.schedule_interval(step, 0)


def wait_for_rendering() -> None:
    """End each frame only when it is rendered, as with a display.

    Without a display nothing waits, and Mesa's software renderer (llvmpipe 22.3) queues dozens of frames, each with up
    to 36 MB of primitives. Their memory grows to more than 2 GB, but isn't the gallery's, and a frame isn't complete
    before it is visible.
    """
    from kivy.core.window import Window

    Window.bind(on_flip=_finish)


def _finish(_: object) -> None:
    from kivy.graphics.opengl import glFinish

    glFinish()


def resident() -> int:
    """Return the memory of this process in bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()

"""A data set from nothing but packages: rendered pictures, and the photographs that packages carry."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from distill.config.sources import RenderedPictures
from distill.progress import ReportProgress
from distill.render.camera_roll import KINDS, render
from mobileclip.errors import PocketclipError
from mobileclip.files import PathLike, new_folder, write_bytes

PHOTOGRAPHS: Mapping[str, tuple[str, ...]] = {
    "sklearn/datasets/images/china.jpg": ("a Chinese temple among trees", "a red temple roof under a blue sky"),
    "sklearn/datasets/images/flower.jpg": ("an orange flower", "a close-up photo of a flower"),
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": ("a portrait of a naval officer", "a woman in uniform"),
}
"""Photographs that packages of the `train` extra carry, with our own captions."""

_TEST_SHARE = 0.15
_LONGEST = 512  # pixels


def render_missing(plan: RenderedPictures, data: PathLike, seed: int, report: ReportProgress, workers: int = 2) -> Path:
    """Render the pictures of a recipe's `[render]` if its folder isn't there yet.

    The folder gets images/, captions.jsonl (file, caption, split) and labels.csv (file, label, split). It appears as a
    whole, so a run that was interrupted starts over.

    Args:
        plan: the folder and the number of pictures.
        data: the folder that the plan's folder is relative to.
        seed: the same seed gives the same pixels.
        report: called with the number of finished pictures.
        workers: number of processes.

    Returns:
        The folder.

    Raises:
        PocketclipError: there is another folder of this name, or the disk is full.
    """
    folder = Path(data) / plan.folder
    if (folder / "captions.jsonl").is_file():
        return folder
    if folder.exists():
        raise PocketclipError(f"{folder}: exists but holds no rendered pictures; move it away or set render.folder")
    try:
        with new_folder(folder) as part:
            (part / "images").mkdir()
            _write(part, plan.per_kind, seed, report, workers)
    except OSError as error:
        raise PocketclipError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return folder


def _write(folder: Path, per_kind: int, seed: int, report: ReportProgress, workers: int) -> None:
    photographs = list(_photographs(folder))
    files = dict.fromkeys(row["file"] for row in photographs)
    backgrounds = [Image.open(folder / file).convert("RGB") for file in files]
    captions, labels = [*photographs], []
    wanted = [(kind, seed * 1_000_003 + number) for kind in KINDS for number in range(per_kind)]
    with ProcessPoolExecutor(workers) as pool:
        rendered = pool.map(partial(_save, folder, backgrounds), *zip(*wanted, strict=True), chunksize=8)
        for done, (file, (kind, number)) in enumerate(zip(rendered, wanted, strict=True), 1):
            chance = random.Random(f"split {kind} {number}")
            split = "test" if chance.random() < _TEST_SHARE else "train"
            captions += [{"file": file, "caption": text, "split": split} for text in KINDS[kind]]
            labels.append((file, kind, split))
            report("render", done, len(wanted), kind)
    table = [("file", "label", "split"), *labels]
    write_bytes(folder / "labels.csv", "".join(",".join(row) + "\n" for row in table).encode())
    write_bytes(folder / "captions.jsonl", "".join(json.dumps(row) + "\n" for row in captions).encode())


def _save(folder: Path, backgrounds: list[Image.Image], kind: str, number: int) -> str:
    file = f"images/{kind.replace(' ', '-')}-{number:04}.webp"
    render(kind, number, backgrounds).save(folder / file, "WEBP", quality=82, method=2)
    return file


def _photographs(folder: Path) -> Iterator[dict[str, str]]:
    """Copy the photographs of packages, and yield a row for each of their captions."""
    for name, captions in PHOTOGRAPHS.items():
        package, _, inside = name.partition("/")
        found = importlib.util.find_spec(package)
        path = Path(found.origin).parent / inside if found and found.origin else None
        if path is None or not path.is_file():
            continue
        file = f"images/{path.stem}.webp"
        with Image.open(path) as photo:
            small = photo.convert("RGB")
        small.thumbnail((_LONGEST, _LONGEST))
        small.save(folder / file, "WEBP", quality=90)
        yield from ({"file": file, "caption": caption, "split": "train"} for caption in captions)

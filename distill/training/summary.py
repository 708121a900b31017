"""What a finished run reached, next to chance, and what to do with the student."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.config import Recipe
from mobileclip.files import PathLike


def summarize(recipe: Recipe, out: PathLike, data: PathLike) -> list[str]:
    """Return lines about a finished run: the best student's measurements and the next commands.

    Args:
        recipe: the run's recipe.
        out: its folder.
        data: the data folder.
    """
    out, evaluation = Path(out), Path(out) / "best" / "evaluation.json"
    lines = []
    if recipe.validate is not None and evaluation.is_file():
        result = json.loads(evaluation.read_text("utf-8"))
        lines += [f"best student: step {result['step']}", *_measured(result)]
    folder = out / ("best" if lines else "student")
    photos = str(Path(data) / recipe.render.folder / "images") if recipe.render else "~/Pictures"
    query, bundle = "a receipt" if recipe.render else "a dog on a beach", out / "bundle"
    return [
        *lines,
        "next:",
        f"  pocketclip export {folder} -o {bundle} --photos {photos}",
        f"  pocketclip index {photos} --model {bundle}",
        f'  pocketclip search "{query}" --model {bundle}',
    ]


def _measured(result: dict[str, Any]) -> Iterator[str]:
    if "top1" in result:
        low, high = result["intervals"]["top1"]
        yield (
            f"  {result['top1']:.0%} of {result['n']} photos are nearest to their own label among {result['classes']} "
            f"(95 % interval {low:.0%} to {high:.0%}; chance {1 / result['classes']:.0%})"
        )
    if "text_to_photo" in result:
        chance = min(1.0, 10 / result["n_photos"])
        yield (
            f"  {result['text_to_photo']['R@10']:.0%} of {result['n_captions']} captions find their photo among the "
            f"first ten of {result['n_photos']} (chance {chance:.0%})"
        )

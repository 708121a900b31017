"""The parity report: a table for the terminal, JSON, and a plot of accuracy and latency by size."""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from export.measure.parity import OVERLAP

SOURCES = {
    "captions": "photos with their captions",
    "labels": "held-out labeled photos, searched for the labels",
    "photos": "photos of a folder, searched for everyday things",
    "drawn": "DRAWN pictures, because no photos were given: they say little about real ones",
}


def machine() -> dict[str, Any]:
    """Where latencies were measured. Compare only those of one report."""
    return {"system": platform.platform(), "processors": os.cpu_count(), "python": platform.python_version()}


def as_json(report: Mapping[str, Any]) -> str:
    """The whole report."""
    return json.dumps(report, indent=2, ensure_ascii=False)


def table(report: Mapping[str, Any]) -> Table:
    """One row of figures for each variant; the default of each engine is marked with *."""
    gallery = report["gallery"]
    head = f"{gallery['photos']:,} {SOURCES[gallery['source']]}; {gallery['texts']:,} texts"
    rows = Table(title=head, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    columns = (
        "",
        "MB",
        "cosine to torch, median / 1 %\nimage",
        "\ntext",
        "max abs",
        "same\nnearest 10",
        "R@10",
        "mAP",
        "image ms\n1 / all threads",
        "text ms\n1 / all threads",
        "load ms",
        "peak MB",
    )
    for number, title in enumerate(columns):
        rows.add_column(title, justify="right" if number else "left", no_wrap=True)
    for row in report["variants"]:
        rows.add_row(*_cells(row))
    return rows


def _cells(row: Mapping[str, Any]) -> list[str]:
    image, text = row["image"], row["text"]
    star = "*" if row["default"] else "!" if row["misses_budget"] else ""
    return [
        f"{row['engine']} {row['precision']} {star}",
        f"{row['bytes'] / 1e6:.1f}",
        f"{image['cosine_median']:.5f} / {image['cosine_p1']:.5f}",
        f"{text['cosine_median']:.5f} / {text['cosine_p1']:.5f}",
        f"{max(image['max_abs'], text['max_abs']):.1e}",
        f"{100 * row['overlap']:.1f} %",
        _change(row["recall"], row["recall_exact"]),
        _change(row["map"], row["map_exact"]),
        _times(image),
        _times(text),
        f"{image['load_ms'] + text['load_ms']:.0f}",
        f"{image['memory_mb'] + text['memory_mb']:.0f}",
    ]


def _change(value: float | None, exact: float | None) -> str:
    if value is None or exact is None:
        return "–"
    return f"{100 * value:.2f} ({100 * (value - exact):+.2f})"


def _times(side: Mapping[str, Any]) -> str:
    single, parallel = side["ms_1_thread"], side["ms_all_threads"]
    return "–" if single is None or parallel is None else f"{single:.1f} / {parallel:.1f}"


def plot(report: Mapping[str, Any]) -> bytes:
    """PNG: the nearest photos that each variant keeps, and its latency, by its size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (kept, speed) = pyplot.subplots(1, 2, figsize=(10, 4))
    rows: Sequence[Mapping[str, Any]] = report["variants"]
    for number, engine in enumerate(dict.fromkeys(row["engine"] for row in rows)):
        own = [row for row in rows if row["engine"] == engine]
        style = {"marker": "os^D"[number % 4], "color": f"C{number}", "linestyle": "", "label": engine}
        kept.plot([row["bytes"] / 1e6 for row in own], [100 * row["overlap"] for row in own], **style)
        timed = [row for row in own if row["image"]["ms_1_thread"] is not None]
        total = [row["image"]["ms_1_thread"] + row["text"]["ms_1_thread"] for row in timed]
        speed.plot([row["bytes"] / 1e6 for row in timed], total, **style)
        for row in own:
            kept.annotate(row["precision"], (row["bytes"] / 1e6, 100 * row["overlap"]), **_label(number))
        for row, milliseconds in zip(timed, total, strict=True):
            speed.annotate(row["precision"], (row["bytes"] / 1e6, milliseconds), **_label(number))
    kept.axhline(100 * OVERLAP, color="gray", linewidth=0.8, linestyle="--")
    kept.set_ylabel("nearest 10 photos that stay the same, %")
    speed.set_ylabel("one photo and one text, 1 thread, ms")
    for axes in (kept, speed):
        axes.set_xlabel("both towers, MB")
        axes.margins(y=0.2)
        axes.set_xlim(0, 1.2 * max(row["bytes"] for row in rows) / 1e6)
        axes.grid(alpha=0.3)
    speed.set_ylim(bottom=0)
    kept.legend(loc="lower right")
    figure.suptitle(report["name"])
    figure.tight_layout()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return stream.getvalue()


def _label(engine: int) -> dict[str, Any]:
    """Points of two engines are often close: labels lean up from those of one and down from those of the next."""
    side = 1 if engine % 2 == 0 else -1
    return {
        "fontsize": 8,
        "color": f"C{engine}",
        "xytext": (3, 5 * side),
        "textcoords": "offset points",
        "rotation": 35 * side,
        "rotation_mode": "anchor",
        "verticalalignment": "center",
    }

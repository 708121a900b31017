"""`report.html`: a run on one page, without scripts or external resources."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import Recipe
from distill.evaluate.tables import Grid, counts, grids
from distill.files import write_whole
from distill.logs import METRICS, Line, is_loss
from distill.report.charts import HEIGHT, WIDTH, SizeMark, line_chart
from distill.report.series import Series, read_series
from distill.report.settings import settings
from mobileclip.checkpoint_files import WEIGHTS
from mobileclip.files import PathLike

REPORT = "report.html"
TITLES = {
    "loss": "loss, weighted sum",
    "lr": "learning rate",
    "logit_scale": "logit scale",
    "gradient_norm": "gradient norm, unclipped",
    "photos_per_second": "photos (or texts) per second",
    "wait": "share of time waiting for data",
    "unread": "unreadable photos",
    "validation": "validation: mean R@10 of both directions",
}
SPEED = ("photos_per_second", "wait", "unread")
NO_CURVES = ("epoch", "px", "seconds", "time")


@dataclass(frozen=True)
class Curve:
    """A chart of a figure, and the first and last value of its smoothed line."""

    name: str
    title: str
    chart: str
    first: str
    last: str


@dataclass(frozen=True)
class Evaluation:
    """Results of `pocketclip evaluate --json`: title, number of photos and texts, and rates."""

    title: str
    counts: str
    grids: Sequence[Grid]


def write_report(out: PathLike, recipe: Recipe) -> Path:
    """Write the report of a run, finished or in progress, into its folder.

    It includes results of `pocketclip evaluate --json` from `evaluation.json` and `evaluation-NAME.json`, in the run's
    folder or one level below.

    Args:
        out: the run's folder, with its `metrics.jsonl`.
        recipe: the run's recipe.

    Returns:
        The path of the page.

    Raises:
        LogError: the metrics can't be read.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    out = Path(out)
    lines, series = read_series(out / METRICS)
    environment = Environment(
        loader=PackageLoader("distill.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every = settings(recipe)
    text = environment.get_template("page.html").render(
        recipe=recipe,
        facts=_facts(out, recipe, lines, series),
        evaluations=[found for path in _evaluation_files(out) if (found := _read_evaluation(path, out))],
        groups=_groups(series, _size_marks(lines)),
        chosen=[setting for setting in every if setting.chosen],
        settings=every,
        view_box=f"0 0 {WIDTH} {HEIGHT}",
        written=_date(time.time()),
    )
    page = out / REPORT
    write_whole(page, lambda stream: stream.write(text.encode("utf-8", "replace")))
    return page


def _facts(out: Path, recipe: Recipe, lines: Sequence[Line], series: Mapping[str, Series]) -> list[tuple[str, str]]:
    """Return the facts at the top of the page as pairs of name and value."""
    epochs, seconds, when = sum(stage.epochs for stage in recipe.stages), series.get("seconds"), series.get("time")
    step = int(lines[-1]["step"] or 0) if lines else 0
    epoch = series["epoch"].values[-1] + 1 if "epoch" in series else 0
    student = out / "student" / WEIGHTS
    # A student older than the last step is from another run; log times are rounded, so allow a second.
    finished = student.is_file() and bool(lines) and student.stat().st_mtime >= (lines[-1].get("time") or 0) - 1
    facts = [
        ("state", "finished" if finished else "not finished"),
        ("steps", f"{step:,}"),
        ("epochs", f"{epoch:.0f} of {epochs:,}"),
        ("batch", f"{recipe.optim.batch:,}"),
    ]
    if when and seconds:
        facts += [
            ("started", _date(when.values[0] - seconds.values[0])),
            ("last step", _date(when.values[-1])),
            ("training time", _duration(seconds.values.sum())),
        ]
    if "photos_per_second" in series:
        facts.append(("photos per second", f"{_median(series['photos_per_second']):,.0f}"))
    if "wait" in series:
        facts.append(("waiting for data", f"{100 * series['wait'].values.mean():.1f} %"))
    if "unread" in series:
        facts.append(("unreadable photos", f"{series['unread'].values[-1]:,.0f}"))
    towers = _parameters(student).items()
    return facts + [(f"parameters, {tower} tower", f"{count / 1e6:,.2f} M") for tower, count in towers]


def _median(series: Series) -> float:
    return float(sorted(series.values)[len(series.values) // 2])


def _parameters(student: Path) -> dict[str, int]:
    """Count the weights of each tower in a checkpoint, without BatchNorm statistics; empty if it can't be read."""
    import math

    from safetensors import SafetensorError, safe_open

    found: dict[str, int] = {}
    try:
        with safe_open(student, "numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a dictionary)
                tower = name.partition(".")[0]
                if tower in ("image", "text") and "running_" not in name and "num_batches" not in name:
                    found[tower] = found.get(tower, 0) + math.prod(weights.get_slice(name).get_shape())
    except (OSError, SafetensorError):
        return {}
    return found


def _groups(series: Mapping[str, Series], marks: Sequence[SizeMark]) -> list[tuple[str, list[Curve]]]:
    """Return charts under headings; unknown figures are listed with the losses."""
    shown = {name: figure for name, figure in series.items() if name not in NO_CURVES}
    losses = sorted((name for name in shown if is_loss(name)), key=lambda name: name != "loss")
    speed = [name for name in SPEED if name in shown and (name != "unread" or shown[name].values.any())]
    rest = [name for name in shown if name not in (*losses, *SPEED)]
    groups = (("Losses", losses), ("Optimization", rest), ("Speed", speed))
    return [(title, [_curve(shown[name], marks) for name in names]) for title, names in groups if names]


def _curve(series: Series, marks: Sequence[SizeMark]) -> Curve:
    smooth = series.smooth
    title = TITLES.get(series.name, series.name.replace("_", " "))
    return Curve(series.name, title, line_chart(series, marks), f"{smooth[0]:.4g}", f"{smooth[-1]:.4g}")


def _size_marks(lines: Sequence[Line]) -> list[SizeMark]:
    """Find where the picture size changes."""
    found: list[SizeMark] = []
    for line in lines:
        size = line.get("px")
        label = f"{size:g} px" if size else "texts"
        if size is not None and (not found or found[-1].label != label):
            found.append(SizeMark(float(line["step"] or 0), label))
    return found


def _evaluation_files(out: Path) -> list[Path]:
    return sorted(path for pattern in ("evaluation*.json", "*/evaluation*.json") for path in out.glob(pattern))


def _read_evaluation(path: Path, out: Path) -> Evaluation | None:
    """Read an evaluation; None if the file doesn't contain one."""
    try:
        result: Any = json.loads(path.read_text("utf-8"))
        tables = grids(result)
        summary = counts(result)
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    folder = "" if path.parent == out else f"{path.parent.name}: "
    title = path.stem.removeprefix("evaluation").strip("-_ ") or str(result.get("captions", "evaluation"))
    return Evaluation(folder + title, summary, tables) if tables else None


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"

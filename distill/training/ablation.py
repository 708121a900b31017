"""Ablation: measure what each ingredient of a recipe brings, with short runs that leave it out.

    python -m distill.training.ablation distill/recipes/pocket/ablation.toml --data DATA --out runs/ablation

A plan names a recipe, settings that shorten its runs, variations, and measures. Finished runs are not repeated, and a
killed run resumes.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from distill.config import Recipe
from distill.evaluate.encoders import DualEncoder, open_encoder
from distill.evaluate.run import evaluate_captions, evaluate_labels
from distill.files import write_whole
from distill.progress import Bars
from distill.training.run import prepare
from mobileclip.errors import ConfigError, PocketclipError, one_line
from mobileclip.files import PathLike
from mobileclip.tables import build


@dataclass(frozen=True)
class Variation:
    """A run with other settings."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted recipe settings and their values."""
    without: tuple[str, ...] = ()
    """Names of photo sources to leave out."""


@dataclass(frozen=True)
class Measure:
    """A column of the table: text → photo R@10 for captions (.jsonl), top-1 for labels."""

    name: str
    file: str
    splits: str = ""
    split: str = ""

    def rate(self, encoder: DualEncoder, data: Path) -> float:
        """Return the rate, 0 to 1."""
        file, splits = data / self.file, data / self.splits if self.splits else None
        if file.suffix == ".jsonl":
            return float(evaluate_captions(encoder, file, splits, self.split or None)["text_to_photo"]["R@10"])
        return float(evaluate_labels(encoder, file, splits, self.split or None)["top1"])


@dataclass(frozen=True)
class Plan:
    """The runs of an ablation."""

    recipe: str
    """The recipe's file, relative to the plan."""
    variations: tuple[Variation, ...]
    measures: tuple[Measure, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of every run."""

    @classmethod
    def load(cls, path: PathLike) -> Plan:
        """Read a plan.

        Raises:
            ConfigError: the plan can't be read, or a setting is unknown or of the wrong type.
        """
        try:
            plan: Plan = build(cls, tomllib.loads(Path(path).read_text("utf-8")), str(path))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({one_line(error)})") from error
        return plan

    def recipe_of(self, variation: Variation, base: Path) -> Recipe:
        """Return a variation's recipe.

        Raises:
            ConfigError: a setting is invalid, or a source to leave out doesn't exist.
        """
        recipe = Recipe.load(base / self.recipe, {**self.settings, **variation.settings})
        if missing := set(variation.without) - {source.name for source in recipe.photos}:
            raise ConfigError(f"{variation.name}: the recipe has no photos {min(missing)!r} to leave out")
        kept = tuple(source for source in recipe.photos if source.name not in variation.without)
        return dataclasses.replace(recipe, name=variation.name, photos=kept)


def ablate(plan: Plan, base: PathLike, data: PathLike, out: PathLike, progress: Bars) -> dict[str, dict[str, float]]:
    """Train every variation; returns the rates by the names of variations and measures.

    Args:
        plan: the runs.
        base: the plan's folder.
        data: folder that the recipe's data files are relative to.
        out: folder for the runs.
        progress: shows the progress of each run.

    Raises:
        PocketclipError: a run or a measure fails.
    """
    return {
        variation.name: _rates(plan, variation, Path(base), Path(data), Path(out), progress)
        for variation in plan.variations
    }


def _rates(plan: Plan, variation: Variation, base: Path, data: Path, out: Path, progress: Bars) -> dict[str, float]:
    folder = out / variation.name.replace(" ", "-")
    done = folder / "rates.json"
    if not done.exists():
        # All runs share the encoders' embeddings, and runs with the same photos and teacher share its heads.
        folder.mkdir(parents=True, exist_ok=True)
        (out / "cache").mkdir(exist_ok=True)
        if not (folder / "cache").exists():
            (folder / "cache").symlink_to("../cache")
        progress.say(variation.name)
        run = prepare(plan.recipe_of(variation, base), base, data, folder, progress.report)
        for step in run.trainer.run():
            progress.step(step)
        encoder = open_encoder(str(run.finish()))
        text = json.dumps({measure.name: measure.rate(encoder, data) for measure in plan.measures}).encode()
        write_whole(done, lambda stream: stream.write(text))
    rates: dict[str, float] = json.loads(done.read_text("utf-8"))
    return rates


def table(rates: Mapping[str, Mapping[str, float]], plan: Plan) -> str:
    """Format the rates in percent as a Markdown table."""
    names = [measure.name for measure in plan.measures]
    rows = [["", *names], ["---"] * (len(names) + 1)]
    rows += [[name, *(f"{100 * found[column]:.1f}" for column in names)] for name, found in rates.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(
    plan: Annotated[Path, typer.Argument(help="The plan, a .toml file.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder that the recipe's data files are relative to.")] = Path(),
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/ablation"),
) -> None:
    """Train the variations of a recipe and print their rates."""
    from distill.training.allocator import keep_freed_memory

    keep_freed_memory()
    try:
        read = Plan.load(plan)
        with Bars(quiet=False) as progress:
            rates = ablate(read, plan.parent, data, out, progress)
    except PocketclipError as error:
        typer.echo(f"ablation: {error}", err=True)
        raise typer.Exit(2) from None
    print(table(rates, read))


if __name__ == "__main__":
    typer.run(main)

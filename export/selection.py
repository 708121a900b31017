"""Which variants go into a bundle: each is made and measured, and what fails or misses the budget is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.answers import own_answers
from export.formats import SIDES, ExportError, Format, Side
from export.measure.parity import Figures
from export.measure.variants import Reference, Variant, make_variant, measure
from mobileclip.errors import EngineError
from mobileclip.towers import CLIP, reparameterize

Say = Callable[[str], None]
"""Shows a message of one line."""


@dataclass(frozen=True)
class MeasuredVariant:
    """A variant that runs.

    Attributes:
        variant: its towers.
        figures: how close they are, and what they cost.
        answers: its own known answers, see `own_answers`.
    """

    variant: Variant
    figures: Figures
    answers: bytes | None


@dataclass(frozen=True)
class Selection:
    """What became of each variant.

    Attributes:
        measured: those that run, in the order they were asked for.
        kept: those that go into the bundle, at least one.
        left_out: all others, with the reason.
    """

    measured: tuple[MeasuredVariant, ...]
    kept: tuple[MeasuredVariant, ...]
    left_out: Mapping[str, str]

    @property
    def defaults(self) -> dict[str, MeasuredVariant]:
        """Engine → its smallest variant within the budget; if all of them miss it, the most accurate."""
        engines = dict.fromkeys(entry.figures.engine for entry in self.kept)
        return {
            engine: min((entry for entry in self.kept if entry.figures.engine == engine), key=_rank)
            for engine in engines
        }

    @property
    def first(self) -> MeasuredVariant:
        """The default variant of the first engine."""
        return next(iter(self.defaults.values()))


def _rank(entry: MeasuredVariant) -> tuple[bool, float]:
    missed = bool(entry.figures.misses())
    return missed, -entry.figures.overlap if missed else entry.figures.bytes


def choose_precisions(
    formats: Sequence[Format], precisions: Sequence[str], say: Say
) -> list[tuple[Format, tuple[str, ...]]]:
    """Which of some precisions each engine has.

    Raises:
        ExportError: no engine has a precision, or an engine has none of them.
    """
    known = list(dict.fromkeys(name for made_by in formats for name in made_by.precisions))
    if unknown := [name for name in precisions if name not in known]:
        raise ExportError(f"unknown precision {unknown[0]!r}: choose from {', '.join(known)}")
    plan = []
    for made_by in formats:
        available = ", ".join(made_by.precisions)
        wanted = tuple(name for name in precisions if name in made_by.precisions)
        if not wanted:
            raise ExportError(f"{made_by.engine} has none of these precisions: choose from {available}")
        if lacking := [name for name in precisions if name not in wanted]:
            say(f"{made_by.engine} has no {', '.join(lacking)}; it has {available}")
        plan.append((made_by, wanted))
    return plan


def select_variants(
    plan: Sequence[tuple[Format, Sequence[str]]],
    reference: Reference,
    folder: Path,
    *,
    threads: int | None,
    force: bool,
    say: Say,
) -> Selection:
    """Make and measure each variant, and keep those within the accuracy budget.

    Args:
        plan: engines, each with its precisions.
        reference: the checkpoint, and what it makes of photos and texts.
        folder: for the files of the towers while they run.
        threads: of the engines; None for their default.
        force: keep also what misses the budget.
        say: shows what is being done and what is left out.

    Raises:
        ExportError: a tower can't be converted, or nothing is kept.
    """
    measured: list[MeasuredVariant] = []
    left_out: dict[str, str] = {}

    def leave_out(name: str, why: str) -> None:
        left_out[name] = why
        say(f"{name} is left out: {why}")

    towers = reparameterize(reference.encoder.model)
    calibration = reference.calibration_inputs()
    for made_by, precisions in plan:
        converted = _convert(made_by, towers, say)
        for precision in precisions:
            name = f"{made_by.engine} {precision}"
            try:
                say(f"{name}: quantizing" if precision != "fp32" else f"{name}: as converted")
                variant = make_variant(made_by, converted, precision, calibration, folder)
                say(f"{name}: measuring")
                figures = measure(variant, reference, threads)
                measured.append(MeasuredVariant(variant, figures, own_answers(variant, reference.encoder, threads)))
            except (ExportError, EngineError) as error:
                leave_out(name, str(error))
    if not measured:
        raise ExportError(f"no variant could be made: {'; '.join(left_out.values())}")
    kept = []
    for entry in measured:
        missed = entry.figures.misses()
        if missed and not force:
            leave_out(str(entry.variant), f"misses the budget: {missed} (--force writes it anyway)")
        else:
            kept.append(entry)
    if not kept:
        raise ExportError(f"nothing is written: {'; '.join(left_out.values())}")
    return Selection(tuple(measured), tuple(kept), left_out)


def _convert(made_by: Format, model: CLIP, say: Say) -> dict[Side, bytes]:
    """Both towers in float32."""
    converted: dict[Side, bytes] = {}
    for side in SIDES:
        say(f"{made_by.engine}: converting the {side} tower")
        converted[side] = made_by.convert(model, side)
        if left := made_by.cpu_operators(converted[side]):
            listed = ", ".join(f"{operator} ({count})" for operator, count in left.items())
            say(f"{made_by.engine}: on a GPU, the CPU still runs these operators of the {side} tower: {listed}")
    return converted

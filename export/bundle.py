"""A bundle from a checkpoint: towers of any engines and precisions, labels calibrated for each, and figures."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from distill.evaluate.evidence import KnownPhoto, LabelEvidence, read_evidence, read_known_photos
from export.answers import known_answers, npy, own_answers
from export.config import ExportConfig
from export.formats import SIDES, ExportError, Format, Side, load_format
from export.labels import Fitted, fit_variants, label_vectors, labels_toml
from export.measure.parity import Figures
from export.measure.photos import Gallery, drawn, from_captions, from_evidence, from_folder
from export.measure.report import as_json, machine, plot
from export.measure.variants import Variant, exact_vectors, make_variant, measure
from export.onnx.convert import IMAGE_OUTPUTS, export_head, pools_by_mean
from mobileclip.bundle import write_bundle
from mobileclip.checkpoints import Checkpoint, load_checkpoint
from mobileclip.errors import EngineError, TextCutWarning
from mobileclip.manifest import EngineTowers, FeatureMap, Manifest, TokenizerSpec, TowerVariant
from mobileclip.runtimes import ENGINES
from mobileclip.torch_model import TorchModel
from mobileclip.towers import CLIP, reparameterize

Report = Callable[[str, int, int], None]
Say = Callable[[str], None]

HEAD: Final = "head.npz"
LABELS: Final = "labels.toml"


@dataclass(frozen=True)
class Made:
    """A variant that will be in the bundle, and its figures."""

    variant: Variant
    figures: Figures
    answers: bytes | None


def export_bundle(config: ExportConfig, report: Report, say: Say = lambda _: None) -> dict[str, Any]:
    """Convert, quantize and measure a checkpoint's towers, and write those within the budget as one bundle.

    Args:
        config: what is asked for.
        report: told how far photos are.
        say: told, a line each, what is being done and what is left out.

    Returns:
        The parity report: `variants` (see `Figures.to_dict`), `left_out` (variant → why), `gallery`, `machine`, and of
        the default variant `parity`, `tagging` and `calibration`.

    Raises:
        PocketclipError: a file is missing, a package is not installed, nothing can be converted, or nothing is within
            the budget. Nothing has been written then.
    """
    with warnings.catch_warnings():
        # Captions and prompts that are cut are cut alike for every tower, torch's too.
        warnings.simplefilter("ignore", TextCutWarning)
        return _export(config, report, say)


def _export(config: ExportConfig, report: Report, say: Say) -> dict[str, Any]:
    formats = [load_format(name, uint8=config.uint8) for name in config.formats]
    plan = _plan(formats, config.precisions, say)
    checkpoint = load_checkpoint(config.weights, config.model)
    labels, photos = _evidence(config)
    encoder = TorchModel(checkpoint.model, checkpoint.tokenizer)
    say("reading photos, and their vectors by float32 torch")
    exact = exact_vectors(encoder, _gallery(config, encoder, labels, photos))
    try:
        with tempfile.TemporaryDirectory() as folder:
            work = _Work(config, encoder, Path(folder), say)
            made = work.make(plan, exact)
            kept = work.within_budget(made)
            chosen = _defaults(kept)
            rows = label_vectors(encoder, labels)
            fitted = {}
            if labels:
                say("fitting label thresholds")
                variants = [one.variant for one in kept]
                fitted = fit_variants(variants, encoder, labels, photos, rows, config.threads, report)
            told = _told(checkpoint, config, exact.gallery, made, chosen, fitted, work.left_out)
            say(f"writing {config.out}")
            files = {
                **_shared_files(checkpoint, encoder, npy(rows)),
                **_label_files(kept, chosen, labels, fitted),
                "parity.json": as_json(told).encode("utf-8"),
                "parity.png": plot(told),
            }
            for one in kept:
                files |= one.variant.files() | ({_answers_name(one): one.answers} if one.answers else {})
            write_bundle(config.out, _manifest(checkpoint, config, kept, chosen, fitted, told), files)
    except OSError as error:
        raise ExportError(f"{config.out}: cannot be written ({error.strerror or error})") from error
    return told


def _plan(formats: Sequence[Format], precisions: Sequence[str], say: Say) -> list[tuple[Format, list[str]]]:
    """Which precisions each engine has of those asked for."""
    known = list(dict.fromkeys(name for one in formats for name in one.precisions))
    if unknown := [name for name in precisions if name not in known]:
        raise ExportError(f"unknown precision {unknown[0]!r}: there is {', '.join(known)}")
    plan = []
    for one in formats:
        wanted = [name for name in precisions if name in one.precisions]
        if not wanted:
            raise ExportError(f"{one.engine} has none of these precisions: it has {', '.join(one.precisions)}")
        if lacking := [name for name in precisions if name not in wanted]:
            say(f"{one.engine} has no {', '.join(lacking)}; it has {', '.join(one.precisions)}")
        plan.append((one, wanted))
    return plan


def _evidence(config: ExportConfig) -> tuple[tuple[LabelEvidence, ...], list[KnownPhoto]]:
    if config.evidence is None or config.data is None:
        return (), []
    evidence = read_evidence(config.evidence)
    return evidence.labels, read_known_photos(config.data, evidence.collections)


def _gallery(
    config: ExportConfig, encoder: TorchModel, labels: Sequence[LabelEvidence], photos: Sequence[KnownPhoto]
) -> Gallery:
    if config.captions is not None:
        return from_captions(encoder.recipe, config.captions, config.splits, config.split)
    if config.photos is not None:
        return from_folder(encoder.recipe, config.photos)
    if photos:
        return from_evidence(encoder.recipe, photos, labels)
    return drawn(encoder.recipe)


class _Work:
    """Makes and measures variants one after the other; one that fails is left out and told."""

    def __init__(self, config: ExportConfig, encoder: TorchModel, folder: Path, say: Say) -> None:
        self.config, self.encoder, self.folder, self.say = config, encoder, folder, say
        self.left_out: dict[str, str] = {}

    def make(self, plan: Sequence[tuple[Format, list[str]]], exact: Any) -> list[Made]:
        """All that can be made and run.

        Raises:
            ExportError: a tower cannot be converted at all, or nothing is left.
        """
        fused = reparameterize(self.encoder.model)
        gallery: Gallery = exact.gallery
        calibration = _calibration(self.encoder, gallery)
        made = []
        for one, precisions in plan:
            converted: dict[Side, bytes] = {}
            for side in SIDES:
                self.say(f"{one.engine}: converting the {side} tower")
                converted[side] = one.convert(fused, side)
            for precision in precisions:
                name = f"{one.engine} {precision}"
                self.say(f"{name}: quantizing" if precision != "fp32" else f"{name}: as converted")
                try:
                    variant = make_variant(one, converted, precision, calibration, self.folder)
                    self.say(f"{name}: measuring")
                    figures = measure(variant, self.encoder, exact, self.config.threads)
                    answers = own_answers(variant, self.encoder, self.config.threads)
                except (ExportError, EngineError) as error:
                    self._leave_out(name, str(error))
                    continue
                made.append(Made(variant, figures, answers))
        if not made:
            raise ExportError(f"nothing could be made: {'; '.join(self.left_out.values())}")
        return made

    def within_budget(self, made: Sequence[Made]) -> list[Made]:
        """Those that may be shipped; all of them by force.

        Raises:
            ExportError: none may.
        """
        kept = []
        for one in made:
            missed = one.figures.misses()
            if missed and not self.config.force:
                self._leave_out(str(one.variant), f"misses the budget: {missed} (--force writes it all the same)")
            else:
                kept.append(one)
        if not kept:
            raise ExportError(f"nothing is written: {'; '.join(self.left_out.values())}")
        return kept

    def _leave_out(self, name: str, why: str) -> None:
        self.left_out[name] = why
        self.say(f"{name} is left out: {why}")


def _calibration(encoder: TorchModel, gallery: Gallery) -> dict[Side, list[Any]]:
    """Inputs one by one: photos, where there are real ones, and texts of full length."""
    photos = [encoder.recipe.normalize_uint8(one[None]) for one in gallery.calibration]
    step = max(1, len(gallery.texts) // 64)
    tokens = encoder.tokenizer(list(gallery.texts[::step][:64]))
    return {"image": photos, "text": [one[None] for one in tokens]}


def _defaults(kept: Sequence[Made]) -> dict[str, Made]:
    """Engine → its smallest variant within the budget; by force alone, the one that keeps most."""
    chosen: dict[str, Made] = {}
    for one in kept:
        best = chosen.setdefault(one.figures.engine, one)
        if _rank(one.figures) < _rank(best.figures):
            chosen[one.figures.engine] = one
    return chosen


def _rank(figures: Figures) -> tuple[bool, float]:
    missed = bool(figures.misses())
    return missed, -figures.overlap if missed else figures.bytes


def _shared_files(checkpoint: Checkpoint, encoder: TorchModel, rows: bytes) -> dict[str, bytes]:
    head = {HEAD: export_head(checkpoint.model)} if pools_by_mean(checkpoint.model) else {}
    return {
        **head,
        "merges.txt.gz": checkpoint.merges,
        "label_vectors.npy": rows,
        "known_answers.npz": known_answers(encoder),
    }


def _label_files(
    kept: Sequence[Made], chosen: dict[str, Made], labels: Sequence[LabelEvidence], fitted: dict[str, Fitted]
) -> dict[str, bytes]:
    if not labels:
        return {LABELS: b""}
    return {_labels_name(one, chosen): labels_toml(labels, fitted[str(one.variant)].fit) for one in kept}


def _labels_name(one: Made, chosen: dict[str, Made]) -> str:
    """The first engine's default has the file that the manifest names for all."""
    first = next(iter(chosen.values()))
    return LABELS if one is first else f"labels-{one.figures.engine}-{one.figures.precision}.toml"


def _answers_name(one: Made) -> str:
    return f"known_answers-{one.figures.engine}-{one.figures.precision}.npz"


def _towers(model: CLIP, kept: Sequence[Made], chosen: dict[str, Made], labelled: bool) -> dict[str, EngineTowers]:
    local = FeatureMap(IMAGE_OUTPUTS[1], HEAD) if pools_by_mean(model) else None
    towers = {}
    for engine, default in chosen.items():
        variants = {}
        for one in (one for one in kept if one.figures.engine == engine):
            labels = _labels_name(one, chosen)
            variants[one.figures.precision] = TowerVariant(
                image=one.variant.name("image"),
                text=one.variant.name("text"),
                labels=labels if labelled and labels != LABELS else None,
                known_answers=_answers_name(one) if one.answers else None,
                local=local if engine in ENGINES else None,
            )
        own = variants.pop(default.figures.precision)
        towers[engine] = EngineTowers(**vars(own) | {"precision": default.figures.precision}, variants=variants)
    return towers


def _manifest(
    checkpoint: Checkpoint,
    config: ExportConfig,
    kept: Sequence[Made],
    chosen: dict[str, Made],
    fitted: dict[str, Fitted],
    told: dict[str, Any],
) -> Manifest:
    shape = checkpoint.model.config
    return Manifest(
        name=told["name"],
        version="1",
        license=checkpoint.about["licence"] or "of the checkpoint that it was exported from",
        provenance=checkpoint.about["provenance"] or f"exported from {config.weights.name}",
        embed_dim=shape.embed_dim,
        logit_scale=round(float(checkpoint.model.logit_scale.detach().exp()), 4),
        pixels=shape.pixels,
        tokenizer=TokenizerSpec("merges.txt.gz", shape.text.context_length, shape.text.vocab_size, shape.text.causal),
        towers=_towers(checkpoint.model, kept, chosen, bool(fitted)),
        labels=LABELS,
        label_vectors="label_vectors.npy",
        known_answers="known_answers.npz",
        figures={key: told[key] for key in ("parity", "tagging", "calibration") if key in told},
    )


def _told(
    checkpoint: Checkpoint,
    config: ExportConfig,
    gallery: Gallery,
    made: Sequence[Made],
    chosen: dict[str, Made],
    fitted: dict[str, Fitted],
    left_out: dict[str, str],
) -> dict[str, Any]:
    """The parity report."""
    rows = []
    for one in made:
        labels = fitted.get(str(one.variant))
        figures = one.figures.with_map(labels.map, labels.map_exact) if labels else one.figures
        rows.append({**figures.to_dict(), "default": one in chosen.values()})
    first = next(iter(chosen.values()))
    told: dict[str, Any] = {
        "name": config.name or checkpoint.about["name"] or checkpoint.model.config.name,
        "gallery": {"source": gallery.source, "photos": len(gallery.pixels), "texts": len(gallery.texts)},
        "machine": machine(),
        "variants": rows,
        "left_out": left_out,
        "parity": {
            "photos": first.figures.photos,
            "image_median_cosine": round(first.figures.image.cosine_median, 6),
            "text_median_cosine": round(first.figures.text.cosine_median, 6),
            "overlap": round(first.figures.overlap, 4),
        },
    }
    if fitted:
        labels = fitted[str(first.variant)]
        told |= {"tagging": labels.tagging(), "calibration": labels.calibration}
    return told

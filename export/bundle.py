"""A bundle from a checkpoint: towers for any engines and precisions, labels calibrated for each, and figures."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

from export.config import ExportConfig
from export.formats import ExportError, load_format
from export.labels import FittedLabels, LabelData, Progress, fit_variants, read_labels
from export.measure.photos import MeasurementPhotos, draw_photos, from_captions, from_evidence, from_folder
from export.measure.variants import Reference
from export.result import ExportResult
from export.selection import Say, choose_precisions, select_variants
from mobileclip.bundle import write_bundle
from mobileclip.checkpoints import load_checkpoint
from mobileclip.errors import TextCutWarning
from mobileclip.preprocess import PixelRecipe
from mobileclip.torch_model import TorchModel


def export_bundle(config: ExportConfig, progress: Progress, say: Say = lambda _: None) -> dict[str, Any]:
    """Convert, quantize and measure a checkpoint's towers, and write those within the budget as one bundle.

    Args:
        config: what to export.
        progress: called with a phase, how many of its photos are done, and how many there are.
        say: shows messages: what is being done and what is left out.

    Returns:
        The parity report: `variants` (see `Figures.to_dict`), `left_out` (variant → why), `gallery`, `machine`, and of
        the default variant `parity`, `tagging` and `calibration`.

    Raises:
        PocketclipError: a file is missing, a package isn't installed, nothing can be converted, or nothing is within
            the budget. Nothing has been written in that case.
    """
    with warnings.catch_warnings():
        # Captions and prompts are cut at the same place for every tower, PyTorch's included.
        warnings.simplefilter("ignore", TextCutWarning)
        return _export(config, progress, say)


def _export(config: ExportConfig, progress: Progress, say: Say) -> dict[str, Any]:
    formats = [load_format(name, uint8=config.uint8) for name in config.formats]
    plan = choose_precisions(formats, config.precisions, say)
    checkpoint = load_checkpoint(config.weights, config.model)
    encoder = TorchModel(checkpoint.model, checkpoint.tokenizer)
    labels = read_labels(config.evidence, config.data, encoder)
    say("reading photos and embedding them with float32 PyTorch")
    reference = Reference.of(encoder, _read_photos(config, encoder.recipe, labels))
    fits = FittedLabels(labels.prompts, {})
    try:
        with tempfile.TemporaryDirectory() as folder:
            selection = select_variants(
                plan, reference, Path(folder), threads=config.threads, force=config.force, say=say
            )
            if labels.labels:
                say("fitting labels to photos")
                variants = [entry.variant for entry in selection.kept]
                fits = fit_variants(variants, encoder, labels, config.threads, progress)
        name = config.name or checkpoint.about["name"] or checkpoint.model.config.name
        result = ExportResult(name, config.weights.name, checkpoint, reference, selection, labels, fits)
        report = result.report()
        say(f"writing {config.out}")
        write_bundle(config.out, result.manifest(report), result.files(report))
    except OSError as error:
        raise ExportError(f"{config.out}: cannot be written ({error.strerror or error})") from error
    return report


def _read_photos(config: ExportConfig, recipe: PixelRecipe, labels: LabelData) -> MeasurementPhotos:
    """The best photos to measure with that were given."""
    if config.captions is not None:
        return from_captions(recipe, config.captions, config.splits, config.split)
    if config.photos is not None:
        return from_folder(recipe, config.photos)
    if labels.photos:
        return from_evidence(recipe, labels.photos, labels.labels)
    return draw_photos(recipe)

"""What an export found out, as the files of a bundle, its manifest and its parity report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from export.answers import known_answers, npy
from export.labels import FittedLabels, LabelData, fitted_labels
from export.measure.report import as_json, machine, plot
from export.measure.variants import Reference
from export.onnx.convert import IMAGE_OUTPUTS, export_head, pools_by_mean
from export.selection import MeasuredVariant, Selection
from mobileclip.checkpoints import Checkpoint
from mobileclip.manifest import EngineTowers, FeatureMap, Manifest, TokenizerSpec, TowerVariant
from mobileclip.runtimes import ENGINES

HEAD: Final = "head.npz"
LABELS: Final = "labels.toml"
LABEL_VECTORS: Final = "label_vectors.npy"
MERGES: Final = "merges.txt.gz"
KNOWN_ANSWERS: Final = "known_answers.npz"


@dataclass(frozen=True)
class ExportResult:
    """Everything that a bundle is written from.

    Attributes:
        name: of the bundle.
        origin: name of the checkpoint's file or folder.
        checkpoint: what was exported.
        reference: the checkpoint run by float32 PyTorch, and what the variants were measured on.
        selection: the variants.
        labels: perhaps none.
        fits: their vectors and thresholds.
    """

    name: str
    origin: str
    checkpoint: Checkpoint
    reference: Reference
    selection: Selection
    labels: LabelData
    fits: FittedLabels

    def report(self) -> dict[str, Any]:
        """The parity report, see `export.bundle.export_bundle`. Intervals of tagging figures take a while."""
        photos, first = self.reference.photos, self.selection.first
        report: dict[str, Any] = {
            "name": self.name,
            "gallery": {"source": photos.source, "photos": len(photos.pixels), "texts": len(photos.texts)},
            "machine": machine(),
            "variants": [self._figures(entry) for entry in self.selection.measured],
            "left_out": dict(self.selection.left_out),
            "parity": {
                "photos": first.figures.photos,
                "image_median_cosine": round(first.figures.image.cosine_median, 6),
                "text_median_cosine": round(first.figures.text.cosine_median, 6),
                "overlap": round(first.figures.overlap, 4),
            },
        }
        if self.fits.variants:
            fit = self.fits.variants[str(first.variant)]
            labels = fitted_labels(self.labels.evidence, fit.fit)
            report |= {"tagging": fit.tagging(labels), "calibration": fit.calibration}
        return report

    def _figures(self, entry: MeasuredVariant) -> dict[str, Any]:
        fit = self.fits.variants.get(str(entry.variant))
        figures = entry.figures.with_map(fit.map, fit.map_exact) if fit else entry.figures
        return {**figures.to_dict(), "default": entry in self.selection.defaults.values()}

    def manifest(self, report: Mapping[str, Any]) -> Manifest:
        """The manifest, without the list of files."""
        about, model = self.checkpoint.about, self.checkpoint.model
        text = model.config.text
        return Manifest(
            name=self.name,
            version="1",
            license=about["licence"] or "of the checkpoint that it was exported from",
            provenance=about["provenance"] or f"exported from {self.origin}",
            embed_dim=model.config.embed_dim,
            logit_scale=round(float(model.logit_scale.detach().exp()), 4),
            pixels=model.config.pixels,
            tokenizer=TokenizerSpec(MERGES, text.context_length, text.vocab_size, text.causal),
            towers={engine: self._towers(engine) for engine in self.selection.defaults},
            labels=LABELS,
            label_vectors=LABEL_VECTORS,
            known_answers=KNOWN_ANSWERS,
            figures={key: report[key] for key in ("parity", "tagging", "calibration") if key in report},
        )

    def _towers(self, engine: str) -> EngineTowers:
        entries = [entry for entry in self.selection.kept if entry.figures.engine == engine]
        variants = {entry.figures.precision: self._variant(entry) for entry in entries}
        precision = self.selection.defaults[engine].figures.precision
        default = variants.pop(precision)
        return EngineTowers(**vars(default) | {"precision": precision}, variants=variants)

    def _variant(self, entry: MeasuredVariant) -> TowerVariant:
        labels = self._labels_file(entry)
        has_map = entry.figures.engine in ENGINES and pools_by_mean(self.checkpoint.model)
        return TowerVariant(
            image=entry.variant.name("image"),
            text=entry.variant.name("text"),
            labels=labels if self.fits.variants and labels != LABELS else None,
            known_answers=_answers_file(entry) if entry.answers else None,
            local=FeatureMap(IMAGE_OUTPUTS[1], HEAD) if has_map else None,
        )

    def files(self, report: Mapping[str, Any]) -> dict[str, bytes]:
        """Name → content of everything but the manifest."""
        model = self.checkpoint.model
        files = {
            **({HEAD: export_head(model)} if pools_by_mean(model) else {}),
            MERGES: self.checkpoint.merges,
            LABEL_VECTORS: npy(self.fits.vectors),
            KNOWN_ANSWERS: known_answers(self.reference.encoder),
            **self._label_files(),
            "parity.json": as_json(report).encode("utf-8"),
            "parity.png": plot(report),
        }
        for entry in self.selection.kept:
            files |= entry.variant.files()
            if entry.answers:
                files[_answers_file(entry)] = entry.answers
        return files

    def _label_files(self) -> dict[str, bytes]:
        if not self.fits.variants:
            return {LABELS: b""}
        return {self._labels_file(entry): self._labels_toml(entry) for entry in self.selection.kept}

    def _labels_toml(self, entry: MeasuredVariant) -> bytes:
        fit = self.fits.variants[str(entry.variant)].fit
        return fitted_labels(self.labels.evidence, fit).dumps().encode("utf-8")

    def _labels_file(self, entry: MeasuredVariant) -> str:
        """The first engine's default has the file that the manifest names for all."""
        return LABELS if entry is self.selection.first else f"labels-{_suffix(entry)}.toml"


def _answers_file(entry: MeasuredVariant) -> str:
    return f"known_answers-{_suffix(entry)}.npz"


def _suffix(entry: MeasuredVariant) -> str:
    return f"{entry.figures.engine}-{entry.figures.precision}"

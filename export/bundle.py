"""A bundle from a checkpoint: towers, tokenizer, calibrated labels, known answers, and figures that say how good."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import mobileclip
from distill.evaluate.calibration import Fit, fit_thresholds
from distill.evaluate.evidence import (
    MEASURE,
    SEEN,
    KnownPhoto,
    LabelEvidence,
    read_evidence,
    read_known_photos,
    truth,
)
from distill.evaluate.model import TorchEncoder
from distill.evaluate.photos import encode_photos
from distill.evaluate.tagging import ENOUGH, tagging
from export.onnx import IMAGE_OUTPUTS, export_head, export_image, export_text, pools_by_mean
from mobileclip.bundle import write_bundle
from mobileclip.checkpoints import Checkpoint, load_checkpoint
from mobileclip.model import Model
from mobileclip.photos import open_photo
from mobileclip.zeroshot import Label, LabelSet, average_prompts

Report = Callable[[str, int, int], None]
PARITY_PHOTOS = 64
HEAD = "head.npz"


@dataclass(frozen=True)
class ExportConfig:
    """What to make a bundle of.

    Attributes:
        checkpoint: the student's folder.
        labels: a labels file with evidence.
        data: folder of the sets that the evidence names.
        out: the bundle's folder.
        name: what the bundle calls itself; empty for the checkpoint's own name.
        threads: of the engine while measuring; None for its default.
    """

    checkpoint: Path
    labels: Path
    data: Path
    out: Path
    name: str = ""
    threads: int | None = None


def export_bundle(config: ExportConfig, report: Report) -> dict[str, Any]:
    """Write a bundle and return its figures.

    Thresholds are fitted on the vectors of the very engine and precision that the bundle carries.

    Raises:
        PocketclipError: a file is missing, or a tower cannot be converted.
    """
    checkpoint = load_checkpoint(config.checkpoint)
    evidence = read_evidence(config.labels)
    labels = evidence.labels
    photos = read_known_photos(config.data, evidence.collections)
    encoder = TorchEncoder(checkpoint.model, checkpoint.tokenizer)
    label_vectors = _label_vectors(encoder, labels)
    files = _files(checkpoint, encoder, label_vectors, report)
    manifest = _manifest(checkpoint, config.name)
    with tempfile.TemporaryDirectory() as folder:
        # A first bundle, whose labels are never given, so that everything below goes through the public way in.
        draft = Path(folder) / "draft"
        write_bundle(draft, manifest, {**files, "labels.toml": _labels_toml(labels, None)})
        model = mobileclip.load(str(draft), threads=config.threads)
        vectors, kept, errors = encode_photos(
            model, [photo.path for photo in photos], lambda done, total: report("photos", done, total)
        )
        parity = _parity(model, encoder, [photos[i].path for i in kept[:: max(1, len(kept) // PARITY_PHOTOS)]])
    photos = [photos[i] for i in kept]
    fit, tags = _calibrate(vectors @ label_vectors.T, photos, labels)
    manifest["figures"] = {
        "parity": parity,
        "tagging": tags,
        "calibration": {
            "photos": len(photos),
            "unreadable": len(errors),
            "optimism": round(fit.optimism, 3),
            "labels_fitted": int((fit.positives > 0).sum()),
            "labels_pooled": int((fit.positives == 0).sum()),
        },
    }
    write_bundle(config.out, manifest, {**files, "labels.toml": _labels_toml(labels, fit)})
    figures: dict[str, Any] = manifest["figures"]
    return figures


def _label_vectors(encoder: TorchEncoder, labels: Sequence[LabelEvidence]) -> NDArray[np.float32]:
    rows = [average_prompts(encoder.encode_texts(label.prompts)) for label in labels]
    return np.stack(rows).astype(np.float32)


def _files(
    checkpoint: Checkpoint, encoder: TorchEncoder, label_vectors: NDArray[np.float32], report: Report
) -> dict[str, bytes]:
    report("image tower", 0, 1)
    image = export_image(checkpoint.model)
    report("image tower", 1, 1)
    report("text tower", 0, 1)
    text = export_text(checkpoint.model)
    report("text tower", 1, 1)
    head = {HEAD: export_head(checkpoint.model)} if pools_by_mean(checkpoint.model) else {}
    return {
        "image.onnx": image,
        "text.onnx": text,
        **head,
        "merges.txt.gz": checkpoint.merges,
        "label_vectors.npy": _npy(label_vectors),
        "known_answers.npz": _known_answers(encoder),
    }


def _manifest(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    config = checkpoint.model.config
    tower: dict[str, Any] = {"precision": "fp16-weights", "image": "image.onnx", "text": "text.onnx"}
    if pools_by_mean(checkpoint.model):
        tower["local"] = {"output": IMAGE_OUTPUTS[1], "head": HEAD}
    return {
        "name": name or checkpoint.about["name"] or config.name,
        "version": "1",
        "licence": checkpoint.about["licence"],
        "provenance": checkpoint.about["provenance"],
        "embed_dim": config.embed_dim,
        "logit_scale": round(float(checkpoint.model.logit_scale.detach().exp()), 4),
        "pixels": config.pixels.to_dict(),
        "tokenizer": {
            "file": "merges.txt.gz",
            "context_length": config.text.context_length,
            "vocab_size": config.text.vocab_size,
            "causal": config.text.causal,
        },
        "towers": {"onnx": tower},
        "labels": "labels.toml",
        "label_vectors": "label_vectors.npy",
        "known_answers": "known_answers.npz",
    }


def _labels_toml(labels: Sequence[LabelEvidence], fit: Fit | None) -> bytes:
    entries = [
        Label(
            name=label.name,
            group=label.group,
            prompts=label.prompts,
            threshold=round(float(fit.threshold[i]), 5) if fit else 1.0,
            slope=round(float(fit.slope[i]), 3) if fit else 1.0,
            positives=int(fit.positives[i]) if fit else 0,
        )
        for i, label in enumerate(labels)
    ]
    return LabelSet(tuple(entries)).dumps().encode("utf-8")


def _calibrate(
    cosines: NDArray[np.float32], photos: list[KnownPhoto], labels: Sequence[LabelEvidence]
) -> tuple[Fit, dict[str, Any]]:
    """Fit on all but the photos set aside for measuring, then measure on those alone."""
    known = truth(photos, labels)
    role = np.array([photo.role for photo in photos])
    fitting = role != MEASURE
    fit = fit_thresholds(cosines[fitting], known[fitting], role[fitting] == SEEN)
    held_out = cosines[~fitting]
    figures = tagging(held_out, known[~fitting], fit.scores(held_out), ENOUGH)
    short = json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 4))
    return fit, {"photos": len(held_out), **short}


def _parity(model: Model, encoder: TorchEncoder, paths: list[Path]) -> dict[str, float | int]:
    """Compare the engine's image vectors with float32 torch on real photos, and text vectors on sentences."""
    pixels = np.stack([model.recipe(open_photo(path, min_side=2 * model.recipe.size)) for path in paths])
    mine, torchs = model.encode_pixels(pixels), encoder.encode_pixels(pixels)
    texts = [f"a photo of {path.stem}" for path in paths]
    words, torch_words = model.encode_texts(texts), encoder.encode_texts(texts)
    return {
        "photos": len(paths),
        "image_min_cosine": round(float((mine * torchs).sum(axis=1).min()), 6),
        "text_min_cosine": round(float((words * torch_words).sum(axis=1).min()), 6),
    }


def _known_answers(encoder: TorchEncoder) -> bytes:
    """Two drawn pictures and three texts with the vectors that float32 torch gives for them."""
    size = encoder.recipe.size
    y, x = np.mgrid[0:size, 0:size] / size
    pictures = np.stack(
        [
            np.stack([x, y, (x + y) / 2], axis=-1),
            np.stack([np.hypot(x - 0.5, y - 0.5) < 0.3, y > 0.6, (16 * x).astype(int) % 2 == 0], axis=-1),
        ]
    )
    pixels = (pictures * 255).astype(np.uint8)
    texts = ["a photo of a dog", "two people on a beach at sunset", "a receipt"]
    stream = io.BytesIO()
    with torch.inference_mode():
        np.savez_compressed(
            stream,
            pixels=pixels,
            tokens=encoder.tokenizer(texts),
            image_vectors=encoder.encode_pixels(encoder.recipe.normalise_uint8(pixels)),
            text_vectors=encoder.encode_texts(texts),
        )
    return stream.getvalue()


def _npy(array: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()

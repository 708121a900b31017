"""An aligned pair: a frozen image backbone and a frozen sentence encoder, joined by two trained heads.

This is LiT (Zhai et al. 2022) with both sides locked: only the heads learn, on vectors computed once, so that a
teacher for a new set of captions takes minutes on a CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from distill.config import AlignedPairConfig
from distill.data.corpus import Corpus
from distill.data.sources import DataError, read_table
from distill.files import locate, write_whole
from distill.losses import affinity, info_nce, relational
from distill.teachers.base import Vectors, encode_files
from distill.teachers.cache import VectorCache
from distill.teachers.encoders import Backbone, SentenceEncoder


class Head(nn.Module):
    """A linear map plus one hidden layer, from an encoder's width into the shared space, unit length."""

    def __init__(self, width: int, config: AlignedPairConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, config.embed_dim)
        self.mlp = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(width, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.embed_dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, width) to unit vectors (n, embed_dim)."""
        x = self.norm(features)
        return F.normalize(self.linear(x) + self.mlp(x), dim=-1)


class AlignedPair:
    """The teacher. `fit` it, or load heads that were fitted before.

    Args:
        config: encoders and head settings.
        base: what relative paths of weights start from.
        data: the data folder, for class names and geometry.
        cache: where encoder vectors are kept.
    """

    def __init__(self, config: AlignedPairConfig, base: Path, data: Path, cache: VectorCache) -> None:
        self.config, self.data, self.cache = config, data, cache
        self.backbones = [Backbone(fields, base) for fields in config.backbones]
        self.sentences = SentenceEncoder(locate(config.sentences, base))
        self.image_head = Head(sum(backbone.width for backbone in self.backbones), config)
        self.text_head = Head(self.sentences.width, config)
        self.logit_scale = config.logit_scale
        self.px = max(backbone.pixels.size for backbone in self.backbones)
        self.identity = ""

    def encode_images(self, photos: Sequence[Path]) -> Vectors:
        """Return unit vectors (n, embed_dim) float32, nothing kept; see `recall_images`."""
        return encode_files(photos, self.encode_pictures, self.px)

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Return unit vectors (n, embed_dim) float32; each backbone sees its own pixels."""
        return self._place([torch.from_numpy(backbone.encode_pictures(pictures)) for backbone in self.backbones])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (n, embed_dim) float32, nothing kept; see `recall_texts`."""
        return self._apply(self.text_head, torch.from_numpy(self.sentences.encode_texts(texts)))

    def recall_images(self, photos: Sequence[Path]) -> Vectors:
        """As `encode_images`, with the backbones' features from the cache."""
        return self._place([torch.from_numpy(self.cache.images(backbone, photos)) for backbone in self.backbones])

    def recall_texts(self, texts: Sequence[str]) -> Vectors:
        """As `encode_texts`, with the sentence encoder's vectors from the cache."""
        return self._apply(self.text_head, torch.from_numpy(self.cache.texts(self.sentences, texts)))

    def _place(self, features: Sequence[Tensor]) -> Vectors:
        """Map each backbone's features (n, width) into the shared space."""
        vectors = self._apply(self.image_head, _joined(features))
        if not self.config.conse_weight:
            return vectors
        seen = self._conse(self.backbones[0].log_posterior(features[0]))
        mixed: Vectors = F.normalize(torch.from_numpy(vectors) + self.config.conse_weight * seen, dim=-1).numpy()
        return mixed

    def _conse(self, posterior: Tensor, classes: int = 10) -> Tensor:
        """Place photos among the texts by what the classifier saw; unit vectors (n, embed_dim)."""
        probability, which = posterior.exp().topk(classes, dim=1)
        return F.normalize((probability[:, :, None] * self._class_vectors[which]).sum(dim=1), dim=-1)

    @cached_property
    def _class_vectors(self) -> Tensor:
        return torch.from_numpy(self.recall_texts(self.class_prompts()))

    def class_prompts(self) -> list[str]:
        """Return one text for each class of the first backbone, in its classifier's order."""
        names = _class_names(self.data / self.config.class_names)
        return [f"a photo of a {self.config.class_texts.get(name, name)}" for name in names]

    def log_posterior(self, photos: Sequence[Path]) -> Tensor:
        """Return the first backbone's own log-probabilities of its classes, (n, classes) float32."""
        backbone = self.backbones[0]
        return backbone.log_posterior(torch.from_numpy(self.cache.images(backbone, photos)))

    def fit(self, corpus: Corpus, folder: Path, seed: int, report: Callable[[int, int, float], None]) -> None:
        """Train both heads on a corpus, or load them from `folder` where they were trained on the very same.

        Args:
            corpus: photos with texts; each source is drawn by its share.
            folder: where the heads are kept.
            seed: of weights, order and dropout.
            report: called with (epoch, epochs, loss).
        """
        from safetensors.torch import load_file, save

        heads = nn.ModuleDict({"image": self.image_head, "text": self.text_head})
        basis = (
            f"{self.config}|{seed}|{[b.identity for b in self.backbones]}|{self.sentences.identity}|{corpus.shares}|"
        )
        basis += "\n".join(f"{s.path.name}|{s.texts}" for s in corpus.samples)
        self.identity = "aligned|" + hashlib.sha256(basis.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        path = folder / f"heads-{self.identity[-16:]}.safetensors"
        if path.exists():
            heads.load_state_dict(load_file(path))
        else:
            _Fit(self, corpus, seed).run(heads, report)
            write_whole(path, lambda stream: stream.write(save(heads.state_dict())))
        heads.eval().requires_grad_(False)

    @torch.inference_mode()
    def _apply(self, head: Head, features: Tensor) -> Vectors:
        vectors: Vectors = head.eval()(features).numpy()
        return vectors


class _Fit:
    """The heads' training loop, on cached features."""

    def __init__(self, teacher: AlignedPair, corpus: Corpus, seed: int) -> None:
        torch.manual_seed(seed)
        self.teacher, self.config, self.seed = teacher, teacher.config, seed
        photos = [sample.path for sample in corpus.samples]
        cache = teacher.cache
        self.photos = _joined([torch.from_numpy(cache.images(backbone, photos)) for backbone in teacher.backbones])
        self.corpus = corpus.without(self.photos.isnan().any(dim=1).numpy())
        self.texts = torch.from_numpy(cache.texts(teacher.sentences, corpus.texts))
        if self.config.posterior_weight:
            self.posterior = teacher.log_posterior(photos)
            self.classes = torch.from_numpy(cache.texts(teacher.sentences, teacher.class_prompts()))
        if self.config.geometry_weight:
            rows = read_table(teacher.data / self.config.geometry_texts)
            self.places = torch.from_numpy(cache.texts(teacher.sentences, [row["prompt"] for row in rows]))
            vectors = np.load(teacher.data / self.config.geometry_vectors, allow_pickle=False).astype(np.float32)
            self.geometry = F.normalize(torch.from_numpy(vectors), dim=-1)

    def run(self, heads: nn.ModuleDict, report: Callable[[int, int, float], None]) -> None:
        """Train with AdamW and a one-cycle rate."""
        config = self.config
        log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        steps = sum(len(self.corpus.epoch(self.seed, e)) // config.batch for e in range(config.epochs))
        groups: list[dict[str, Any]] = [
            {"params": list(heads.parameters())},
            {"params": [log_scale], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=max(steps, 2), pct_start=0.1)
        heads.train()
        for epoch in range(config.epochs):
            order = self.corpus.epoch(self.seed, epoch)
            random = np.random.default_rng((self.seed, epoch, 1))
            loss = torch.zeros(())
            for start in range(0, len(order) - config.batch + 1, config.batch):
                loss = self._loss(order[start : start + config.batch], log_scale.exp().clamp(max=100), random)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            report(epoch + 1, config.epochs, float(loss.detach()))

    def _loss(self, rows: np.ndarray, scale: Tensor, random: np.random.Generator) -> Tensor:
        config, teacher = self.config, self.teacher
        texts = np.array([random.choice(self.corpus.text_ids[row]) for row in rows])
        image = teacher.image_head(self.photos[rows])
        text = teacher.text_head(self.texts[texts])
        loss = info_nce(image, text, scale, torch.from_numpy(self.corpus.groups[rows]))
        if config.posterior_weight:
            classes = teacher.text_head(self.classes)
            loss = loss + config.posterior_weight * affinity(scale * image @ classes.T, self.posterior[rows])
        if config.geometry_weight:
            some = random.choice(len(self.places), min(1024, len(self.places)), replace=False)
            places = teacher.text_head(self.places[some])
            loss = loss + config.geometry_weight * relational(places, self.geometry[some], 0.05, 0.02)
        return loss


def _joined(features: Sequence[Tensor]) -> Tensor:
    """Join the features of several backbones, each of unit length, into (n, all widths)."""
    return torch.cat([F.normalize(one, dim=-1) for one in features], dim=1)


def _class_names(path: Path) -> list[str]:
    """Read a classifier's class names: column `label`, in the order of the column `file` (ImageNet's ids)."""
    rows = sorted(read_table(path), key=lambda row: row["file"])
    if not rows:
        raise DataError(f"{path}: no class names")
    return [row["label"].split(",")[0] for row in rows]

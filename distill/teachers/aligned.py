"""An aligned pair: a frozen image backbone and a frozen sentence encoder with two trained heads.

This is LiT (Zhai et al. 2022) with both sides locked. Only the heads learn, from embeddings that are computed once, so
a teacher for a new set of captions takes minutes on a CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
from distill.data.tables import read_table
from distill.data.tars import PhotoRef
from distill.files import locate_weights, write_whole
from distill.half import half_precision
from distill.losses import affinity, info_nce, relational
from distill.losses.groups import merge_groups
from distill.progress import ReportProgress
from distill.teachers.base import encode_files
from distill.teachers.cache import StoredRows, VectorCache
from distill.teachers.class_names import class_prompts
from distill.teachers.encoders import Backbone, SentenceEncoder
from distill.teachers.registry import TeacherContext, constructor
from distill.teachers.trunk_features import CorpusFeatures
from mobileclip.errors import ConfigError
from mobileclip.files import PathLike
from mobileclip.towers.attention_pool import AttentionPool
from mobileclip.towers.image import map_channels
from mobileclip.vectors import Floats

TAKEN = 1024
"""Photos whose features are in memory at the same time."""

CONSE_CLASSES = 10
"""Number of most probable classes that ConSE averages."""


class Head(nn.Module):
    """Maps an encoder's output to a unit embedding: a linear layer plus one with a hidden layer."""

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
        return F.normalize((self.linear(x) + self.mlp(x)).float(), dim=-1)


class ImageHead(Head):
    """A head on pooled features and, if the settings have `attention`, attention pooling over the places of maps.

    Args:
        width: of the pooled features.
        channels: of a place; 0 without maps.
        config: the settings of both.
    """

    def __init__(self, width: int, channels: int, config: AlignedPairConfig) -> None:
        super().__init__(width, config)
        self.width = width
        self.attention = None
        if config.attention:
            self.attention = AttentionPool(config.attention, channels, config.embed_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, width + places · channels) to unit vectors (n, embed_dim)."""
        vectors = super().forward(features[:, : self.width])
        if self.attention is None:
            return vectors
        places = features[:, self.width :].unflatten(1, (-1, self.attention.embed.in_features))
        return F.normalize(vectors + F.normalize(self.attention(places).float(), dim=-1), dim=-1)


class HeadPair(nn.Module):
    """A head for photos and a head for texts, which are trained together."""

    def __init__(self, image: ImageHead, text: Head) -> None:
        super().__init__()
        self.image, self.text = image, text


class AlignedPair:
    """The teacher. Call `fit` before anything else.

    With several pairs of heads, an embedding joins the embeddings of all pairs, so a similarity is the mean of theirs.
    It is then projected onto the principal directions of the corpus.

    Args:
        config: the encoders, and settings of the heads.
        base: the folder that relative paths of weights start from.
        data: the data folder, for class names and geometry.
        cache: keeps the encoders' outputs.
    """

    def __init__(self, config: AlignedPairConfig, base: PathLike, data: PathLike, cache: VectorCache) -> None:
        self.config, self.data, self.cache = config, Path(data), cache
        base = Path(base)
        self.backbones = [Backbone(fields, base) for fields in config.backbones]
        self.sentences = SentenceEncoder(
            locate_weights(config.sentences, base), config.sentence_layers, config.sentence_strongest
        )
        width = sum(backbone.width for backbone in self.backbones)
        self.maps = self.backbones[0].with_maps(config.attention.maps) if config.attention else None
        channels = map_channels(self.maps.trunk, self.maps.maps) if self.maps else 0
        self.pairs = [
            HeadPair(ImageHead(width, channels, config), Head(self.sentences.width, config))
            for _ in range(config.heads)
        ]
        self.heads = nn.ModuleList(self.pairs)
        self.directions = torch.eye(config.heads * config.embed_dim, config.embed_dim)
        self.logit_scale = config.logit_scale
        self.px = max(backbone.pixels.size for backbone in self.backbones)
        self.identity = ""

    def encode_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """Return unit embeddings (n, embed_dim) without a cache; see `recall_images`."""
        return encode_files(photos, self.encode_pictures, self.px)

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Floats:
        """Return unit embeddings (n, embed_dim); each backbone has its own preprocessing."""
        encoders = [self.maps or self.backbones[0], *self.backbones[1:]]
        return self._embed_photos([torch.from_numpy(encoder.encode_pictures(pictures)) for encoder in encoders])

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return unit embeddings (n, embed_dim) without a cache; see `recall_texts`."""
        return self._embed_texts(torch.from_numpy(self.sentences.encode_texts(texts)))

    def recall_images(self, photos: Sequence[PathLike | PhotoRef]) -> Floats:
        """As `encode_images`, with the backbones' features from the cache."""
        return self._project(self._recall_parts(photos))

    def _recall_parts(self, photos: Sequence[PathLike | PhotoRef]) -> Tensor:
        """Return each pair's unit embeddings (n, pairs, embed_dim) of photos, with features from the cache."""
        first = self._first_features(photos)
        others = [torch.from_numpy(self.cache.images(backbone, photos)) for backbone in self.backbones[1:]]
        if not len(photos):
            return torch.zeros(0, len(self.pairs), self.config.embed_dim)
        numbers = np.arange(len(photos))
        return torch.cat(
            [
                self._image_parts([first.take(rows), *(other[rows] for other in others)])
                for rows in np.array_split(numbers, -(-len(photos) // TAKEN))
            ]
        )

    def _first_features(self, photos: Sequence[PathLike | PhotoRef]) -> StoredRows:
        """Return the first backbone's features (n, width), with the places of its maps if there is attention."""
        if self.maps:
            return self.cache.features(self.maps, photos)
        return StoredRows([self.cache.images(self.backbones[0], photos)])

    def recall_texts(self, texts: Sequence[str]) -> Floats:
        """As `encode_texts`, with the sentence encoder's outputs from the cache."""
        return self._embed_texts(torch.from_numpy(self.cache.texts(self.sentences, texts)))

    def _embed_texts(self, features: Tensor) -> Floats:
        """Map the sentence encoder's outputs (n, width) to embeddings."""
        return self._project(self._text_parts(features))

    def _embed_photos(self, features: Sequence[Tensor]) -> Floats:
        """Map each backbone's features (n, width) to embeddings."""
        return self._project(self._image_parts(features))

    @torch.inference_mode()
    def _text_parts(self, features: Tensor) -> Tensor:
        """Return each pair's unit embeddings (n, pairs, embed_dim)."""
        return torch.stack([pair.eval().text(features) for pair in self.pairs], dim=1)

    @torch.inference_mode()
    def _image_parts(self, features: Sequence[Tensor]) -> Tensor:
        """Return each pair's unit embeddings (n, pairs, embed_dim), moved toward the classifier's classes (ConSE)."""
        joined = self._join(features)
        parts = torch.stack([pair.eval().image(joined) for pair in self.pairs], dim=1)
        if not self.config.conse_weight:
            return parts
        backbone = self.backbones[0]
        log_posterior = backbone.log_posterior(features[0][:, : backbone.width])
        probability, which = log_posterior.exp().topk(CONSE_CLASSES, dim=1)
        classes = torch.einsum("nc,ncpd->npd", probability, self._class_parts[which])
        return F.normalize(parts + self.config.conse_weight * F.normalize(classes, dim=-1), dim=-1)

    def _join(self, features: Sequence[Tensor]) -> Tensor:
        """Scale the pooled features of all backbones to unit length and join them, with the places at the end."""
        width = self.backbones[0].width
        pooled = [features[0][:, :width], *features[1:]]
        return torch.cat([*(F.normalize(rows, dim=-1) for rows in pooled), features[0][:, width:]], dim=1)

    @cached_property
    def _class_parts(self) -> Tensor:
        """Each class's text embeddings minus the mean of all classes (classes, pairs, embed_dim).

        The mean carries no information about a photo, and would move every photo toward the texts nearest to it (hubs,
        Radovanović et al. 2010).
        """
        parts = self._text_parts(torch.from_numpy(self.cache.texts(self.sentences, self.class_prompts())))
        return parts - parts.mean(dim=0)

    def _project(self, parts: Tensor) -> Floats:
        vectors: Floats = F.normalize(parts.flatten(1) @ self.directions, dim=-1).numpy()
        return vectors

    def class_prompts(self) -> list[str]:
        """Return a text for each class of the first backbone, in the classifier's order."""
        return class_prompts(self.config.class_names, self.data, self.config.class_texts)

    def class_embeddings(self) -> Floats | None:
        """Return an embedding for each class of the first backbone (classes, embed_dim); None without class names."""
        return self.recall_texts(self.class_prompts()) if self.config.class_names else None

    def log_posterior(self, photos: Sequence[PathLike | PhotoRef]) -> Tensor:
        """Return the first backbone's log-probabilities of its classes (n, classes) float32."""
        backbone = self.backbones[0]
        return backbone.log_posterior(self._first_features(photos).columns(backbone.width))

    def classify_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return the first backbone's log-probabilities of its classes (n, classes) float32."""
        backbone = self.backbones[0]
        return backbone.log_posterior(torch.from_numpy(backbone.encode_pictures(pictures)))

    def fit(self, corpus: Corpus, folder: PathLike, seed: int, report: ReportProgress) -> None:
        """Train the heads on a corpus, or load them from `folder` if they were trained on the same corpus before.

        Args:
            corpus: photos with texts; each source is drawn by its share.
            folder: the folder that keeps trained heads.
            seed: seed of weights, order and dropout.
            report: called after each epoch with the progress of "heads" and the loss.
        """
        from safetensors.torch import load_file, save

        if not len(corpus.readable):
            raise ConfigError("[aligned] is fitted to photos with texts, and the recipe has none; name another teacher")
        encoders = f"{[b.identity for b in self.backbones]}|{self.sentences.identity}"
        basis = f"centred|{self.config}|{seed}|{encoders}|{corpus.shares}|{corpus.views}|"
        basis += "\n".join(f"{sample.key}|{sample.texts}" for sample in corpus.samples)
        self.identity = "aligned|" + hashlib.sha256(basis.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        path = Path(folder) / f"heads-{self.identity[-16:]}.safetensors"
        if path.exists():
            state = load_file(path)
            self.directions = state.pop("directions")
            self.heads.load_state_dict(state)
        else:
            _Fit(self, corpus, seed).run(report)
            if self.config.heads > 1:
                self.directions = self._principal_directions(corpus)
            state = {**self.heads.state_dict(), "directions": self.directions.contiguous()}
            write_whole(path, lambda stream: stream.write(save(state)))
        self.heads.eval().requires_grad_(False)

    def _principal_directions(self, corpus: Corpus) -> Tensor:
        """Return the directions (pairs · embed_dim, embed_dim) in which the corpus's embeddings are longest.

        Photos and texts have the same weight. Embeddings aren't centered, because that would change similarities.
        """
        images = self._recall_parts([corpus.samples[row].photo for row in corpus.readable])
        texts = self._text_parts(torch.from_numpy(self.cache.texts(self.sentences, corpus.texts)))
        moments = sum(part.T @ part / len(part) for part in (images.flatten(1), texts.flatten(1)))
        assert isinstance(moments, Tensor)
        return torch.linalg.eigh(moments).eigenvectors[:, -self.config.embed_dim :]


class _Fit:
    """Trains all pairs of heads, one after the other, on cached features."""

    def __init__(self, teacher: AlignedPair, corpus: Corpus, seed: int) -> None:
        self.teacher, self.config, self.seed = teacher, teacher.config, seed
        cache, photos = teacher.cache, [sample.photo for sample in corpus.samples]
        if teacher.maps:
            self.first = CorpusFeatures.of(teacher.maps, cache, corpus)
        else:
            self.first = CorpusFeatures(StoredRows([cache.images(teacher.backbones[0], photos)]))
        self.others = [torch.from_numpy(cache.images(backbone, photos)) for backbone in teacher.backbones[1:]]
        self.corpus = corpus.without(self.first.photos.unreadable())
        self.texts = torch.from_numpy(cache.texts(teacher.sentences, corpus.texts))
        if self.config.posterior_weight:
            self.posterior = teacher.log_posterior(photos)
            self.classes = torch.from_numpy(cache.texts(teacher.sentences, teacher.class_prompts()))
        if self.config.geometry_weight:
            rows = read_table(teacher.data / self.config.geometry_texts, needs=("prompt",))
            self.geometry_texts = torch.from_numpy(cache.texts(teacher.sentences, [row["prompt"] for row in rows]))
            vectors = np.load(teacher.data / self.config.geometry_vectors, allow_pickle=False).astype(np.float32)
            self.geometry = F.normalize(torch.from_numpy(vectors), dim=-1)

    def run(self, report: ReportProgress) -> None:
        """Train every pair; `report` is called with the epochs of all of them."""
        for number in range(len(self.teacher.pairs)):
            self._run(number, report)

    def _run(self, number: int, report: ReportProgress) -> None:
        """Train a pair with AdamW and a one-cycle learning rate."""
        pair, seed = self.teacher.pairs[number], self.seed + number
        config = self.config
        torch.manual_seed(seed)
        log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        steps = sum(len(self.corpus.epoch(seed, e)) // config.batch for e in range(config.epochs))
        groups: list[dict[str, Any]] = [
            {"params": list(pair.parameters())},
            {"params": [log_scale], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=max(steps, 2), pct_start=0.1)
        pair.train()
        for epoch in range(config.epochs):
            order = self.corpus.epoch(seed, epoch)
            random = np.random.default_rng((seed, epoch, 1))
            loss = torch.zeros(())
            for start in range(0, len(order) - config.batch + 1, config.batch):
                loss = self._loss(pair, order[start : start + config.batch], log_scale.exp().clamp(max=100), random)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            done, total = number * config.epochs + epoch + 1, len(self.teacher.pairs) * config.epochs
            report("heads", done, total, f"loss {float(loss.detach()):.3f}")

    def _loss(self, pair: HeadPair, rows: np.ndarray, scale: Tensor, random: np.random.Generator) -> Tensor:
        config = self.config
        texts = np.array([self.corpus.draw_text(row, random) for row in rows])
        first = self.first.take(rows, random)
        joined = self.teacher._join([first, *(other[rows] for other in self.others)])
        image, text = self._embed(pair.image, joined), self._embed(pair.text, self.texts[texts])
        groups, meanings = self.corpus.groups[rows], self.corpus.text_meanings[texts]
        loss = info_nce(image, text, scale, merge_groups(torch.from_numpy(groups), torch.from_numpy(meanings)))
        if config.posterior_weight:
            classes = self._embed(pair.text, self.classes)
            loss = loss + config.posterior_weight * affinity(scale * image @ classes.T, self.posterior[rows])
        if config.geometry_weight:
            drawn = random.choice(len(self.geometry_texts), min(1024, len(self.geometry_texts)), replace=False)
            texts_drawn = self._embed(pair.text, self.geometry_texts[drawn])
            loss = loss + config.geometry_weight * relational(texts_drawn, self.geometry[drawn], 0.05, 0.02)
        return loss

    def _embed(self, head: Head, features: Tensor) -> Tensor:
        """Map features to unit embeddings, by the arithmetic that the settings ask for."""
        with half_precision("cpu", self.config.precision):
            embedded: Tensor = head(features)
        return embedded


@constructor(AlignedPairConfig)
def _aligned_pair(config: AlignedPairConfig, context: TeacherContext) -> AlignedPair:
    assert context.corpus is not None
    pair = AlignedPair(config, context.base, context.data, context.cache)
    pair.fit(context.corpus, context.cache.folder, context.seed, context.report)
    return pair

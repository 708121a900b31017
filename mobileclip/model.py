"""A loaded bundle: photos and texts in, unit vectors out."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip.bundle import Bundle, Head, KnownAnswers, find_bundle
from mobileclip.encoder import DECODE_MARGIN, Encoder
from mobileclip.errors import BundleError, EngineError
from mobileclip.files import PathLike
from mobileclip.preprocess import PixelRecipe
from mobileclip.runtimes import ENGINES, Tower, load_tower
from mobileclip.tokenizer import Tokenizer, pad_after_end, without_padding
from mobileclip.vectors import Floats, unit_rows
from mobileclip.zeroshot import LabelSet

__all__ = ["Model", "open_bundle"]

# Engines and processors round differently. A wrong layout or a broken kernel is far below this.
KNOWN_ANSWER_COSINE = 0.999

_TEXT_BATCH = 64


class Model(Encoder):
    """The two towers of a bundle, each loaded and checked against its known answers on first use.

    Attributes:
        name: the bundle's name.
        dim: length of every vector.
        recipe: how pictures become pixels.
        logit_scale: the factor on cosines that the towers were trained with.
        manifest: the bundle's manifest.
        engine: the runtime of the towers.
        precision: the precision of the towers.
        fingerprint: hex hash of everything that determines vectors. Never mix vectors of different fingerprints.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        accelerator: str = "cpu",
    ) -> None:
        """Prepare a bundle for use; no tower is loaded yet.

        Args:
            bundle: an opened bundle.
            engine: None for the first of `ENGINES` that the bundle has towers for.
            precision: one of the engine's precisions in the bundle; None for its default.
            threads: threads for one batch; None leaves it to the engine.
            accelerator: "cpu", "auto" or a name, see `mobileclip.runtimes.load_tower`.

        Raises:
            EngineError: the bundle has no towers for this engine, or not in this precision.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self._bundle = bundle
        self._threads, self._accelerator = threads, accelerator
        self._towers: dict[str, Tower] = {}
        self._lock = Lock()
        self.manifest = bundle.manifest
        known = (name for name in ENGINES if name in self.manifest.towers)
        self.engine: str = engine or next(known, next(iter(ENGINES)))
        self._variant = bundle.variant(self.engine, precision)
        self.precision: str = self._variant.precision
        self.name = self.manifest.name
        self.dim = self.manifest.embed_dim
        self.logit_scale = self.manifest.logit_scale
        self.recipe: PixelRecipe = self.manifest.pixels
        self.fingerprint = self._make_fingerprint()

    def __repr__(self) -> str:
        towers = f"engine={self.engine!r}, precision={self.precision!r}"
        return f"<Model {self.name!r}: {self.dim} dimensions, {self.recipe.size} px, {towers}>"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer."""
        spec = self.manifest.tokenizer
        data = self._bundle.read(spec.file)
        # OpenAI's file has more merges than its vocabulary uses.
        tokenizer = Tokenizer.load(data, spec.context_length, max_merges=spec.vocab_size - 514)
        if tokenizer.vocab_size != spec.vocab_size:
            raise BundleError(
                f"{self._bundle.path}: the tokenizer has {tokenizer.vocab_size} ids, not {spec.vocab_size}"
            )
        return tokenizer

    @cached_property
    def labels(self) -> LabelSet:
        """The bundle's labels, with thresholds fitted for the towers in use."""
        name = self._variant.labels or self.manifest.labels
        try:
            return LabelSet.loads(self._bundle.read(name).decode("utf-8"))
        except UnicodeDecodeError:
            raise BundleError(f"{self._bundle.path}: {name} is not UTF-8") from None

    @cached_property
    def label_vectors(self) -> Floats:
        """One unit row per label, float32 (labels, dim)."""
        return self._bundle.label_vectors(len(self.labels))

    @cached_property
    def head(self) -> Head | None:
        """The image tower's projection, which `mobileclip.localize` needs; None if the bundle has none."""
        return self._bundle.head(self._variant)

    @property
    def accelerators(self) -> dict[str, str]:
        """What runs each tower ("image", "text") used so far: "cpu" or the name of an accelerator."""
        with self._lock:
            return {side: getattr(tower, "accelerator", "cpu") for side, tower in self._towers.items()}

    def encode_pixels(self, pixels: npt.NDArray[Any]) -> Floats:
        """Embed prepared pictures, see `Encoder.encode_pixels`."""
        return self._run("image", self._normalized(pixels))

    def _normalized(self, pixels: npt.NDArray[Any]) -> Floats:
        size = self.recipe.size
        if pixels.dtype == np.uint8:
            return self.recipe.normalize_uint8(pixels)
        if pixels.ndim != 4 or pixels.shape[1:] != (3, size, size):
            raise ValueError(f"pixels must be (n, 3, {size}, {size}), not {pixels.shape}")
        return pixels.astype(np.float32, copy=False)

    def encode_features(self, pixels: Floats) -> tuple[Floats, Floats]:
        """Embed pictures, and return the feature maps that the vectors were pooled from.

        Args:
            pixels: float32 (n, 3, size, size), n ≥ 1.

        Returns:
            float32 (n, dim), unit rows, and float32 (n, c, h, w).

        Raises:
            EngineError: the bundle's image tower has no feature map.
        """
        local = self._variant.local
        if local is None:
            raise EngineError(f"{self.name}: the image tower has no feature map")
        tower = self._tower("image")
        vectors, features = tower.with_features(self._tower_input(tower, pixels), local.output)
        return self._units("image", vectors, len(pixels)), features

    def _encode_texts(self, texts: Sequence[str]) -> Floats:
        tokens = pad_after_end(self.tokenizer(texts), self.tokenizer.eot)
        starts = range(0, len(tokens), _TEXT_BATCH)
        return np.concatenate([self._run("text", self._trimmed(tokens[at : at + _TEXT_BATCH])) for at in starts])

    def _run(self, side: str, inputs: npt.NDArray[Any]) -> Floats:
        """Embed one batch with the "image" or the "text" tower."""
        if not len(inputs):
            return np.empty((0, self.dim), np.float32)
        tower = self._tower(side)
        return self._units(side, tower(self._tower_input(tower, inputs)), len(inputs))

    def _tower_input(self, tower: Tower, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn pixels back into bytes for towers that normalize them themselves."""
        return self.recipe.denormalize(inputs) if tower.dtype == np.uint8 else inputs

    def _units(self, side: str, vectors: Floats, count: int) -> Floats:
        """Check the vectors that a tower returned for `count` inputs, and scale them to unit length."""
        if vectors.shape != (count, self.dim):
            raise EngineError(f"{self.name}: the {side} tower returned {vectors.shape}, not {count, self.dim}")
        try:
            return unit_rows(vectors)
        except ValueError:
            raise EngineError(
                f"{self.name}: the {side} tower returned a vector that is zero, NaN or infinite"
            ) from None

    def _tower(self, side: str) -> Tower:
        with self._lock:
            if side not in self._towers:
                answers = self._bundle.known_answers(self._variant)
                self._towers[side] = load_tower(
                    self.engine,
                    self._bundle.read(self._tower_file(side)),
                    threads=self._threads,
                    accelerator=self._accelerator,
                    check=lambda tower: self._check_known_answers(side, tower, answers),
                )
            return self._towers[side]

    def _check_known_answers(self, side: str, tower: Tower, answers: KnownAnswers) -> None:
        """Refuse a tower that doesn't compute the same on this machine as when it was exported."""
        inputs: npt.NDArray[Any]
        if side == "image":
            inputs, expected = self.recipe.normalize_uint8(answers.pixels), answers.image_vectors
        else:
            inputs, expected = self._trimmed(answers.tokens), answers.text_vectors
        vectors = self._units(side, tower(self._tower_input(tower, inputs)), len(inputs))
        cosines = (vectors * expected).sum(axis=1)
        if not cosines.min() >= KNOWN_ANSWER_COSINE:
            raise EngineError(
                f"{self.name}: the {side} tower returns wrong known answers with the engine {self.engine!r} "
                f"(cosine {cosines.min():.4f}, at least {KNOWN_ANSWER_COSINE} is needed)"
            )

    def _trimmed(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Drop columns of padding if the tower is causal, see `without_padding`."""
        return without_padding(tokens) if self.manifest.tokenizer.causal else tokens

    def _tower_file(self, side: str) -> str:
        return self._variant.image if side == "image" else self._variant.text

    def _make_fingerprint(self) -> str:
        spec, manifest = self.manifest.tokenizer, self.manifest
        parts = {
            "pixels": self.recipe.identity,
            "decode_margin": DECODE_MARGIN,
            "tokenizer": [
                manifest.files[spec.file].sha256,
                spec.context_length,
                spec.vocab_size,
            ],
            "towers": [digest for side in ("image", "text") for digest in manifest.hashes(self._tower_file(side))],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def open_bundle(
    name_or_path: PathLike,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    accelerator: str = "cpu",
) -> Model:
    """Open a bundle by name or path, see `mobileclip.load`."""
    bundle = Bundle(find_bundle(name_or_path))
    return Model(bundle, engine=engine, precision=precision, threads=threads, accelerator=accelerator)

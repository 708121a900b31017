"""A bundle's `manifest.json` as frozen dataclasses that read, check and write themselves."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mobileclip.errors import ConfigError, EngineError
from mobileclip.preprocess import PixelRecipe
from mobileclip.tables import build, to_table

__all__ = [
    "MANIFEST",
    "MAX_BYTES",
    "SCHEMA",
    "EngineTowers",
    "FeatureMap",
    "FileEntry",
    "Manifest",
    "TokenizerSpec",
    "TowerVariant",
    "is_safe",
]

SCHEMA: Final = 1
"""The manifest version that this code writes, and the newest that it reads."""

MANIFEST: Final = "manifest.json"
MAX_BYTES: Final = 4 * 2**20

# Plain names joined by "/": no "..", no drive, no hidden file, nothing that Windows interprets differently.
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BYTE_TOKENS = 514  # 256 bytes, the same at the end of a word, and the start and end tokens


def is_safe(name: str) -> bool:
    """Whether a file in a bundle may have this name."""
    return _SAFE_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle."""

    sha256: str
    """64 hex digits."""
    bytes: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256) or self.bytes < 0:
            raise ValueError("sha256 must be 64 hex digits, and bytes 0 or more")


@dataclass(frozen=True)
class TokenizerSpec:
    """How texts become token ids."""

    file: str
    """The merges of byte-pair encoding, gzipped."""
    context_length: int
    vocab_size: int
    causal: bool = False
    """Whether the text tower looks only at earlier tokens; it can then be run without padding."""

    def __post_init__(self) -> None:
        if self.context_length < 2 or self.vocab_size < _BYTE_TOKENS:
            raise ValueError(f"context_length ≥ 2 and vocab_size ≥ {_BYTE_TOKENS} are needed")


@dataclass(frozen=True)
class FeatureMap:
    """An image tower's feature map, which `mobileclip.localize` needs."""

    output: str
    """The tower's output that is the map."""
    head: str
    """The file with the projection from the map into the embedding space, see `mobileclip.bundle.Head`."""

    def __post_init__(self) -> None:
        if not self.output:
            raise ValueError("output must name the tower's output that is the feature map")


@dataclass(frozen=True, kw_only=True)
class TowerVariant:
    """The two towers of an engine in one precision."""

    precision: str = ""
    image: str
    """A file, or a folder of files."""
    text: str
    labels: str | None = None
    """Labels with thresholds fitted for these towers; None for the bundle's."""
    known_answers: str | None = None
    """None for the bundle's."""
    local: FeatureMap | None = None


@dataclass(frozen=True, kw_only=True)
class EngineTowers(TowerVariant):
    """The towers of an engine: the default ones, and variants in other precisions."""

    variants: dict[str, TowerVariant] = field(default_factory=dict)
    """Precision → towers."""

    def all(self) -> Iterator[TowerVariant]:
        """Yield the default, then the variants, each with its precision."""
        yield self
        yield from (replace(variant, precision=precision) for precision, variant in self.variants.items())


@dataclass(frozen=True)
class Manifest:
    """The content of a bundle's `manifest.json`."""

    name: str
    version: str
    license: str = field(metadata={"key": "licence"})
    provenance: str
    embed_dim: int
    logit_scale: float
    """The factor on cosines that the towers were trained with."""
    pixels: PixelRecipe
    tokenizer: TokenizerSpec
    towers: dict[str, EngineTowers]
    """Engine → its towers."""
    labels: str
    label_vectors: str
    known_answers: str
    research_only: bool = False
    revision: str = ""
    """The revision of the repository on a model hub that the towers come from."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Measurements made at export."""
    files: dict[str, FileEntry] = field(default_factory=dict)
    """All files of the bundle except the manifest."""

    def __post_init__(self) -> None:
        for name in ("name", "version", "license", "provenance", "labels", "label_vectors", "known_answers"):
            if not getattr(self, name):
                raise ValueError(f"{'licence' if name == 'license' else name} must not be empty")
        if self.embed_dim < 1:
            raise ValueError("embed_dim must be at least 1")
        if not 0 < self.logit_scale < math.inf:
            raise ValueError("logit_scale must be a number above 0")
        if not self.towers:
            raise ValueError("towers must name at least one engine")
        for name in self.files:
            if not is_safe(name) or name == MANIFEST:
                raise ValueError(f"{name!r} is not an acceptable file name")

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "Manifest":
        """Read a manifest's table. Unknown keys are ignored.

        Raises:
            ConfigError: a field is missing, of the wrong type or out of range.
        """
        manifest: Manifest = build(cls, table, "", ignore_unknown=True)
        return manifest

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read the `manifest.json` of a bundle.

        Raises:
            ConfigError: it isn't JSON, its schema is newer, a field is wrong, or it uses a file that it doesn't list.
        """
        if len(data) > MAX_BYTES:
            raise ConfigError("too large")
        try:
            table = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not JSON ({error})") from None
        schema = table.get("schema") if isinstance(table, dict) else None
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise ConfigError("no schema number, so this isn't a model bundle")
        if schema > SCHEMA:
            raise ConfigError(f"made by a newer pocketclip (schema {schema}, not {SCHEMA}): update pocketclip")
        manifest = cls.from_dict(table)
        manifest.check_files()
        return manifest

    def to_json(self) -> bytes:
        """Return the content of `manifest.json`."""
        table = {"schema": SCHEMA, **to_table(self)}
        return json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def check_files(self) -> None:
        """Check that `files` lists every file that the manifest uses.

        Raises:
            ConfigError: names the first file that isn't listed.
        """
        used = [self.tokenizer.file, self.labels, self.label_vectors, self.known_answers]
        for variant in (variant for towers in self.towers.values() for variant in towers.all()):
            head = variant.local.head if variant.local else None
            optional = (variant.labels, variant.known_answers, head)
            used += [name for name in optional if name is not None]
            used += [name for name in (variant.image, variant.text) if not self.hashes(name)]
        for name in used:
            if name not in self.files:
                raise ConfigError(f"the file {name!r} is used but not listed in files")

    def hashes(self, name: str) -> list[str]:
        """Return the SHA-256 of a file, or of all files in a folder, ordered by name; empty if there are none."""
        inside = sorted(file for file in self.files if file == name or file.startswith(f"{name}/"))
        return [self.files[file].sha256 for file in inside]

    def variant(self, engine: str, precision: str | None = None) -> TowerVariant:
        """Return the towers of an engine in one precision; None for the engine's default.

        Raises:
            EngineError: there is no such engine or precision.
        """
        if engine not in self.towers:
            raise EngineError(f"no towers for the engine {engine!r}, only for {', '.join(self.towers)}")
        variants = list(self.towers[engine].all())
        if precision is None:
            return variants[0]
        for variant in variants:
            if variant.precision == precision:
                return variant
        available = ", ".join(variant.precision for variant in variants)
        raise EngineError(f"no {precision} towers for the engine {engine!r}, only {available}")

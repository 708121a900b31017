"""Bundles, the form in which models are distributed: a folder or .zip whose `manifest.json` lists and hashes the files.

No file is trusted before its size and SHA-256 match the manifest, and none is ever executed: a bundle holds only JSON,
TOML, NumPy arrays without pickle, and model graphs.
"""

import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobileclip.errors import BundleError, ConfigError, EngineError
from mobileclip.files import PathLike, sync_folder, write_bytes
from mobileclip.home import models_folder
from mobileclip.manifest import MANIFEST, MAX_BYTES, FileEntry, Manifest, TowerVariant, is_safe

__all__ = ["Bundle", "Head", "KnownAnswers", "find_bundle", "named_bundles", "write_bundle"]

_BUNDLES = Path(__file__).parent / "bundles"

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    KeyError,
    ValueError,
)


@dataclass(frozen=True)
class KnownAnswers:
    """Inputs, and the vectors that a working engine returns for them.

    Attributes:
        pixels: uint8 (k, size, size, 3), cropped pictures.
        tokens: int32 (k, L), from the tokenizer.
        image_vectors: float32 (k, d), unit rows.
        text_vectors: float32 (k, d), unit rows.
    """

    pixels: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int32]
    image_vectors: npt.NDArray[np.float32]
    text_vectors: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """An image tower's projection from its feature map into the embedding space.

    Attributes:
        weight: float32 (d, c).
        bias: float32 (d,), zeros if the tower has none.
        cosine: lower bound of the cosine between the projected mean of a feature map and the photo's vector; 1 if they
            are the same up to rounding.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    cosine: float = 1.0


def named_bundles() -> dict[str, Path]:
    """Name → folder of every bundle that can be used by name: embedded bundles, then those that the user pulled."""
    found: dict[str, Path] = {}
    for parent in (_BUNDLES, models_folder()):
        with suppress(OSError):
            for folder in sorted(parent.iterdir()) if parent else ():
                if not folder.name.startswith(".") and (folder / MANIFEST).is_file():
                    found.setdefault(folder.name, folder)
    return found


def find_bundle(name_or_path: PathLike) -> Path:
    """Find a bundle's folder or .zip by the name of an embedded ("pocket") or pulled bundle, or by path.

    Raises:
        BundleError: there is no such bundle.
    """
    text = os.fspath(name_or_path)
    if is_safe(text):
        if (_BUNDLES / text).is_dir():
            return _BUNDLES / text
        pulled = models_folder()
        if pulled and (pulled / text / MANIFEST).is_file():
            return pulled / text
    path = Path(text).expanduser()
    with suppress(OSError, ValueError):
        if path.exists():
            return path
    available = ", ".join(named_bundles()) or "none"
    raise BundleError(f"no model bundle {text!r}: not a folder or .zip, embedded or pulled (available: {available})")


class Bundle:
    """A bundle whose files have all been verified.

    Attributes:
        path: the folder or .zip.
        manifest: its manifest.
    """

    def __init__(self, path: PathLike) -> None:
        """Open a bundle and compare every file with the manifest.

        Raises:
            BundleError: one line that names what is missing, altered, malformed or too new.
        """
        self.path = path = Path(path)
        self._zip_folder = ""
        if not path.is_dir():
            if not path.is_file():
                raise BundleError(f"{path}: no such model bundle")
            self._zip_folder = self._find_zip_folder()
        try:
            self.manifest = Manifest.from_json(self._raw(MANIFEST, MAX_BYTES))
        except ConfigError as error:
            raise BundleError(f"{path}: {MANIFEST}: {error}") from None
        for name in self.manifest.files:
            self.read(name)

    def read(self, name: str) -> bytes:
        """Read one file and verify it again, because it may have changed since the bundle was opened.

        Raises:
            BundleError: the manifest doesn't list it, it is missing, or its content doesn't match the manifest.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: the manifest does not list the file {name!r}")
        data = self._raw(name, entry.bytes)
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError(f"{self.path}: {name} was altered or damaged; get the bundle again")
        return data

    def variant(self, engine: str, precision: str | None = None) -> TowerVariant:
        """Return the towers of an engine in one precision; None for the engine's default.

        Raises:
            EngineError: there is no such engine or precision.
        """
        try:
            return self.manifest.variant(engine, precision)
        except EngineError as error:
            raise EngineError(f"{self.path}: {error}") from None

    def known_answers(self, towers: TowerVariant | None = None) -> KnownAnswers:
        """Read the inputs and the vectors that an engine must reproduce.

        Args:
            towers: a variant, which may have its own answers; None for the bundle's.

        Raises:
            BundleError: the file doesn't fit the manifest.
        """
        name = (towers and towers.known_answers) or self.manifest.known_answers
        try:
            with np.load(io.BytesIO(self.read(name)), allow_pickle=False) as arrays:
                answers = KnownAnswers(
                    pixels=arrays["pixels"],
                    tokens=arrays["tokens"],
                    image_vectors=arrays["image_vectors"],
                    text_vectors=arrays["text_vectors"],
                )
        except (*_ZIP_ERRORS, OSError, MemoryError, TypeError) as error:
            raise BundleError(f"{self.path}: {name} cannot be read ({error})") from None
        count, size, dim = len(answers.pixels), self.manifest.pixels.size, self.manifest.embed_dim
        sound = (
            answers.pixels.dtype == np.uint8
            and answers.pixels.shape == (count, size, size, 3)
            and answers.tokens.dtype == np.int32
            and answers.tokens.shape == (len(answers.tokens), self.manifest.tokenizer.context_length)
            and answers.image_vectors.shape == (count, dim)
            and answers.text_vectors.shape == (len(answers.tokens), dim)
        )
        if not sound or not count or not len(answers.tokens):
            raise BundleError(f"{self.path}: {name} has arrays whose shapes don't fit the manifest")
        return answers

    def head(self, towers: TowerVariant) -> Head | None:
        """Read the projection that follows the feature map of a variant's image tower; None if it has no map.

        Raises:
            BundleError: the file holds anything else.
        """
        if towers.local is None:
            return None
        name = towers.local.head
        try:
            with np.load(io.BytesIO(self.read(name)), allow_pickle=False) as arrays:
                weight = np.asarray(arrays["weight"], np.float32)
                bias = np.asarray(arrays["bias"] if "bias" in arrays else np.zeros(len(weight)), np.float32)
                cosine = float(arrays["cosine"]) if "cosine" in arrays else 1.0
        except (*_ZIP_ERRORS, OSError, MemoryError, TypeError) as error:
            raise BundleError(f"{self.path}: {name} cannot be read ({error})") from None
        dim = self.manifest.embed_dim
        finite = np.isfinite(weight).all() and np.isfinite(bias).all() and -1 <= cosine <= 1
        if weight.ndim != 2 or len(weight) != dim or bias.shape != (dim,) or not finite:
            raise BundleError(f"{self.path}: {name} is not a projection into {dim} dimensions")
        return Head(weight, bias, cosine)

    def label_vectors(self, labels: int) -> npt.NDArray[np.float32]:
        """Read one unit row per label, float32 (labels, embed_dim).

        Raises:
            BundleError: the file holds anything else.
        """
        name = self.manifest.label_vectors
        try:
            vectors = np.load(io.BytesIO(self.read(name)), allow_pickle=False)
        except (*_ZIP_ERRORS, OSError, MemoryError) as error:
            raise BundleError(f"{self.path}: {name} cannot be read ({error})") from None
        shape = (labels, self.manifest.embed_dim)
        if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.shape != shape:
            raise BundleError(f"{self.path}: {name} is not one float32 vector for each of the {labels} labels")
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2):
            raise BundleError(f"{self.path}: {name} has vectors without unit length")
        return vectors

    def _raw(self, name: str, most: int) -> bytes:
        """Read at most `most` + 1 bytes of a file, so that an oversized file is noticed but never read whole."""
        try:
            if self.path.is_dir():
                if not (self.path / name).is_file():
                    raise FileNotFoundError  # a folder or a pipe counts as missing
                with (self.path / name).open("rb") as file:
                    return file.read(most + 1)
            with zipfile.ZipFile(self.path) as archive, archive.open(self._zip_folder + name) as member:
                return member.read(most + 1)
        except (FileNotFoundError, KeyError):
            raise BundleError(f"{self.path}: {name} is missing: incomplete model bundle") from None
        except (*_ZIP_ERRORS, OSError) as error:
            raise BundleError(f"{self.path}: {name} cannot be read ({error})") from None

    def _find_zip_folder(self) -> str:
        """Return "" if the manifest is at the top of the .zip, "pocket/" if a folder was zipped."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except (*_ZIP_ERRORS, OSError) as error:
            raise BundleError(f"{self.path}: not a model bundle, neither a folder nor a .zip ({error})") from None
        found = [name for name in names if name == MANIFEST or name.endswith(f"/{MANIFEST}")]
        nearest = min(found, key=lambda name: name.count("/"), default=MANIFEST)
        return nearest.removesuffix(MANIFEST)


def write_bundle(folder: PathLike, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
    """Write a bundle as a whole or not at all.

    The files and the manifest are written to a hidden folder next to `folder`, opened as a reader would open them, and
    only then renamed into place. An existing bundle is replaced as a whole.

    Args:
        folder: the bundle to write.
        manifest: everything but `files`, which is filled in here.
        files: name → content of everything but the manifest; a model card may be among them.

    Returns:
        The folder.

    Raises:
        BundleError: a field or name that no reader would accept; nothing is written.
    """
    target = Path(folder)
    entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    try:
        manifest = replace(manifest, files=entries)
        manifest.check_files()
    except (ConfigError, ValueError) as error:
        raise BundleError(f"{target}: {MANIFEST}: {error}") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        new = Path(scratch) / "new"
        for name, data in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(new / name, data)
        write_bytes(new / MANIFEST, manifest.to_json())
        Bundle(new)
        old = Path(scratch) / "old"
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    sync_folder(target.parent)
    return target

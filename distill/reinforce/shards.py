"""The files that `pocketclip reinforce` writes: shards of teacher embeddings with the augmentations they belong to.

A folder contains `reinforcement.json`, which lists teachers and settings, and two files per shard:

- `00000.jsonl`, one line per sample: key, photo, captions, synthetic captions, and the first row of its texts.
  Samples with embeddings come first, so line i belongs to row i. Unreadable samples follow, with their reason.
- `00000.safetensors`: `augmentations` (n, k, ·) float32, and for each teacher t `image.t` (n, k, d), `text.t` (m, d).

The second file is written last and contains the digest of the first, so a shard whose second file exists is complete.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.config import Reinforcement, build
from distill.data.tables import DataError, unreadable
from distill.files import write_whole
from mobileclip.files import PathLike

SIDECAR = "reinforcement.json"
SCHEMA = 1
Dtype = Literal["float16", "bfloat16", "int8"]


@dataclass(frozen=True)
class TeacherEntry:
    """A teacher whose embeddings are stored."""

    identity: str
    dim: int
    logit_scale: float
    px: int = 224
    """Side of its views in pixels."""


@dataclass(frozen=True)
class ShardEntry:
    """A shard of a folder; counts and digest are set once all shards are complete."""

    name: str
    source: str
    photos: int = 0
    texts: int = 0
    """Number of texts without photos."""
    unread: int = 0
    """Number of unreadable samples."""
    digest: str = ""
    """SHA-256 of its lines."""


@dataclass(frozen=True)
class Sidecar:
    """`reinforcement.json`.

    For DataCompDR's own tars, write it by hand: `schema`, `layout = "datacompdr"`, and `teachers` in the order in which
    their embeddings are concatenated.
    """

    schema: int
    layout: Literal["pocketclip", "datacompdr"]
    teachers: tuple[TeacherEntry, ...]
    normalised: bool = True
    """All embeddings have unit length."""
    policy: Reinforcement = field(default_factory=Reinforcement)
    seed: int = 0
    basis: str = ""
    """Digest of the names and texts of all samples."""
    shards: tuple[ShardEntry, ...] = ()
    complete: bool = False

    def __post_init__(self) -> None:
        if not self.teachers or not self.normalised:
            raise DataError(f"{SIDECAR}: at least one teacher, and unit embeddings, are needed")

    @classmethod
    def load(cls, folder: PathLike) -> Sidecar:
        """Read a folder's sidecar.

        Raises:
            PocketclipError: it is missing, damaged, or of another version.
        """
        path = Path(folder) / SIDECAR
        try:
            fields = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{path}: missing; run `pocketclip reinforce`, or for DataCompDR tars write it: "
                '{"schema": 1, "layout": "datacompdr", "teachers": [{"identity": …, "dim": 768, "logit_scale": 70}, …]}'
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise unreadable(path, error) from error
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            raise DataError(f"{path}: not of schema {SCHEMA}, which this version reads")
        sidecar: Sidecar = build(cls, fields, str(path))
        return sidecar

    def save(self, folder: PathLike) -> None:
        """Write the sidecar; a crash leaves the old one.

        Raises:
            PocketclipError: it can't be written.
        """
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        _write(Path(folder) / SIDECAR, text.encode("utf-8"))


def compress(vectors: Tensor, dtype: Dtype) -> dict[str, Tensor]:
    """Round embeddings (…, d) float32 for storage.

    Returns:
        Tensors by what to append to the name. With int8, a row is stored as multiples of 1/127 of its largest
        component, and that unit as `.scale` (…, 1) float32.
    """
    if dtype != "int8":
        return {"": vectors.to(getattr(torch, dtype))}
    scale = vectors.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return {"": (vectors / scale).round().to(torch.int8), ".scale": scale}


def expand(stored: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return stored embeddings as float32 unit rows."""
    return F.normalize(stored.float() if scale is None else stored.float() * scale, dim=-1)


def write_shard(folder: PathLike, name: str, lines: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> None:
    """Write a shard. It counts as complete only when both files are.

    Args:
        folder: the folder of the reinforced data.
        name: name of the shard.
        lines: its samples; those with embeddings first.
        tensors: see the docstring of this module.

    Raises:
        PocketclipError: it can't be written.
    """
    from safetensors.torch import save

    text = "".join(json.dumps(line) + "\n" for line in lines).encode("ascii")
    digest = hashlib.sha256(text).hexdigest()
    _write(Path(folder) / f"{name}.jsonl", text)
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    _write(Path(folder) / f"{name}.safetensors", save(contiguous, metadata={"digest": digest}))


def _write(path: Path, data: bytes) -> None:
    write_whole(path, lambda stream: stream.write(data))


def is_complete(folder: PathLike, name: str) -> bool:
    """Return whether a shard is complete."""
    return (Path(folder) / f"{name}.safetensors").exists()


class Shard:
    """A shard: lines in memory, and tensors that are read row by row from a memory-mapped file.

    Args:
        folder: the folder of the reinforced data.
        name: name of the shard.

    Raises:
        DataError: a file is missing or damaged, or the files don't belong together.
    """

    def __init__(self, folder: PathLike, name: str) -> None:
        path = Path(folder) / f"{name}.safetensors"
        try:
            self.text = path.with_suffix(".jsonl").read_bytes()
        except OSError as error:
            raise unreadable(path.with_suffix(".jsonl"), error) from error
        self.tensors, self.digest = _open(path)
        self.names = frozenset(self.tensors.keys())
        if hashlib.sha256(self.text).hexdigest() != self.digest:
            raise DataError(f"{path}: does not belong to the .jsonl next to it; remove both and reinforce again")
        ends = np.flatnonzero(np.frombuffer(self.text, np.uint8) == ord("\n")) + 1
        self.starts = np.concatenate([[0], ends])

    @staticmethod
    def digest_of(folder: PathLike, name: str) -> str:
        """Return the digest that a shard's second file contains, without checking it.

        Raises:
            DataError: the file is missing or damaged.
        """
        return _open(Path(folder) / f"{name}.safetensors")[1]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def line(self, row: int) -> dict[str, Any]:
        """Return a sample's line."""
        fields: dict[str, Any] = json.loads(self.text[self.starts[row] : self.starts[row + 1]])
        return fields

    def row(self, name: str, *index: int) -> Tensor:
        """Return part of a stored tensor: `row("image.0", sample, view)` is (d,)."""
        value: Tensor = self.tensors.get_slice(name)[index]
        return value

    def vector(self, name: str, *index: int) -> Tensor:
        """Return a stored embedding (d,) as float32 of unit length."""
        scale = f"{name}.scale"
        return expand(self.row(name, *index), self.row(scale, *index) if scale in self.names else None)

    def count(self) -> ShardEntry:
        """Count the samples of each kind; name and source stay empty."""
        kinds = [self.line(row) for row in range(len(self))]
        unread = sum("unread" in line for line in kinds)
        texts = sum("photo" not in line and "unread" not in line for line in kinds)
        return ShardEntry("", "", len(kinds) - unread - texts, texts, unread, self.digest)


def _open(path: Path) -> tuple[Any, str]:
    """Memory-map a shard's tensors; also return the digest of the lines that belong to them."""
    from safetensors import SafetensorError, safe_open

    try:
        tensors = safe_open(path, framework="pt")
        return tensors, (tensors.metadata() or {}).get("digest", "")
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from error

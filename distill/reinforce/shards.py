"""What `pocketclip reinforce` writes: shards of teacher vectors with the augmentations they belong to.

A folder holds `reinforcement.json`, which says who taught and how, and pairs of files:

- `00000.jsonl`, a line a sample: key, photo, captions, synthetic captions, and where its texts' vectors begin.
  Samples with vectors come first, so that line i is row i; what could not be read follows, with its reason.
- `00000.safetensors`: `augmentations` (n, k, ·) float32, and for each teacher t `image.t` (n, k, d), `text.t` (m, d).

The tensors' file appears last and names the digest of its lines: where it lies, the shard is whole.
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
from distill.data.sources import DataError
from distill.files import write_whole

SIDECAR = "reinforcement.json"
SCHEMA = 1
Dtype = Literal["float16", "bfloat16", "int8"]


@dataclass(frozen=True)
class TeacherNote:
    """A teacher of the stored vectors."""

    identity: str
    dim: int
    logit_scale: float
    px: int = 224
    """Side of the views it was shown."""


@dataclass(frozen=True)
class ShardNote:
    """A shard of a folder, with its counts once all shards are done."""

    name: str
    source: str
    photos: int = 0
    texts: int = 0
    """Texts without photos."""
    unread: int = 0
    digest: str = ""
    """SHA-256 of its lines."""


@dataclass(frozen=True)
class Sidecar:
    """`reinforcement.json`.

    For DataCompDR's own tars it is written by hand: `schema`, `layout = "datacompdr"` and `teachers`, in the order in
    which their vectors stand side by side.
    """

    schema: int
    layout: Literal["pocketclip", "datacompdr"]
    teachers: tuple[TeacherNote, ...]
    normalised: bool = True
    """Every teacher's vectors have unit length."""
    policy: Reinforcement = field(default_factory=Reinforcement)
    seed: int = 0
    basis: str = ""
    """Digest of the names and texts of all samples."""
    shards: tuple[ShardNote, ...] = ()
    complete: bool = False

    def __post_init__(self) -> None:
        if not self.teachers or not self.normalised:
            raise DataError(f"{SIDECAR}: at least one teacher, and unit vectors, are needed")

    @classmethod
    def load(cls, folder: Path) -> Sidecar:
        """Read a folder's sidecar.

        Raises:
            PocketclipError: it is missing, damaged, or of another version.
        """
        path = folder / SIDECAR
        try:
            fields = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{path}: missing; run `pocketclip reinforce`, or for DataCompDR tars write it: "
                '{"schema": 1, "layout": "datacompdr", "teachers": [{"identity": …, "dim": 768, "logit_scale": 70}, …]}'
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            raise DataError(f"{path}: not of schema {SCHEMA}, which this version reads")
        made: Sidecar = build(cls, fields, str(path))
        return made

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        _write(folder / SIDECAR, text.encode("utf-8"))


def compress(vectors: Tensor, dtype: Dtype) -> dict[str, Tensor]:
    """Round vectors (…, d) float32 as they are stored, by what is added to their name.

    int8 stands for multiples of the 127th part of a vector's largest component, kept beside it as `.scale` (…, 1).
    """
    if dtype != "int8":
        return {"": vectors.to(getattr(torch, dtype))}
    scale = vectors.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return {"": (vectors / scale).round().to(torch.int8), ".scale": scale}


def expand(stored: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return stored vectors as unit rows, float32."""
    return F.normalize(stored.float() if scale is None else stored.float() * scale, dim=-1)


def write_shard(folder: Path, name: str, lines: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> None:
    """Write a shard; it counts as there only once both files are whole.

    Args:
        folder: of the reinforcement.
        name: of the shard.
        lines: its samples, those with vectors first.
        tensors: as the module's docstring lists them.

    Raises:
        PocketclipError: it cannot be written.
    """
    from safetensors.torch import save

    text = "".join(json.dumps(line) + "\n" for line in lines).encode("ascii")
    digest = hashlib.sha256(text).hexdigest()
    _write(folder / f"{name}.jsonl", text)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    _write(folder / f"{name}.safetensors", save(whole, metadata={"digest": digest}))


def _write(path: Path, data: bytes) -> None:
    write_whole(path, lambda stream: stream.write(data))


def is_done(folder: Path, name: str) -> bool:
    """Whether a shard is whole."""
    return (folder / f"{name}.safetensors").exists()


class Shard:
    """A shard's lines in memory, its vectors read row by row from the mapped file.

    Args:
        folder: of the reinforcement.
        name: of the shard.

    Raises:
        DataError: a file is missing or damaged, or they do not belong together.
    """

    def __init__(self, folder: Path, name: str) -> None:
        path = folder / f"{name}.safetensors"
        try:
            self.text = path.with_suffix(".jsonl").read_bytes()
        except OSError as error:
            raise DataError(f"{path.with_suffix('.jsonl')}: cannot be read ({error.strerror})") from error
        self.tensors, self.digest = _open(path)
        self.names = frozenset(self.tensors.keys())
        if hashlib.sha256(self.text).hexdigest() != self.digest:
            raise DataError(f"{path}: does not belong to the .jsonl beside it; remove both and reinforce again")
        ends = np.flatnonzero(np.frombuffer(self.text, np.uint8) == ord("\n")) + 1
        self.starts = np.concatenate([[0], ends])

    @staticmethod
    def digest_of(folder: Path, name: str) -> str:
        """Return the digest that a shard names, without reading it.

        Raises:
            DataError: it is missing or damaged.
        """
        return _open(folder / f"{name}.safetensors")[1]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def line(self, row: int) -> dict[str, Any]:
        """Return a sample's line."""
        fields: dict[str, Any] = json.loads(self.text[self.starts[row] : self.starts[row + 1]])
        return fields

    def row(self, name: str, *place: int) -> Tensor:
        """Return part of a tensor as it is stored, `(d,)` of `image.0` for `place` (sample, view)."""
        value: Tensor = self.tensors.get_slice(name)[place]
        return value

    def vector(self, name: str, *place: int) -> Tensor:
        """Return a vector (d,) as float32 of unit length."""
        scale = f"{name}.scale"
        return expand(self.row(name, *place), self.row(scale, *place) if scale in self.names else None)

    def count(self) -> ShardNote:
        """Count what the shard holds, its name and source left open."""
        kinds = [self.line(row) for row in range(len(self))]
        unread = sum("unread" in line for line in kinds)
        texts = sum("photo" not in line and "unread" not in line for line in kinds)
        return ShardNote("", "", len(kinds) - unread - texts, texts, unread, self.digest)


def _open(path: Path) -> tuple[Any, str]:
    """Map a shard's tensors; also the digest of the lines that belong to them."""
    from safetensors import SafetensorError, safe_open

    try:
        tensors = safe_open(path, framework="pt")
        return tensors, (tensors.metadata() or {}).get("digest", "")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error

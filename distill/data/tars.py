"""WebDataset tars: photos with captions as DataComp and img2dataset store them, and DataCompDR's reinforcements.

A tar is read by the positions of its members, so that a sample in the middle is one seek away: photos are shuffled
freely, workers share the work without an order among them, and resuming reads nothing twice. Members are only ever
taken as pictures, UTF-8 text, JSON and arrays of numbers; no decoder here can run anything that a tar brings.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from distill.data.sources import DataError
from mobileclip.errors import PhotoError
from mobileclip.photos import open_photo

PICTURES = ("jpg", "jpeg", "png", "webp")
_FORMATS = ("JPEG", "PNG", "WEBP")
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LARGEST_ARRAY = 64 * 2**20  # bytes of one sample's vectors, unpacked

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """Where the bytes of a photo lie.

    Attributes:
        path: an image file, or a tar.
        place: offset and length in the tar; None for a file of its own.
    """

    path: Path
    place: tuple[int, int] | None = None

    def open(self, min_side: int | None = None) -> Image.Image:
        """Return the upright RGB photo; `min_side` as in `mobileclip.photos.open_photo`.

        Raises:
            PhotoError: it cannot be read.
        """
        if self.place is None:
            return open_photo(self.path, min_side=min_side)
        name = f"{self.path} at {self.place[0]}"
        try:
            image = Image.open(io.BytesIO(_read(self.path, self.place)), formats=_FORMATS)
            if min_side is not None:
                image.draft(None, (min_side, min_side))
        except UnidentifiedImageError as error:
            raise PhotoError(name, "not an image") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise PhotoError(name, "too large", str(error)) from error
        except Exception as error:  # decoders raise anything on hostile bytes
            raise PhotoError(name, "cannot be read", " ".join(str(error).split())[:200]) from error
        return open_photo(image)


class Skipped(NamedTuple):
    """A sample, or the rest of a tar, that was left out."""

    key: str
    reason: str


class SampleError(Exception):
    """A sample that is incomplete or damaged; its neighbours are not."""


@dataclass(frozen=True)
class TarSample:
    """The members of one sample.

    Attributes:
        tar: their tar.
        key: the members' name up to its first dot.
        members: offset and length by what follows that dot, in small letters.
    """

    tar: Path
    key: str
    members: Mapping[str, tuple[int, int]]

    def read(self, suffix: str) -> bytes:
        """Return a member's bytes.

        Raises:
            SampleError: there is none, or it is cut off.
        """
        if suffix not in self.members:
            raise SampleError(f"no {suffix}")
        try:
            return _read(self.tar, self.members[suffix])
        except OSError as error:
            raise SampleError(f"{suffix}: {error.strerror or error}") from error

    def json(self, suffix: str) -> dict[str, Any]:
        """Return a member that is a JSON object.

        Raises:
            SampleError: it is missing or no such thing.
        """
        try:
            value = json.loads(self.read(suffix).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise SampleError(f"{suffix}: not JSON") from error
        if not isinstance(value, dict):
            raise SampleError(f"{suffix}: not a JSON object")
        return value

    @property
    def photo(self) -> Place:
        """Where the picture lies.

        Raises:
            SampleError: there is none.
        """
        for suffix in PICTURES:
            if suffix in self.members:
                return Place(self.tar, self.members[suffix])
        raise SampleError("no picture")

    def captions(self) -> tuple[str, ...]:
        """Return what `txt` says, or `caption`, `captions`, `text` or `texts` of `json`; at least one text.

        Raises:
            SampleError: there is no caption, or it is no text.
        """
        if "txt" in self.members:
            try:
                said: Any = self.read("txt").decode("utf-8")
            except UnicodeDecodeError as error:
                raise SampleError("txt: not UTF-8") from error
        else:
            about = self.json("json") if "json" in self.members else {}
            said = next((about[name] for name in ("caption", "captions", "text", "texts") if name in about), ())
        captions = _texts(said, "caption")
        if not captions:
            raise SampleError("no caption")
        return captions

    def synthetic(self) -> dict[str, tuple[str, ...]]:
        """Return the lists of `syn.json` whose names begin with `syn_text`, by name; empty where there is none.

        Raises:
            SampleError: it is damaged.
        """
        if "syn.json" not in self.members:
            return {}
        lists = self.json("syn.json").items()
        return {name: _texts(said, name) for name, said in lists if name.startswith("syn_text")}


def _texts(said: Any, what: str) -> tuple[str, ...]:
    """One text or a list of them, without empty ones."""
    texts = [said] if isinstance(said, str) else said
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise SampleError(f"{what}: not a text or a list of texts")
    return tuple(text.strip() for text in texts if text.strip())


def find_tars(path: Path) -> list[Path]:
    """List the tars of a source: one file, all in a folder, or all that fit a pattern such as `set/000*.tar`.

    Raises:
        DataError: there is none, or one is compressed, for in those nothing can be found without reading all.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith((".tar", *_PACKED)))
    else:
        found = [path] if path.is_file() else sorted(path.parent.glob(path.name))
    if packed := [tar for tar in found if tar.name.endswith(_PACKED)]:
        raise DataError(f"{packed[0]}: a compressed tar; unpack it to .tar, pictures in it are compressed already")
    if not found:
        raise DataError(f"{path}: no .tar there")
    return found


def read_index(tar: Path) -> tuple[list[TarSample], list[Skipped]]:
    """Find the samples of a tar, in its order, reading nothing but the members' headers.

    Members whose bytes are cut off are left out of their sample; a tar that ends early or is damaged gives the samples
    before that place. Each such loss is in the second list.

    Raises:
        DataError: the tar cannot be opened at all.
    """
    from webdataset.tariterators import group_by_keys

    skipped: list[Skipped] = []

    def note(error: Exception) -> bool:
        name = str(error.args[0]).partition(":")[0] if error.args else tar.name
        skipped.append(Skipped(name, "a second member of this name"))
        return True

    try:
        with tar.open("rb") as stream:
            groups = list(group_by_keys(_members(stream, tar, skipped), handler=note))
    except OSError as error:
        raise DataError(f"{tar}: cannot be read ({error.strerror or error})") from error
    samples = []
    for group in groups:
        places = {suffix: place for suffix, place in group.items() if not suffix.startswith("__")}
        samples.append(TarSample(tar, group["__key__"], places))
    return samples, skipped


def _members(stream: BinaryIO, tar: Path, skipped: list[Skipped]) -> Iterator[dict[str, Any]]:
    """Yield each regular member's name and place, as webdataset groups them; notes what is cut off or damaged."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    last = "its beginning"
    try:
        # Undecodable names keep their bytes as surrogates, and so stay different from each other.
        archive = tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        for member in archive:
            last = member.name
            if not member.isreg():
                continue
            if member.offset_data + member.size > end:
                skipped.append(Skipped(member.name, "truncated"))
                continue
            place = (member.offset_data, member.size)
            yield {"fname": member.name, "data": place, "__url__": str(tar)}
        stream.seek(archive.offset)
        closing = stream.read(tarfile.BLOCKSIZE)
        if closing.strip(b"\0") or not closing:
            # tarfile takes a damaged header for the end.
            skipped.append(Skipped(tar.name, f"{'damaged' if closing else 'no end'} after {last}"))
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        skipped.append(Skipped(tar.name, f"damaged after {last} ({error})"))


def _read(path: Path, place: tuple[int, int]) -> bytes:
    """Read a stretch of a file.

    Raises:
        OSError: the file is missing or ends before.
    """
    offset, length = place
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(length)
    if len(data) < length:
        raise OSError("truncated")
    return data


@dataclass(frozen=True)
class Reinforced:
    """What DataCompDR stores of a sample: all teachers' vectors side by side.

    Attributes:
        augmentations: as `paug.json` has them, for `distill.data.augment.from_datacompdr`.
        texts: captions, then synthetic ones.
        captions: how many of them are captions.
        image: (len(augmentations), d) float32.
        text: (len(texts), d) float32.
    """

    augmentations: tuple[Any, ...]
    texts: tuple[str, ...]
    captions: int
    image: Vectors
    text: Vectors


def read_datacompdr(sample: TarSample) -> Reinforced:
    """Read a sample of DataCompDR or DFNDR (github.com/apple/ml-mobileclip, training/open_clip_v2.patch).

    Raises:
        SampleError: something is missing, or counts do not fit each other.
    """
    augmentations = sample.json("paug.json").get("param_aug")
    try:
        # Written as a list, or as a list in a string.
        augmentations = json.loads(augmentations) if isinstance(augmentations, str) else augmentations
    except (ValueError, RecursionError) as error:
        raise SampleError("paug.json: not JSON") from error
    if not isinstance(augmentations, list) or not augmentations:
        raise SampleError("paug.json: no param_aug")
    captions, synthetic = sample.captions(), sample.synthetic()
    texts = captions + tuple(text for said in synthetic.values() for text in said)
    arrays = _arrays(sample)
    image, text = arrays.get("image_emb"), arrays.get("text_emb")
    if image is None or text is None:
        raise SampleError("no image_emb and text_emb")
    if len(text) == len(captions):  # DFNDR keeps those of synthetic captions apart
        text = np.concatenate([text, *(arrays[name] for key in synthetic if (name := f"{key}_emb") in arrays)])
    if len(image) != len(augmentations) or len(text) != len(texts) or image.shape[1] != text.shape[1]:
        raise SampleError(
            f"{len(augmentations)} augmentations and {len(texts)} texts, but vectors {image.shape} and {text.shape}"
        )
    return Reinforced(tuple(augmentations), texts, len(captions), image, text)


def _arrays(sample: TarSample) -> dict[str, Vectors]:
    """Read a sample's vectors from `npz`, else `pth.gz`; never by unpickling."""
    import torch

    try:
        if "npz" in sample.members:
            with np.load(io.BytesIO(sample.read("npz")), allow_pickle=False) as stored:
                if sum(info.file_size for info in stored.zip.infolist()) > _LARGEST_ARRAY:
                    raise SampleError("npz: too large")
                return {name: _matrix(stored[name]) for name in stored.files}
        with gzip.GzipFile(fileobj=io.BytesIO(sample.read("pth.gz"))) as packed:
            data = packed.read(_LARGEST_ARRAY + 1)
        if len(data) > _LARGEST_ARRAY:
            raise SampleError("pth.gz: too large")
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return {name: _matrix(torch.as_tensor(value).float().numpy()) for name, value in tensors.items()}
    except SampleError:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise SampleError(f"vectors: not plain arrays ({' '.join(str(error).split())[:120]})") from error
    except Exception as error:  # zipfile and torch's reader raise anything on hostile bytes
        raise SampleError(f"vectors: refused ({type(error).__name__}); only plain tensors are read") from error


def _matrix(array: NDArray[Any]) -> Vectors:
    if array.ndim != 2 or array.dtype.kind != "f":
        raise SampleError(f"vectors: {array.dtype} {array.shape}, not rows of floating-point numbers")
    return array.astype(np.float32)

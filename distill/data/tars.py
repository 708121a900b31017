"""WebDataset tars: photos with captions in the layout of DataComp and img2dataset, and DataCompDR's stored views.

An index of the members' positions makes each sample one seek away, so photos can be shuffled freely, workers need no
order among them, and a resumed run reads nothing twice. Members are only decoded as pictures, UTF-8 text, JSON and
arrays of numbers; no decoder used here can execute what a tar contains.
"""

from __future__ import annotations

import functools
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

from distill.data.tables import DataError, read_lines, unreadable, whole_characters
from mobileclip.errors import PhotoError, one_line
from mobileclip.files import PathLike
from mobileclip.photos import open_photo
from mobileclip.vectors import Floats

PICTURES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "json", "cls")
"""Members that can hold the texts of a sample."""
CLASS_NAMES = "classnames.txt"
_CAPTIONS = ("caption", "captions", "text", "texts")
_FORMATS = ("JPEG", "PNG", "WEBP")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LARGEST_ARRAY = 64 * 2**20  # bytes of a sample's embeddings, uncompressed

Span = tuple[int, int]
"""Offset and length of a member in its tar, in bytes."""


@dataclass(frozen=True)
class PhotoRef:
    """Where to read a photo.

    Attributes:
        path: an image file, or a tar.
        span: the photo's position in the tar; None for an image file.
    """

    path: Path
    span: Span | None = None

    @classmethod
    def of(cls, photo: PathLike | PhotoRef) -> PhotoRef:
        """Return the reference to an image file, or the reference itself."""
        return photo if isinstance(photo, PhotoRef) else cls(Path(photo))

    @property
    def identity(self) -> str:
        """What cached embeddings know the photo by: path, size, time of change, and position in a tar.

        Raises:
            OSError: the file is gone.
        """
        status = self.path.stat()
        place = f"|{self.span[0]}" if self.span else ""
        return f"{self.path}|{status.st_size}|{status.st_mtime_ns}{place}"

    def open(self, min_side: int | None = None) -> Image.Image:
        """Return the upright RGB photo; for `min_side`, see `mobileclip.photos.open_photo`.

        Raises:
            PhotoError: it can't be read.
        """
        if self.span is None:
            return open_photo(self.path, min_side=min_side)
        name = f"{self.path} at {self.span[0]}"
        try:
            image = Image.open(io.BytesIO(_read(self.path, self.span)), formats=_FORMATS)
            if min_side is not None:
                image.draft(None, (min_side, min_side))
        except UnidentifiedImageError as error:
            raise PhotoError(name, "not an image") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise PhotoError(name, "too large", str(error)) from error
        except Exception as error:  # decoders raise anything on hostile bytes
            raise PhotoError(name, "cannot be read", one_line(error)) from error
        return open_photo(image)


class Omission(NamedTuple):
    """A sample, or the rest of a tar, that can't be used."""

    key: str
    reason: str


class SampleError(Exception):
    """An incomplete or damaged sample; the samples next to it can be read."""


@dataclass(frozen=True)
class TarSample:
    """The members of one sample.

    Attributes:
        tar: the tar.
        key: the members' name up to its first dot.
        members: positions by suffix: what follows that dot, in lower case.
    """

    tar: Path
    key: str
    members: Mapping[str, Span]

    def read(self, suffix: str) -> bytes:
        """Return a member's bytes.

        Raises:
            SampleError: it is missing or truncated.
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
            SampleError: it is missing, or isn't a JSON object.
        """
        try:
            value = json.loads(self.read(suffix).decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise SampleError(f"{suffix}: not JSON") from error
        if not isinstance(value, dict):
            raise SampleError(f"{suffix}: not a JSON object")
        return value

    @property
    def photo(self) -> PhotoRef:
        """Where to read the picture.

        Raises:
            SampleError: it is missing.
        """
        for suffix in PICTURES:
            if suffix in self.members:
                return PhotoRef(self.tar, self.members[suffix])
        raise SampleError("no picture")

    @property
    def lacks(self) -> str:
        """What a training sample needs and this one lacks, judged by the names of its members; empty if nothing."""
        if not any(suffix in self.members for suffix in PICTURES):
            return "no picture"
        return "" if any(suffix in self.members for suffix in TEXTS) else "no caption"

    def label(self) -> str | None:
        """Return the class in `cls` if the sample has no caption: its name, or its number in `classnames.txt`.

        As in CLIP_benchmark, that file has one name per line and is in the folder of the tar or the one above.

        Raises:
            SampleError: the class has no name.
            DataError: it is a number, and there is no `classnames.txt`.
        """
        if "cls" not in self.members or "txt" in self.members:
            return None
        if "json" in self.members and not self.json("json").keys().isdisjoint(_CAPTIONS):
            return None
        try:
            name = self.read("cls").decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise SampleError("cls: not UTF-8") from error
        if not name:
            raise SampleError("cls: empty")
        if not (name.isascii() and name.isdigit()):
            return name
        names = class_names(self.tar)
        if not names:
            raise DataError(f"{self.tar}: {self.key}: class {name} has no name; put {CLASS_NAMES} next to the tars")
        if len(name) > 9 or int(name) >= len(names):
            raise SampleError(f"cls: a number beyond the {len(names)} names in {CLASS_NAMES}")
        return names[int(name)]

    def captions(self) -> tuple[str, ...]:
        """Return the text in `txt`, or the `caption`, `captions`, `text` or `texts` in `json`; at least one.

        Raises:
            SampleError: there is no caption, or it isn't text.
        """
        if "txt" in self.members:
            try:
                value: Any = self.read("txt").decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise SampleError("txt: not UTF-8") from error
        else:
            fields = self.json("json") if "json" in self.members else {}
            value = next((fields[name] for name in _CAPTIONS if name in fields), ())
        captions = _texts(value, "caption")
        if not captions:
            raise SampleError("no caption")
        return captions

    def synthetic(self) -> dict[str, tuple[str, ...]]:
        """Return the lists in `syn.json` whose names start with `syn_text`, by name; empty if it is missing.

        Raises:
            SampleError: it is damaged.
        """
        if "syn.json" not in self.members:
            return {}
        lists = self.json("syn.json").items()
        return {name: _texts(value, name) for name, value in lists if name.startswith("syn_text")}


@functools.lru_cache(64)
def class_names(tar: Path) -> tuple[str, ...]:
    """Return the names in `classnames.txt` in the folder of a tar or the one above; empty if there is none.

    Raises:
        DataError: it can't be read.
    """
    for folder in (tar.parent, tar.parent.parent):
        if (folder / CLASS_NAMES).is_file():
            return tuple(line.strip() for line in read_lines(folder / CLASS_NAMES))
    return ()


def _texts(value: Any, name: str) -> tuple[str, ...]:
    """Return one text or a list of texts as a tuple, without empty texts."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise SampleError(f"{name}: not a text or a list of texts")
    return tuple(text.strip() for text in map(whole_characters, texts) if text.strip())


def find_tars(path: PathLike) -> list[Path]:
    """List the tars of a source: a single file, all in a folder, or all that match a pattern such as `set/000*.tar`.

    Raises:
        DataError: none is found, or one is compressed, which rules out reading single samples.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith((".tar", *_COMPRESSED)))
    else:
        found = [path] if path.is_file() else sorted(path.parent.glob(path.name))
    if compressed := [tar for tar in found if tar.name.endswith(_COMPRESSED)]:
        raise DataError(f"{compressed[0]}: a compressed tar; decompress it to .tar, its pictures stay compressed")
    if not found:
        raise DataError(f"{path}: no .tar found")
    return found


def read_index(tar: PathLike) -> tuple[list[TarSample], list[Omission]]:
    """Find the samples of a tar, in order, by reading its headers only.

    As in webdataset, consecutive members whose names are equal up to the first dot are one sample. Truncated members
    are left out of their sample. From a tar that ends early or is damaged, the samples before the damage are returned.
    Everything that is missing is in the second list.

    Raises:
        DataError: the tar can't be opened.
    """
    tar = Path(tar)
    samples: list[TarSample] = []
    omissions: list[Omission] = []
    key, members = "", dict[str, Span]()
    try:
        with tar.open("rb") as stream:
            for name, span in _members(stream, tar.name, omissions):
                folder, slash, file = name.rpartition("/")
                stem, dot, suffix = file.partition(".")
                if not stem or not dot or suffix.startswith("__"):  # webdataset's own names
                    continue
                if not samples or folder + slash + stem != key:
                    key, members = folder + slash + stem, {}
                    samples.append(TarSample(tar, key, members))
                if suffix.lower() in members:
                    omissions.append(Omission(name, "a second member of this name"))
                else:
                    members[suffix.lower()] = span
    except OSError as error:
        raise unreadable(tar, error) from error
    return samples, omissions


def _members(stream: BinaryIO, tar: str, omissions: list[Omission]) -> Iterator[tuple[str, Span]]:
    """Yield each regular member's name and position; appends truncated and damaged ones to `omissions`."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    last = "its beginning"
    try:
        # Surrogates keep the bytes of undecodable names, so different names stay different.
        archive = tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        for member in archive:
            last = member.name
            if not member.isreg():
                continue
            if member.offset_data + member.size > end:
                omissions.append(Omission(member.name, "truncated"))
                continue
            yield member.name, (member.offset_data, member.size)
        stream.seek(archive.offset)
        closing = stream.read(tarfile.BLOCKSIZE)
        if closing.strip(b"\0") or not closing:
            # tarfile mistakes a damaged header for the end.
            omissions.append(Omission(tar, f"{'damaged' if closing else 'no end'} after {last}"))
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        omissions.append(Omission(tar, f"damaged after {last} ({one_line(error)})"))


def _read(path: Path, span: Span) -> bytes:
    """Read part of a file.

    Raises:
        OSError: the file is missing or too short.
    """
    offset, length = span
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(length)
    if len(data) < length:
        raise OSError("truncated")
    return data


@dataclass(frozen=True)
class DataCompDRSample:
    """A sample of DataCompDR: stored views, texts, and the concatenated embeddings of all teachers.

    Attributes:
        augmentations: entries of `paug.json`, see `distill.data.augment.from_datacompdr`.
        texts: captions, then synthetic captions.
        captions: number of captions in `texts`.
        image: (len(augmentations), d) float32.
        text: (len(texts), d) float32.
    """

    augmentations: tuple[Any, ...]
    texts: tuple[str, ...]
    captions: int
    image: Floats
    text: Floats


def read_datacompdr(sample: TarSample) -> DataCompDRSample:
    """Read a sample of DataCompDR or DFNDR (github.com/apple/ml-mobileclip, training/open_clip_v2.patch).

    Raises:
        SampleError: something is missing, or numbers of views, texts and embeddings differ.
    """
    augmentations = sample.json("paug.json").get("param_aug")
    try:
        # Stored as a list, or as a JSON string of a list.
        augmentations = json.loads(augmentations) if isinstance(augmentations, str) else augmentations
    except (ValueError, RecursionError) as error:
        raise SampleError("paug.json: not JSON") from error
    if not isinstance(augmentations, list) or not augmentations:
        raise SampleError("paug.json: no param_aug")
    captions, synthetic = sample.captions(), sample.synthetic()
    texts = captions + tuple(text for texts in synthetic.values() for text in texts)
    arrays = _arrays(sample)
    image, text = arrays.get("image_emb"), arrays.get("text_emb")
    if image is None or text is None:
        raise SampleError("no image_emb and text_emb")
    if len(text) == len(captions):  # DFNDR stores the embeddings of synthetic captions separately
        text = np.concatenate([text, *(arrays[name] for key in synthetic if (name := f"{key}_emb") in arrays)])
    if len(image) != len(augmentations) or len(text) != len(texts) or image.shape[1] != text.shape[1]:
        raise SampleError(
            f"{len(augmentations)} augmentations and {len(texts)} texts, but embeddings {image.shape} and {text.shape}"
        )
    return DataCompDRSample(tuple(augmentations), texts, len(captions), image, text)


def _arrays(sample: TarSample) -> dict[str, Floats]:
    """Read a sample's embeddings from `npz` or `pth.gz`, without unpickling."""
    import torch

    try:
        if "npz" in sample.members:
            with np.load(io.BytesIO(sample.read("npz")), allow_pickle=False) as stored:
                if sum(info.file_size for info in stored.zip.infolist()) > _LARGEST_ARRAY:
                    raise SampleError("npz: too large")
                return {name: _matrix(stored[name]) for name in stored.files}
        with gzip.GzipFile(fileobj=io.BytesIO(sample.read("pth.gz"))) as stream:
            data = stream.read(_LARGEST_ARRAY + 1)
        if len(data) > _LARGEST_ARRAY:
            raise SampleError("pth.gz: too large")
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return {name: _matrix(torch.as_tensor(value).float().numpy()) for name, value in tensors.items()}
    except SampleError:
        raise
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise SampleError(f"embeddings: not plain arrays ({one_line(error, 120)})") from error
    except Exception as error:  # zipfile and torch's reader raise anything on hostile bytes
        raise SampleError(f"embeddings: refused ({type(error).__name__}); only plain tensors are read") from error


def _matrix(array: NDArray[Any]) -> Floats:
    if array.ndim != 2 or array.dtype.kind != "f":
        raise SampleError(f"embeddings: {array.dtype} {array.shape}, not rows of floating-point numbers")
    return array.astype(np.float32)

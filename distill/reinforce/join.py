"""Join DataCompDR's tars with the pictures that they describe, so that recipes can train on them.

    python -m distill.reinforce.join DataCompDR-12M pictures data/datacompdr

A sample of DataCompDR has stored views, synthetic captions and teacher embeddings, but no picture and no caption. These
are in the tars of img2dataset, whose samples have the same `uid` in their `json` or as their name.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from distill.data.tars import PICTURES, SampleError, TarSample, find_tars, read_index
from distill.reinforce.shards import SCHEMA, SIDECAR, Sidecar, TeacherEntry
from mobileclip.errors import PocketclipError, one_line
from mobileclip.files import PathLike, atomic_write

TEACHERS = (
    TeacherEntry("ViT-L-14 openai", 768, 100.0),
    TeacherEntry("ViT-L-14 datacomp_xl_s13b_b90k", 768, 100.0),
)
"""DataCompDR's. They have the same width and logit scale, so their order makes no difference."""
_LEFT_OUT = ("url.txt", "txt", *PICTURES)
"""Members of DataCompDR's samples that are not copied: the address, and what the pictures' tars have."""


class JoinedTar(NamedTuple):
    """A tar that was written.

    Attributes:
        path: its file.
        joined: number of samples with a picture.
        samples: number of samples in DataCompDR's tar.
    """

    path: Path
    joined: int
    samples: int


def join_tars(reinforced: PathLike, pictures: PathLike, out: PathLike) -> Iterator[JoinedTar]:
    """Write a tar for each of DataCompDR's, with the samples whose picture is there; yields after each.

    Tars that exist are skipped. A tar is written as a whole or not at all. `reinforcement.json` is written last, if it
    is missing, for DataCompDR's teachers.

    Args:
        reinforced: DataCompDR's tars: one, a folder, or a pattern.
        pictures: img2dataset's tars with the pictures at their original size.
        out: folder to write; created if missing.

    Raises:
        PocketclipError: no tars are found, one can't be opened, or none of the samples has a picture.
    """
    out, index = Path(out), _Pictures(find_tars(pictures))
    out.mkdir(parents=True, exist_ok=True)
    for tar in find_tars(reinforced):
        if not (out / tar.name).exists():
            yield _join(tar, index, out / tar.name)
    if not (out / SIDECAR).exists():
        Sidecar(SCHEMA, "datacompdr", TEACHERS).save(out)


class _Pictures:
    """Finds pictures by uid: in the tar of the same name if they are there, as in DataComp-12M, or in all tars."""

    def __init__(self, tars: Sequence[Path]) -> None:
        self.tars = {tar.name: tar for tar in tars}

    def of(self, tar: Path, uids: Sequence[str]) -> dict[str, TarSample]:
        """Return uid → sample with a picture, for a tar of DataCompDR with these uids."""
        if tar.name in self.tars:
            near = _by_uid(self.tars[tar.name])
            if not near.keys().isdisjoint(uids):
                return near
        return self._all

    @cached_property
    def _all(self) -> dict[str, TarSample]:
        return {uid: sample for tar in self.tars.values() for uid, sample in _by_uid(tar).items()}


def _by_uid(tar: Path) -> dict[str, TarSample]:
    return {_uid(sample): sample for sample in read_index(tar)[0] if not sample.lacks}


def _uid(sample: TarSample) -> str:
    """Return the `uid` in a sample's `json`, or its name."""
    try:
        uid = sample.json("json").get("uid")
    except SampleError:
        uid = None
    return uid if isinstance(uid, str) and uid else sample.key.rpartition("/")[2]


def _join(tar: Path, pictures: _Pictures, out: Path) -> JoinedTar:
    samples = {_uid(sample): sample for sample in read_index(tar)[0]}
    found = pictures.of(tar, tuple(samples))
    joined = 0
    with atomic_write(out) as part, tarfile.open(part, "w") as archive:
        for uid, sample in samples.items():
            try:
                members = _members(sample, found[uid]) if uid in found else {}
            except SampleError:  # a damaged member; the sample is counted as not joined
                continue
            for suffix, data in members.items():
                header = tarfile.TarInfo(f"{uid}.{suffix}")
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
            joined += bool(members)
        if not joined:
            raise PocketclipError(f"{tar}: none of its {len(samples):,} samples has its picture in the other tars")
    return JoinedTar(out, joined, len(samples))


def _members(sample: TarSample, picture: TarSample) -> dict[str, bytes]:
    """Return the members of a joined sample, by suffix: picture, caption, and what DataCompDR stores.

    Raises:
        SampleError: one of them can't be read.
    """
    suffix = next(suffix for suffix in PICTURES if suffix in picture.members)
    own = {name: sample.read(name) for name in sample.members if name not in _LEFT_OUT}
    return {suffix: picture.read(suffix), "txt": picture.captions()[0].encode(), **own}


def main(
    reinforced: Annotated[Path, typer.Argument(help="DataCompDR's tars: one, or a folder.", show_default=False)],
    pictures: Annotated[Path, typer.Argument(help="The tars with the pictures.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the joined tars.", show_default=False)],
) -> None:
    """Join DataCompDR's tars with the pictures that they describe; run again, it continues."""
    try:
        for tar in join_tars(reinforced, pictures, out):
            print(f"{tar.path}: {tar.joined:,} of {tar.samples:,} samples have a picture")
    except (PocketclipError, OSError) as error:
        typer.echo(f"join: {one_line(error)}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)

"""Readers of all sources: photos with captions or labels, as files or in tars, and texts without photos."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.data.layouts import coco_rows, folder_rows
from distill.data.tables import DataError, parse_list, read_lines, read_table, whole_characters
from distill.data.tars import Omission, PhotoRef, SampleError, TarSample, read_index
from distill.data.wordnet import nouns, plurals
from mobileclip.files import PathLike

if TYPE_CHECKING:  # at run time it needs torch, and a bundle is evaluated without
    from distill.config import PhotoSource, TextSource


@dataclass(frozen=True)
class CaptionedPhoto:
    """A photo with its texts.

    Attributes:
        key: its unique name, which determines its augmentations in `pocketclip reinforce`.
        group: what it shows; photos of the same group aren't each other's negatives.
        photo: where to read it; a listed file need not exist.
        captions: texts that are true of it, at least one.
        synthetic: captions that a model wrote.
    """

    key: str
    group: str
    photo: PhotoRef
    captions: tuple[str, ...]
    synthetic: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All of its texts, captions first."""
        return self.captions + self.synthetic


@dataclass(frozen=True)
class Listing:
    """What a source of photos holds.

    Attributes:
        photos: the photos with their texts.
        skipped: reason → number of rows or samples without a photo or a text.
    """

    photos: tuple[CaptionedPhoto, ...]
    skipped: Mapping[str, int]


_RUNNING = re.compile(r"^(damaged|no end) after .*")  # names of members differ, reasons are counted


def is_photo_file(path: Path) -> bool:
    """Return whether a listed photo exists. Names that no file system can hold don't."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name of 5,000 letters
        return False


def all_missing(source: PhotoSource, data: PathLike, count: int) -> DataError:
    """Return the error for a source of `count` photos, none of which exists."""
    path = Path(data) / source.file
    return DataError(
        f"{path}: none of its {count:,} photos exists; they were looked for in {photo_folder(source, data)}; "
        "is the data folder right?"
    )


def read_splits(path: PathLike) -> dict[str, str]:
    """Map each file of a `file,split` table to its split.

    Raises:
        DataError: see `read_table`; or a column is missing.
    """
    return {row["file"]: row["split"] for row in read_table(path, needs=("file", "split"))}


def readable_name(label: str, names: dict[str, str] | None = None) -> str:
    """Return a class name as a phrase: "ice hockey" for `Ice_Hockey`, or what `names` has for it.

    Composed and decomposed letters, as file systems have them in names of folders, are the same name.
    """
    phrase = (names or {}).get(label) or label.replace("_", " ").replace("-", " ").lower()
    return unicodedata.normalize("NFC", " ".join(phrase.split()))


def photo_folder(source: PhotoSource, data: PathLike) -> Path:
    """Return the folder that the paths of a source's photos are relative to."""
    path = Path(data) / source.file
    return path if source.kind == "folders" else path.parent / source.folder


def _rows(source: PhotoSource, path: Path) -> tuple[Iterable[dict[str, str]], str, str]:
    """Return the rows of a source, and the columns of the photo and of the text."""
    if source.kind == "folders":
        return folder_rows(path), "file", "label"
    if source.kind == "coco":
        return coco_rows(path), "file", "caption"
    text = source.caption_column if source.kind == "captions" else source.column
    return read_table(path, needs=(source.file_column, text)), source.file_column, text


def list_photos(source: PhotoSource, data: PathLike) -> Listing:
    """Read the photos and texts of a source, and count what has nothing to learn from.

    A caption or label can be a JSON list of several. A captions file may have a column `synthetic` next to `caption`,
    with one caption that a model wrote or a JSON list of them. Of tars, the captions are read but not the pictures.

    Raises:
        DataError: a file is missing or malformed, lacks a column, or has no sample of the wanted splits; or the source
            is reinforced, so its photos have embeddings instead of being listed.
    """
    if source.kind == "reinforced":
        raise DataError(f"photos.{source.name}: is reinforced already; name the photos that it was made from")
    if source.kind == "webdataset":
        from distill.data.remote import source_tars  # needs packages that evaluating a bundle does without

        return list_tars(source, source_tars(source.file, data), data)
    return _list_files(source, data)


def list_tars(source: PhotoSource, tars: Sequence[Path], data: PathLike) -> Listing:
    """Read the texts of tars, and count what can't be used.

    Raises:
        DataError: no sample has a picture and a text, or classes have no names.
    """
    photos: list[CaptionedPhoto] = []
    reasons: Counter[str] = Counter()
    for tar in tars:
        found, omissions = read_tar(tar, source, data)
        photos += found
        reasons.update(_RUNNING.sub(r"\1", reason) for _, reason in omissions)
    if not photos:
        notes = ", ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common(5))
        raise DataError(f"{tars[0].parent}: no sample in {len(tars):,} tars has a picture and a text: {notes}")
    return Listing(tuple(photos), dict(reasons.most_common()))


def read_tar(tar: PathLike, source: PhotoSource, data: PathLike) -> tuple[list[CaptionedPhoto], list[Omission]]:
    """Return the photos of a tar that have a text, and everything else with its reason.

    Raises:
        DataError: the tar can't be opened, or its classes have no names.
    """
    samples, omissions = read_index(tar)
    photos = []
    for sample in samples:
        if sample.lacks:
            omissions.append(Omission(sample.key, sample.lacks))
            continue
        try:
            photos.append(captioned(sample, source, data))
        except SampleError as error:
            omissions.append(Omission(sample.key, str(error)))
    return photos, omissions


def captioned(sample: TarSample, source: PhotoSource, data: PathLike) -> CaptionedPhoto:
    """Return a sample of a tar with its captions, or with texts made of its label by the source's templates.

    Its key has the tar's path in the data folder, so that it is unique wherever that folder is.

    Raises:
        SampleError: it has no picture, no caption and no label, or they are damaged.
        DataError: its class has no name.
    """
    key = f"{source.name}/{_relative(sample.tar.with_suffix(''), Path(data))}/{sample.key}"
    if (label := sample.label()) is not None:
        phrase = readable_name(label, dict(source.names))
        return CaptionedPhoto(key, phrase, sample.photo, tuple(text.format(phrase) for text in source.templates))
    synthetic = tuple(text for texts in sample.synthetic().values() for text in texts)
    return CaptionedPhoto(key, key, sample.photo, sample.captions(), synthetic)


def _list_files(source: PhotoSource, data: PathLike) -> Listing:
    path = Path(data) / source.file
    splits = read_splits(Path(data) / source.splits) if source.splits else {}
    texts: dict[str, list[str]] = {}
    synthetic: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    skipped: Counter[str] = Counter()
    wanted = 0
    rows, file_column, text_column = _rows(source, path)
    folder = photo_folder(source, data)
    for row in rows:
        file = row[file_column]
        if source.use and splits.get(file, row.get("split", "")) not in source.use:
            continue
        wanted += 1
        if not file.strip():
            skipped["rows without a file name"] += 1
        elif source.kind in ("captions", "coco"):
            captions = parse_list(row[text_column])
            written = parse_list(row.get("synthetic", ""))
            if not captions:
                skipped["rows without a caption"] += 1
                continue
            texts.setdefault(file, []).extend(captions)
            synthetic.setdefault(file, []).extend(written)
        else:
            parts = [part for cell in parse_list(row[text_column]) for part in cell.split("|") if part.strip()]
            phrases = dict.fromkeys(readable_name(part, dict(source.names)) for part in parts)
            if not phrases:
                skipped["rows without a label"] += 1
                continue
            labels[file] = list(dict.fromkeys([*labels.get(file, ()), *phrases]))
            texts[file] = [template.format(" and ".join(labels[file])) for template in source.templates]
    if not texts:
        if wanted or (source.kind in ("folders", "coco") and not source.use):
            raise DataError(f"{path}: none of its {wanted:,} rows has a file and a {text_column}")
        raise DataError(f"{path}: no sample in the splits {', '.join(source.use) or '(all)'}")
    # Photos with the same labels show the same in every source; a caption describes only its own photo.
    photos = tuple(
        CaptionedPhoto(
            f"{source.name}/{_relative(folder / file, folder)}",
            " and ".join(sorted(labels[file])) if file in labels else f"{source.name}/{file}",
            PhotoRef(folder / file),
            tuple(dict.fromkeys(captions)),
            tuple(dict.fromkeys(synthetic.get(file, ()))),
        )
        for file, captions in texts.items()
    )
    return Listing(photos, dict(skipped))


def _relative(path: Path, folder: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def read_texts(source: TextSource, data: PathLike) -> list[str]:
    """Read texts without photos, in the order of the file and without duplicates.

    Raises:
        DataError: the file or the column is missing.
    """
    path = Path(data) / source.file
    if source.kind == "wordnet":
        texts = nouns(path)
    elif source.kind == "csv":
        texts = [row[source.column] for row in read_table(path, needs=(source.column,))]
    else:
        texts = read_lines(path)
    unique = list(dict.fromkeys(text.strip() for text in map(whole_characters, texts) if text.strip()))
    kept = unique[: source.limit] if source.limit else unique
    if source.plural:
        kept = list(dict.fromkeys(plurals(kept)))
    return [template.format(text) for template in source.templates for text in kept]

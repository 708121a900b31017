"""The names of a classifier's classes, as texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distill.data.tables import DataError, read_table
from mobileclip.files import PathLike

OPEN_CLIP = "open_clip"
"""open_clip's names of ImageNet's 1,000 classes, which are less ambiguous than ImageNet's own ("drake", "crane")."""


def class_prompts(source: str, data: PathLike, texts: Mapping[str, str] | None = None) -> list[str]:
    """Return `a photo of a <class>` for each class, in the classifier's order.

    Args:
        source: `OPEN_CLIP`, or a CSV below the data folder with columns `file,label`.
        data: the data folder.
        texts: what to call a class if its name is misleading.

    Raises:
        DataError: the CSV can't be read, or has no rows.
    """
    texts = texts or {}
    return [f"a photo of a {texts.get(name, name)}" for name in _class_names(source, Path(data))]


def _class_names(source: str, data: Path) -> list[str]:
    if source == OPEN_CLIP:
        from open_clip import IMAGENET_CLASSNAMES

        return list(IMAGENET_CLASSNAMES)
    # Sorted by file, because the files are named by ImageNet's class ids.
    rows = sorted(read_table(data / source, needs=("file", "label")), key=lambda row: row["file"])
    if not rows:
        raise DataError(f"{data / source}: no class names")
    return [row["label"].split(",")[0] for row in rows]

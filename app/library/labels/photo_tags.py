"""The labels of one photo, and a person's corrections of them, which win over any model permanently.

Every decision moves the threshold of its label (`app.library.labels.rules.refit`), and all of them can be exported as
training data (`app.library.labels.training_pairs`).
"""

from dataclasses import dataclass

from app.library.errors import LibraryError
from app.library.store import contents, corrections, photos, tags
from app.library.store.connection import Store
from app.library.store.tags import Source


@dataclass(frozen=True, slots=True)
class PhotoTag:
    """A label on a photo, or a label that a person rejected on it.

    Attributes:
        label: its name.
        score: a calibrated probability; 1 for a person's own tag, 0 for a rejected one.
        source: who gave it.
        verdict: True for accepted, False for rejected, None if nobody has decided.
    """

    label: str
    score: float
    source: Source
    verdict: bool | None


def correct(store: Store, photo_id: int, label: str, verdict: bool | None) -> None:
    """Decide on a label of a photo, or undo the decision with None.

    `app.library.labels.tagging.refresh` then moves the label's threshold, and brings the model's own tag back after an
    undo.

    Raises:
        LibraryError: the photo is not in the index any more, or the label has no name.
    """
    label = " ".join(label.split())
    if not label:
        raise LibraryError("a label needs a name")
    with store.transaction():
        content = photos.content_of(store, photo_id)
        if content is None:
            raise LibraryError("this photo is not in the index any more")
        content_id, content_hash = content
        if verdict is None:
            corrections.remove_correction(store, content_hash, label)
            contents.set_tagged_by(store, [content_id], None)
        else:
            corrections.put_correction(store, content_hash, label, verdict)
        if verdict is True:
            tags.put_own_tag(store, content_id, label)
        else:
            tags.remove_tag(store, label, [content_id])


def tags_of(store: Store, photo_id: int) -> list[PhotoTag]:
    """A photo's labels: the person's, then the model's, best first, then those that were rejected."""
    found = [
        PhotoTag(tag.label, tag.score, tag.source, verdict) for tag, verdict in tags.tags_of_photo(store, photo_id)
    ]
    return found + [PhotoTag(label, 0.0, "you", False) for label in corrections.rejected_labels(store, photo_id)]

"""Albums: all photos with one label."""

from dataclasses import dataclass

from app.library.store.connection import Store
from app.library.store.custom_labels import list_custom_labels
from app.library.store.photos import Photo, cover
from app.library.store.tags import count_photos_by_label


@dataclass(frozen=True)
class Album:
    """All photos with one label.

    Attributes:
        label: its name.
        count: how many photos, copies included.
        cover: the newest of the photos that a person gave the label to, or else of those that it fits best.
        own: whether the label is a custom label.
    """

    label: str
    count: int
    cover: Photo
    own: bool


def albums(store: Store) -> list[Album]:
    """The albums that hold photos, the fullest first."""
    own = {label.name for label in list_custom_labels(store)}
    found = []
    for label, count in count_photos_by_label(store).items():
        photo = cover(store, label) if count > 0 else None
        if photo is not None:
            found.append(Album(label, count, photo, label in own))
    return sorted(found, key=lambda album: (-album.count, album.label))

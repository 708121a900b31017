"""A library of photos with its model, as one object for a screen: what needs several modules at once.

What needs only the index is a function of a module, called with `Gallery.store`: the folders
(`app.library.index.folders`), past searches (`app.library.store.searches`), and so on.

Synchronous: a `Gallery` belongs to the thread that made it. Methods that say so are quick enough for a main thread (a
few milliseconds at 50,000 photos); the others, and all that need the model, belong in a worker that has another
`Gallery` on the same index. Readers never wait for the thread that indexes.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from app.library import storage
from app.library.errors import LibraryError
from app.library.files.exif import Details, read_details
from app.library.labels import albums, photo_tags, review, rules
from app.library.labels.albums import Album
from app.library.labels.photo_tags import PhotoTag
from app.library.labels.review import Doubt
from app.library.labels.tagging import decide_photo, refresh
from app.library.labels.where import Where
from app.library.labels.where import where as find_where
from app.library.pictures.thumbnails import Thumbnails
from app.library.search import rank, suggestions, timeline
from app.library.search.query import Query, Term
from app.library.search.rank import Results
from app.library.search.suggestions import Suggestion
from app.library.search.timeline import Timeline
from app.library.store import photos, tags
from app.library.store.connection import Ids, Store
from app.library.store.custom_labels import CustomLabel, list_custom_labels
from app.library.store.failures import count_failures
from app.library.store.filter import EVERYTHING, Filter
from app.library.store.matrix import Matrix, load_matrix
from app.library.store.photos import Photo
from app.library.store.searches import past_searches
from mobileclip.errors import BundleError, EngineError
from mobileclip.files import PathLike

if TYPE_CHECKING:
    from mobileclip.model import Model

__all__ = [
    "Album",
    "Counts",
    "Details",
    "Doubt",
    "Filter",
    "Gallery",
    "ModelAbout",
    "Photo",
    "PhotoTag",
    "Preview",
    "Query",
    "Results",
    "Suggestion",
    "Term",
    "Timeline",
    "Where",
]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many photos, different contents among them, tags and failures there are."""

    photos: int
    contents: int
    tags: int
    failures: int


@dataclass(frozen=True)
class Preview:
    """What a custom label would match: ids of the best photos, int64 (n,), best first; `count` of all matches."""

    ids: Ids
    count: int


@dataclass(frozen=True)
class ModelAbout:
    """The model in use; `can_localize` says whether it knows where in a photo something is."""

    name: str
    engine: str
    license: str
    dim: int
    labels: int
    can_localize: bool
    fingerprint: str


class Gallery:
    """One open library, for one thread."""

    def __init__(self, index: PathLike, thumbnails: Thumbnails, load_model: "Callable[[], Model]") -> None:
        """Open the index, or create it.

        Args:
            index: the SQLite file.
            thumbnails: the cache of small pictures.
            load_model: called when a model is first needed; all galleries of one process should share what it returns.

        Raises:
            LibraryError: the index is damaged, made by a newer version, or cannot be written.
        """
        self.store = Store(index, create=True)
        self.thumbnails = thumbnails
        self._load_model = load_model
        self._model: Model | None = None
        self._matrix: tuple[str, Matrix] | None = None
        self._labels: list[str] | None = None
        self._corrected = False  # whether thresholds have to follow new corrections

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the index; the object can't be used any more."""
        self.store.close()

    @property
    def model(self) -> "Model":
        """The model, loaded when first asked for.

        Raises:
            BundleError, EngineError: it is missing, or does not work here.
        """
        if self._model is None:
            self._model = self._load_model()
        return self._model

    def matrix(self) -> Matrix:
        """All vectors of the model, read again only after the index has changed."""
        stamp = self.store.stamp()
        if self._matrix is None or self._matrix[0] != stamp:
            self._matrix = stamp, load_matrix(self.store, self.model.fingerprint)
        return self._matrix[1]

    # What there is

    def counts(self) -> Counts:
        """How much there is. Quick."""
        store = self.store
        return Counts(
            photos.count_photos(store),
            photos.count_held_contents(store),
            tags.count_tags(store),
            count_failures(store),
        )

    def timeline(self, only: Filter = EVERYTHING) -> Timeline:
        """All photos that pass a filter, newest first, with their days."""
        if only.labels:
            self._learn()
        return timeline.timeline(self.store, only)

    def photos(self, ids: Sequence[int] | Ids) -> list[Photo]:
        """The photos with these ids, in the same order, without those that are gone. Quick for a screenful."""
        return photos.list_photos(self.store, ids)

    # Search

    def search(self, query: Query, top: int = 300) -> Results:
        """Find photos; see `app.library.search.rank.search`. Needs the model unless the query only filters."""
        if query.terms or query.without or query.filter.labels:
            self._learn()
        return rank.search(self.store, query, self._vectors, top)

    def similar(self, photo_id: int, top: int = 60) -> Results:
        """The photos that look most like one. Needs the bundle, runs no tower."""
        return rank.search(self.store, Query((Term(photo_id=photo_id),)), self._vectors, top)

    def suggest(self, text: str, limit: int = 8) -> list[Suggestion]:
        """What the person may be typing. Quick; knows the model's labels once `labels` has been called."""
        names = self._labels if self._labels is not None else tags.given_labels(self.store)
        return suggestions.suggest(names, past_searches(self.store, 200), text, limit)

    # Labels

    def labels(self) -> list[str]:
        """Every label, sorted: the model's, the custom labels, and those that a person added to single photos."""
        custom = [label.name for label in list_custom_labels(self.store)]
        self._labels = sorted({*(label.name for label in self.model.labels), *custom, *tags.given_labels(self.store)})
        return self._labels

    def albums(self) -> list[Album]:
        """One album for each label that any photo has, the fullest first."""
        self._learn()
        return albums.albums(self.store)

    def refresh_tags(self) -> int:
        """Bring all tags up to date; see `app.library.labels.tagging.refresh`."""
        decided = refresh(self.store, self.model, matrix=self.matrix())
        self._corrected = False
        return decided

    def preview(self, phrases: Sequence[str], sensitivity: float = 0.5, top: int = 60) -> Preview:
        """What a custom label with these phrases would match."""
        phrases = tuple(phrase for phrase in phrases if phrase.strip())
        matrix = self.matrix()
        if not phrases or len(matrix.ids) == 0:
            return Preview(np.empty(0, np.int64), 0)
        fit = rules.fit(self.model, matrix, CustomLabel("preview", phrases, sensitivity))
        scores = matrix.rows @ fit.vector
        order = np.argsort(-scores, kind="stable")[: int((scores >= fit.threshold).sum())]
        held = photos.photos_with(self.store, matrix.ids[order].tolist())
        ids = [photo for content in matrix.ids[order].tolist() for photo in held.get(content, ())]
        return Preview(np.array(ids[:top], np.int64), len(ids))

    def save_label(self, name: str, phrases: Sequence[str], sensitivity: float = 0.5) -> int:
        """Add or change a custom label and give it to photos; returns how many photos have it.

        Raises:
            LibraryError: it has no name or no phrase, or the model has a label of this name.
        """
        phrases = tuple(phrase.strip() for phrase in phrases if phrase.strip())
        name = " ".join(name.split())
        rules.save_custom_label(self.store, self.model, CustomLabel(name, phrases, sensitivity))
        self._labels = None
        self.refresh_tags()
        return len(self.timeline(Filter(labels=(name,))).ids)

    def delete_label(self, name: str) -> None:
        """Delete a custom label, its tags and all decisions on it. Quick."""
        rules.delete_custom_label(self.store, name)
        self._labels = None

    # One photo

    def tags(self, photo_id: int) -> list[PhotoTag]:
        """A photo's labels, and those that were rejected. Quick."""
        return photo_tags.tags_of(self.store, photo_id)

    def correct(self, photo_id: int, label: str, verdict: bool | None) -> list[PhotoTag]:
        """Accept a label on a photo or add one (True), reject it (False) or undo that (None); returns its labels then.

        Takes a few milliseconds, and needs the model only for an undo. Other photos follow with the next question about
        labels (albums, a filter, a search, the review), or with `refresh_tags` when the person pauses. If no model
        loads, an undone label is decided when one does.
        """
        photo_tags.correct(self.store, photo_id, label, verdict)
        self._corrected = True
        if self._labels is not None and label not in self._labels:
            self._labels = None
        if verdict is None:
            with suppress(BundleError, EngineError):
                decide_photo(self.store, self.model, photo_id)
        return self.tags(photo_id)

    def details(self, photo_id: int) -> Details:
        """What the photo's file says about it.

        Raises:
            PhotoError: the file is gone or may not be read.
            LibraryError: the photo is not in the index any more.
        """
        photo = self._photo(photo_id)
        return read_details(photo.path, photo.size, photo.mtime_ns)

    def where(self, photo_id: int, text: str) -> Where:
        """Where in a photo a label or any other text is.

        Raises:
            LocalizeError: the model cannot localize.
            PhotoError: the file is gone or cannot be read.
        """
        return find_where(self.store, self.model, self.matrix(), self._photo(photo_id), text)

    # Review

    def review(self, limit: int = 50) -> list[Doubt]:
        """The labels that the model is least sure of and nobody has decided on, the least sure first."""
        self._learn()
        matrix = self.matrix()
        return review.doubts(self.store, rules.rules_of(self.store, self.model, matrix), matrix, limit)

    # Housekeeping

    def forget_everything(self, *, keep_decisions: bool) -> None:
        """Empty the index and remove all that was made from it; photos are not touched.

        Args:
            keep_decisions: keep corrections, custom labels and excluded patterns; they hold no pictures.

        Raises:
            IndexBusyError: an indexing run is under way; stop it first.
        """
        self._matrix = None
        storage.forget_everything(self.store, self.thumbnails, keep_decisions=keep_decisions)

    def model_about(self) -> ModelAbout:
        """The model in use. Needs the bundle, runs no tower."""
        from mobileclip.localize import can_localize

        model = self.model
        return ModelAbout(
            name=model.name,
            engine=model.engine,
            license=model.manifest.license,
            dim=model.dim,
            labels=len(model.labels),
            can_localize=can_localize(model),
            fingerprint=model.fingerprint,
        )

    def _vectors(self) -> "tuple[Model, Matrix]":
        return self.model, self.matrix()

    def _learn(self) -> None:
        """Let thresholds follow the latest corrections; if no model loads, they follow when one does."""
        if self._corrected:
            with suppress(BundleError, EngineError):
                self.refresh_tags()

    def _photo(self, photo_id: int) -> Photo:
        found = self.photos([photo_id])
        if not found:
            raise LibraryError("this photo is not in the index any more")
        return found[0]

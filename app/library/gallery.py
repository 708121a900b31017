"""Everything that a screen asks of a library of photos, behind one object.

Synchronous: a `Gallery` belongs to the thread that made it. Methods that say so are quick enough for a main thread (a
few milliseconds at 50,000 photos); the others, and all that need the model, belong in a worker with a `Gallery` of its
own on the same index. Readers never wait for the thread that indexes.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from app.library import storage as upkeep
from app.library.errors import LibraryError, explain
from app.library.files.exif import Details, read_details
from app.library.index import excluded, roots
from app.library.labels import albums as album_queries
from app.library.labels import corrections, rules
from app.library.labels.albums import Album, Doubt, Suggestion
from app.library.labels.corrections import PhotoTag
from app.library.labels.rules import OwnLabel
from app.library.labels.tags import decide_photo, refresh
from app.library.labels.where import Where
from app.library.labels.where import where as find_where
from app.library.pictures.thumbnails import Thumbnails
from app.library.search import rank, timeline
from app.library.search.query import EVERYTHING, Filter, Query, Term
from app.library.search.rank import Results
from app.library.search.timeline import Folder, Photo, Timeline
from app.library.storage import Storage
from app.library.store.matrix import Matrix, load_matrix
from app.library.store.store import Failure, Ids, Root, Store
from mobileclip.errors import BundleError, EngineError

if TYPE_CHECKING:
    from mobileclip.model import Model

__all__ = [
    "Album",
    "Counts",
    "Details",
    "Doubt",
    "Failure",
    "Filter",
    "Folder",
    "Gallery",
    "ModelAbout",
    "OwnLabel",
    "Photo",
    "PhotoTag",
    "Preview",
    "Query",
    "Results",
    "Root",
    "Storage",
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
    """What would be in an own label: photo ids, int64 (n,), best first and cut short; `count` of all of them."""

    ids: Ids
    count: int


@dataclass(frozen=True)
class ModelAbout:
    """The model in use; `can_localize` says whether it knows where in a photo something is."""

    name: str
    engine: str
    licence: str
    dim: int
    labels: int
    can_localize: bool
    fingerprint: str


C = TypeVar("C", bound=type)


def _plain_errors(gallery: C) -> C:
    """Let every public method say an SQLite error in one plain line."""

    def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(self: "Gallery", *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except sqlite3.Error as error:
                raise explain(error, self.store.path) from error

        return call

    for name, member in list(vars(gallery).items()):
        if isinstance(member, FunctionType) and not name.startswith("_"):
            setattr(gallery, name, wrapped(member))
    return gallery


@_plain_errors
class Gallery:
    """One open library, for one thread."""

    def __init__(self, index: Path, thumbnails: Thumbnails, load_model: "Callable[[], Model]") -> None:
        """Open the index, or make it.

        Args:
            index: the SQLite file.
            thumbnails: the cache of small pictures.
            load_model: called when a model is first needed; let all galleries of one process share its answer.

        Raises:
            LibraryError: the index is damaged, made by a newer version, or cannot be written.
        """
        self.store = Store(index, create=True)
        self.thumbnails = thumbnails
        self._load_model = load_model
        self._model: Model | None = None
        self._matrix: tuple[str, Matrix] | None = None
        self._labels: list[str] | None = None
        self._corrected = False  # whether thresholds have yet to follow what a person decided

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the index; the object cannot be used any more."""
        self.store.sql.close()

    @property
    def model(self) -> "Model":
        """The model, loaded when first asked for.

        Raises:
            BundleError, EngineError: there is none, or it does not work here.
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
        return Counts(**self.store.counts())

    def stamp(self) -> str:
        """A text that changes whenever photos or their vectors have changed. Quick."""
        return self.store.stamp()

    def timeline(self, only: Filter = EVERYTHING) -> Timeline:
        """All photos that pass a filter, newest first, with their days."""
        if only.labels:
            self._learn()
        return timeline.timeline(self.store, only)

    def photos(self, ids: Sequence[int] | Ids) -> list[Photo]:
        """The photos with these ids, in the same order, without those that are gone. Quick for a screenful."""
        return timeline.photos(self.store, ids)

    def folders(self) -> list[Folder]:
        """Every folder that directly holds photos, by path."""
        return timeline.folders(self.store)

    def roots(self) -> list[Root]:
        """The indexed folders, by path. Quick."""
        return self.store.roots()

    def forget_root(self, path: str) -> int:
        """Let an indexed folder go with all of its photos; returns how many. Files are not touched."""
        return roots.forget_root(self.store, path)

    def excluded(self) -> list[str]:
        """The patterns of what is passed over. Quick."""
        return excluded.patterns(self.store)

    def exclude(self, pattern: str) -> int:
        """Pass over what matches a pattern, from now on and at once; returns how many photos that hides."""
        return roots.exclude(self.store, pattern)

    def include(self, pattern: str) -> None:
        """Take a pattern back; the next indexing brings its photos back."""
        roots.include(self.store, pattern)

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
        names = self._labels if self._labels is not None else self._given_labels()
        return album_queries.suggest(names, self.past_searches(200), text, limit)

    def remember_search(self, words: str) -> None:
        """Keep a search that a person finished, for suggestions. Quick."""
        album_queries.remember_search(self.store, words)

    def past_searches(self, limit: int = 20) -> list[str]:
        """Searches of the past, the latest first. Quick."""
        return album_queries.past_searches(self.store, limit)

    def forget_searches(self) -> None:
        """Forget all searches. Quick."""
        with self.store.transaction():
            self.store.sql.execute("DELETE FROM searches")

    # Labels

    def labels(self) -> list[str]:
        """Every label that can be given, sorted: the model's, the person's own, and those added to single photos."""
        own = [label.name for label in self.own_labels()]
        self._labels = sorted({*(label.name for label in self.model.labels), *own, *self._given_labels()})
        return self._labels

    def albums(self) -> list[Album]:
        """One album for each label that any photo has, the fullest first."""
        self._learn()
        return album_queries.albums(self.store)

    def refresh_tags(self) -> int:
        """Bring all tags up to the labels and corrections; returns how many contents were decided wholly anew."""
        decided = refresh(self.store, self.model, matrix=self.matrix())
        self._corrected = False
        return decided

    def own_labels(self) -> list[OwnLabel]:
        """The person's own labels, by name. Quick."""
        return rules.own_labels(self.store)

    def preview(self, phrases: Sequence[str], sensitivity: float = 0.5, top: int = 60) -> Preview:
        """What would be in an own label of these phrases."""
        phrases = tuple(phrase for phrase in phrases if phrase.strip())
        matrix = self.matrix()
        if not phrases or len(matrix.ids) == 0:
            return Preview(np.empty(0, np.int64), 0)
        rule, vector = rules.own_rule(self.model, matrix, OwnLabel("preview", phrases, sensitivity))
        scores = matrix.rows @ vector
        order = np.argsort(-scores, kind="stable")[: int((scores >= rule.threshold).sum())]
        held = timeline.photos_with(self.store, matrix.ids[order].tolist())
        ids = [photo for content in matrix.ids[order].tolist() for photo in held.get(content, ())]
        return Preview(np.array(ids[:top], np.int64), len(ids))

    def save_label(self, name: str, phrases: Sequence[str], sensitivity: float = 0.5) -> int:
        """Make or change an own label and give it to photos; returns how many photos have it.

        Raises:
            LibraryError: it has no name or no phrase, or the model has a label of this name.
        """
        phrases = tuple(phrase.strip() for phrase in phrases if phrase.strip())
        name = " ".join(name.split())
        rules.save_own_label(self.store, self.model, OwnLabel(name, phrases, sensitivity))
        self._labels = None
        self.refresh_tags()
        return len(self.timeline(Filter(labels=(name,))).ids)

    def delete_label(self, name: str) -> None:
        """Forget an own label, its tags and all decisions on it. Quick."""
        rules.delete_own_label(self.store, name)
        self._labels = None

    # One photo

    def tags(self, photo_id: int) -> list[PhotoTag]:
        """A photo's labels, and those that were rejected. Quick."""
        return corrections.tags_of(self.store, photo_id)

    def correct(self, photo_id: int, label: str, verdict: bool | None) -> list[PhotoTag]:
        """Decide on a label of a photo (True ✓, which also adds one, False ✗, None undoes); returns its labels then.

        A few milliseconds, and no model but for an undo. What it means for other photos is worked out by the next
        question about labels (albums, a filter, a search, the review), or by `refresh_tags` when the person pauses.
        Where no model loads, an undone label is decided when one does.
        """
        corrections.correct(self.store, photo_id, label, verdict)
        self._corrected = True
        if self._labels is not None and label not in self._labels:
            self._labels = None
        if verdict is None:
            with suppress(BundleError, EngineError):
                decide_photo(self.store, self.model, photo_id)
        return self.tags(photo_id)

    def details(self, photo_id: int) -> Details:
        """What the photo's own file tells.

        Raises:
            PhotoError: the file is gone or may not be read.
            LibraryError: the photo is not in the index any more.
        """
        photo = self._photo(photo_id)
        query = "SELECT size, mtime_ns FROM photos WHERE id = ?"
        size, mtime_ns = self.store.sql.execute(query, (photo_id,)).fetchone()
        return read_details(photo.path, size, mtime_ns)

    def can_localize(self) -> bool:
        """Whether the model can say where in a photo something is. Needs the bundle, runs no tower."""
        from mobileclip.localize import can_localize

        return can_localize(self.model)

    def where(self, photo_id: int, text: str) -> Where:
        """Where in a photo a label or any other text is.

        Raises:
            LocalizeError: the model cannot say.
            PhotoError: the file is gone or cannot be read.
        """
        return find_where(self.store, self.model, self.matrix(), self._photo(photo_id), text)

    # Review

    def review(self, limit: int = 50) -> list[Doubt]:
        """The labels that the model is least sure of and nobody has decided on, the least sure first."""
        self._learn()
        matrix = self.matrix()
        return album_queries.doubts(self.store, rules.rules_of(self.store, self.model, matrix), matrix, limit)

    # House-keeping

    def failures(self) -> list[Failure]:
        """Photos that could not be read, with the reason, by path. Quick."""
        return self.store.failures()

    def storage(self) -> Storage:
        """Bytes on disk."""
        return upkeep.storage(self.store, self.thumbnails)

    def forget_everything(self, *, keep_decisions: bool) -> None:
        """Empty the index and remove all that was made from it; the photos stay as they are.

        Args:
            keep_decisions: keep the corrections, own labels and excluded patterns; they hold no pictures.

        Raises:
            IndexBusyError: an indexing run is under way; stop it first.
        """
        self._matrix = None
        upkeep.forget_everything(self.store, self.thumbnails, keep_decisions=keep_decisions)

    def model_about(self) -> ModelAbout:
        """Name, licence and abilities of the model in use. Needs the bundle, runs no tower."""
        model = self.model
        return ModelAbout(
            name=model.name,
            engine=model.engine,
            licence=model.manifest.license,
            dim=model.dim,
            labels=len(model.labels),
            can_localize=self.can_localize(),
            fingerprint=model.fingerprint,
        )

    def _vectors(self) -> "tuple[Model, Matrix]":
        return self.model, self.matrix()

    def _learn(self) -> None:
        """Let thresholds follow the latest corrections; where no model loads, they follow when one does."""
        if self._corrected:
            with suppress(BundleError, EngineError):
                self.refresh_tags()

    def _photo(self, photo_id: int) -> Photo:
        found = self.photos([photo_id])
        if not found:
            raise LibraryError("this photo is not in the index any more")
        return found[0]

    def _given_labels(self) -> list[str]:
        return [row[0] for row in self.store.sql.execute("SELECT DISTINCT label FROM tags")]

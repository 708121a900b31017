"""Folders that are removed from the library, and patterns that hide photos."""

from pathlib import Path

import pytest

from app.library.errors import LibraryError
from app.library.index import folders
from app.library.index.excluded import Excluded
from app.library.labels.photo_tags import correct
from app.library.search.timeline import timeline
from app.library.store.connection import Store
from app.library.store.failures import list_failures
from app.library.store.filter import Filter
from app.library.store.patterns import list_patterns
from app.library.store.roots import list_roots
from tests.app.library.conftest import FakeModel, ask


@pytest.mark.parametrize(
    ("pattern", "hidden"),
    [
        ("Screenshots", ["/p/screenshots/a.jpg", "/p/x/Screenshots/deep/b.jpg"]),
        ("*.GIF", ["/p/c.gif"]),
        ("x", ["/p/x/Screenshots/deep/b.jpg", "/p/x/d.jpg"]),
        ("/p/x", ["/p/x/Screenshots/deep/b.jpg", "/p/x/d.jpg"]),
        ("/p/x/", ["/p/x/Screenshots/deep/b.jpg", "/p/x/d.jpg"]),
        ("/p/*/d.jpg", ["/p/x/d.jpg"]),
        ("p", []),  # an indexed folder was named by a person
        ("[", []),
        ("x/d.jpg", []),
    ],
)
def test_what_a_pattern_hides(pattern: str, hidden: list[str]) -> None:
    everything = ["/p/screenshots/a.jpg", "/p/x/Screenshots/deep/b.jpg", "/p/c.gif", "/p/x/d.jpg", "/p/e.jpg"]
    excluded = Excluded([pattern])
    assert [path for path in everything if excluded.hides(path, "/p")] == hidden
    assert not any(Excluded([]).hides(path, "/p") for path in everything)


def test_exclusion_hides_at_once_lasts_and_is_taken_back(library: Store, model: FakeModel, run, photos: Path) -> None:
    (photos / "first" / "broken.jpg").write_text("no photo")
    run(photos)
    first = sum(path.suffix != ".jpg" or path.stem != "broken" for path in (photos / "first").iterdir())
    assert len(list_failures(library)) == 1
    assert folders.exclude(library, "first") == first and list_patterns(library) == ["first"]
    assert len(timeline(library).ids) == 8 - first and list_failures(library) == []
    report = run(photos)
    assert (report.found, report.embedded, report.removed) == (8 - first, 0, 0)
    assert len(ask(library, model, "bright").ids) == 8 - first
    folders.include(library, "first")
    seen = model.seen
    run(photos)
    assert len(timeline(library).ids) == 8 and model.seen == seen, "vectors of hidden photos are kept for a while"
    for bad in (" ", "/", str(photos)):
        with pytest.raises(LibraryError):
            folders.exclude(library, bad)
    with pytest.raises(LibraryError, match="not excluded"):
        folders.include(library, "first")


def test_a_forgotten_folder_takes_its_photos_and_keeps_decisions(library: Store, run, photos: Path) -> None:
    photo_id = int(timeline(library).ids[0])
    correct(library, photo_id, "mine", True)
    assert folders.forget_root(library, str(photos)) == 8
    assert list_roots(library) == [] and len(timeline(library).ids) == 0
    with pytest.raises(LibraryError, match="not an indexed folder"):
        folders.forget_root(library, str(photos))
    run(photos)
    assert len(timeline(library, Filter(labels=("mine",))).ids) == 1

"""Folders that are removed from the library, and patterns that hide photos."""

from pathlib import Path

import pytest

from app.library.errors import LibraryError
from app.library.index import roots
from app.library.index.excluded import Excluded, patterns
from app.library.labels.corrections import correct
from app.library.search.query import Filter
from app.library.search.timeline import timeline
from app.library.store.store import Store
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
    assert len(library.failures()) == 1
    assert roots.exclude(library, "first") == first and patterns(library) == ["first"]
    assert len(timeline(library).ids) == 8 - first and library.failures() == []
    report = run(photos)
    assert (report.found, report.embedded, report.removed) == (8 - first, 0, 0)
    assert len(ask(library, model, "bright").ids) == 8 - first
    roots.include(library, "first")
    seen = model.seen
    run(photos)
    assert len(timeline(library).ids) == 8 and model.seen == seen, "vectors of hidden photos are kept for a while"
    for bad in (" ", "/", str(photos)):
        with pytest.raises(LibraryError):
            roots.exclude(library, bad)
    with pytest.raises(LibraryError, match="not excluded"):
        roots.include(library, "first")


def test_a_forgotten_folder_takes_its_photos_and_keeps_decisions(library: Store, run, photos: Path) -> None:
    photo_id = int(timeline(library).ids[0])
    correct(library, photo_id, "mine", True)
    assert roots.forget_root(library, str(photos)) == 8
    assert library.roots() == [] and len(timeline(library).ids) == 0
    with pytest.raises(LibraryError, match="not an indexed folder"):
        roots.forget_root(library, str(photos))
    run(photos)
    assert len(timeline(library, Filter(labels=("mine",))).ids) == 1

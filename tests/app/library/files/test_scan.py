"""The walk: what is a photo, what is skipped, and what could not be read."""

import os
import sys
from pathlib import Path

import pytest

from app.library.files.scan import Found, Inaccessible, NotAPhoto, identity, inside, outermost, walk


def names(root: Path, **options: object) -> list[str]:
    return [os.path.relpath(event.path, root) for event in walk(str(root), **options) if isinstance(event, Found)]


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"photo")


def test_only_photos_are_found_in_a_fixed_order(tmp_path: Path) -> None:
    make(tmp_path, "b/2.JPG", "b/1.jpeg", "a.png", "c.txt", "d.jpg.part", "b/clip.mp4", "z.HEIC")
    assert names(tmp_path) == ["a.png", "z.HEIC", "b/1.jpeg", "b/2.JPG"]
    assert names(tmp_path) == names(tmp_path)


def test_bins_thumbnails_and_hidden_things_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "@eaDir/x.jpg", ".thumbnails/x.jpg", "$RECYCLE.BIN/x.jpg", ".Trash-1000/x.jpg", "._x.jpg")
    make(tmp_path, ".hidden/x.jpg", ".x.jpg", "System Volume Information/x.jpg", "ok.jpg")
    make(tmp_path, "private/.nomedia", "private/x.jpg", "private/deep/x.jpg")
    assert names(tmp_path) == ["ok.jpg"]
    assert names(tmp_path, include_hidden=True) == [".x.jpg", "ok.jpg", ".hidden/x.jpg"]


def test_a_root_that_was_named_is_walked_even_if_hidden(tmp_path: Path) -> None:
    make(tmp_path, ".photos/x.jpg", ".photos/.nomedia")
    assert names(tmp_path / ".photos") == ["x.jpg"]


def test_a_loop_of_links_ends_and_real_paths_win(tmp_path: Path) -> None:
    make(tmp_path, "real/x.jpg")
    (tmp_path / "a-link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert names(tmp_path) == ["real/x.jpg"]


def test_a_linked_folder_from_elsewhere_is_walked_once(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/x.jpg", "root/y.jpg")
    for name in ("one", "two"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "root") == ["y.jpg", "one/x.jpg"]


def test_a_folder_is_walked_once_over_several_roots(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "b/y.jpg")
    (tmp_path / "b" / "again").symlink_to(tmp_path / "a")
    visited: set[tuple[int, int]] = set()
    found = [event.path for root in ("a", "b") for event in walk(str(tmp_path / root), visited=visited)]
    assert found == [str(tmp_path / "a" / "x.jpg"), str(tmp_path / "b" / "y.jpg")]


def test_pipes_and_broken_links_are_odd(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    assert list(walk(str(tmp_path))) == [
        NotAPhoto(str(tmp_path / "gone.jpg"), "broken link"),
        NotAPhoto(str(tmp_path / "pipe.jpg"), "not a file"),
        NotAPhoto(str(tmp_path / "self.jpg"), "broken link"),
    ]


def test_a_link_to_a_folder_that_is_gone_is_unread(tmp_path: Path) -> None:
    (tmp_path / "drive").symlink_to(tmp_path / "nowhere")
    assert list(walk(str(tmp_path))) == [Inaccessible(str(tmp_path / "drive"), "broken link")]


def test_a_root_that_is_gone_is_unread(tmp_path: Path) -> None:
    (event,) = walk(str(tmp_path / "gone"))
    assert isinstance(event, Inaccessible) and event.path == str(tmp_path / "gone")


def test_a_folder_that_cannot_be_listed_is_unread_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/x.jpg", "b/y.jpg")
    real = os.scandir

    def denied(path: str) -> object:
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("app.library.files.scan.os.scandir", denied)
    assert [type(event) for event in walk(str(tmp_path))] == [Inaccessible, Found]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_hostile_names_survive(tmp_path: Path) -> None:
    hostile = [b"new\nline.jpg", b"quo\"te's.jpg", "😀 é.jpg".encode(), b"bad-\xff\xfe.jpg", b"-rf.jpg", b" .jpg"]
    for name in hostile:
        (tmp_path / os.fsdecode(name)).write_bytes(b"photo")
    found = [os.fsencode(Path(event.path).name) for event in walk(str(tmp_path))]
    assert found == sorted(hostile)


def test_outermost_folders() -> None:
    assert outermost(["/b/c", "/a", "/b", "/a/x/y", "/ab"]) == ["/a", "/ab", "/b"]
    assert outermost(["/", "/a"]) == ["/"]


def test_inside_is_about_whole_names() -> None:
    assert inside("/a/b", "/a") and inside("/a", "/a") and inside("/a", "/")
    assert not inside("/ab", "/a")


def test_identity_of_nothing(tmp_path: Path) -> None:
    assert identity(tmp_path / "gone") is None
    assert identity(tmp_path) == identity(str(tmp_path))

"""A data set from packages alone: the same for a seed, whole or not there, and readable as captions and labels."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distill.config.sources import PhotoSource, RenderedPictures
from distill.data.sources import list_photos
from distill.render import dataset
from distill.render.camera_roll import KINDS
from distill.render.dataset import render_missing
from mobileclip.errors import ConfigError, PocketclipError


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


@pytest.fixture
def three_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "KINDS", {kind: KINDS[kind] for kind in ("chart", "qr code", "calendar")})


def test_a_seed_determines_the_folder(tmp_path: Path, three_kinds: None) -> None:
    plan, reports = RenderedPictures("rendered", per_kind=3), []

    def report(what: str, done: int, total: int, note: str = "") -> None:
        reports.append((what, done, total))

    first = render_missing(plan, tmp_path / "a", 1, report, workers=2)
    assert reports == [("render", done, 9) for done in range(1, 10)]
    assert digest(first) == digest(render_missing(plan, tmp_path / "b", 1, ignore, workers=1))
    assert digest(first) != digest(render_missing(plan, tmp_path / "c", 2, ignore))
    before = digest(first)
    assert digest(render_missing(RenderedPictures("rendered", per_kind=8), tmp_path / "a", 5, ignore)) == before


def test_captions_and_labels_agree_and_every_picture_opens(tmp_path: Path, three_kinds: None) -> None:
    render_missing(RenderedPictures("r", per_kind=12), tmp_path, 0, ignore)
    train = list_photos(PhotoSource("t", "captions", "r/captions.jsonl", use=("train",)), tmp_path).photos
    test = list_photos(PhotoSource("t", "captions", "r/captions.jsonl", use=("test",)), tmp_path).photos
    labeled = list_photos(PhotoSource("l", "labels", "r/labels.csv"), tmp_path).photos
    rendered = {sample.photo.path for sample in labeled}
    assert len(rendered) == 36 and rendered <= {sample.photo.path for sample in [*train, *test]}
    assert {sample.photo.path for sample in test} < rendered and test, "photographs of packages are for training"
    assert not {sample.photo.path for sample in train} & {sample.photo.path for sample in test}
    kind_of = {sample.photo.path: sample.group for sample in labeled}
    for sample in [*train, *test]:
        with Image.open(sample.photo.path) as picture:
            picture.load()
            assert max(picture.size) >= 256
        if sample.photo.path in kind_of:
            assert set(sample.texts) == set(KINDS[kind_of[sample.photo.path]])
    names = {sample.photo.path.stem for sample in train}
    assert {"china", "flower", "grace_hopper"} <= names, "whichever packages are installed besides the train extra"


def test_an_interrupted_rendering_leaves_nothing_that_counts(
    tmp_path: Path, three_kinds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if done == 4:
            raise KeyboardInterrupt

    plan = RenderedPictures("r", per_kind=3)
    with pytest.raises(KeyboardInterrupt):
        render_missing(plan, tmp_path, 0, stop)
    assert not (tmp_path / "r").exists()
    whole = render_missing(plan, tmp_path, 0, ignore)
    assert digest(whole) == digest(render_missing(plan, tmp_path / "other", 0, ignore))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("r")] == ["r"]


def test_another_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("mine")
    with pytest.raises(PocketclipError, match="exists but holds no rendered pictures"):
        render_missing(RenderedPictures("r"), tmp_path, 0, ignore)
    assert (tmp_path / "r" / "mine.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="per_kind"):
        RenderedPictures("r", per_kind=0)


def test_a_full_disk_is_one_line(tmp_path: Path, three_kinds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "write_bytes", full)
    with pytest.raises(PocketclipError, match=r"r: cannot be written \(No space left on device\)"):
        render_missing(RenderedPictures("r", per_kind=1), tmp_path, 0, ignore)

"""Evidence for labels."""

from pathlib import Path

import numpy as np
import pytest

from distill.data.tables import DataError
from distill.evaluate.evidence import (
    Evidence,
    LabelEvidence,
    RollPart,
    read_evidence,
    read_known_photos,
    truth,
)

ROLL = (RollPart("drawings", 0.7, ("shapes",)), RollPart("paint", 0.3, ("colors",)))


def test_evidence_is_yes_no_or_unknown(data: Path) -> None:
    labels = (
        LabelEvidence("red", "g", ("red",), words=("red",), classes=("colors:red",)),
        LabelEvidence("disc", "g", ("disc",), words=("disc",), unsure=("colors:*",)),
        LabelEvidence("dis", "g", ("dis",), words=("dis", "d dis")),
    )
    evidence = Evidence(labels, ("shapes",))
    photos = read_known_photos(data, evidence)
    table = truth(photos, evidence)
    for photo, (red, disc, part) in zip(photos, table, strict=True):
        number = int(photo.path.stem)
        assert red == (number % 4 == 0)
        assert disc == (-1 if photo.collection == "colors" else number // 4 % 2)
        assert part == 0, "only full words count"
    roles = [p.role for p in photos if p.collection == "colors"]
    assert roles.count("seen") == 16 and 0 < roles.count("measure") < 16
    assert {p.role for p in photos if p.collection == "shapes"} == {"seen", "measure"}


def test_photos_with_a_single_label_count_for_labels_only(data: Path) -> None:
    labels = (LabelEvidence("red", "g", ("red",), classes=("colors:red",)),)
    evidence = Evidence(labels, ("shapes",), single=("colors",))
    photos = read_known_photos(data, evidence)
    for photo, (red,) in zip(photos, truth(photos, evidence), strict=True):
        if photo.collection == "colors":
            assert red == (1 if photo.classes == ("red",) else -1)
        else:
            assert red == 0


def test_each_part_of_the_roll_has_its_share(data: Path) -> None:
    evidence = Evidence((LabelEvidence("red", "g", ("red",)),), ("shapes",), roll=ROLL, degraded=0.25)
    photos = read_known_photos(data, evidence)[3:]
    views = evidence.views(photos)
    assert len(views) == 2 * len(photos) and [view.degraded != "" for view in views[:4]] == [False, True, False, True]
    weights = evidence.weights(views)
    drawn = np.array([view.collection == "shapes" for view in views])
    twins = np.array([view.degraded != "" for view in views])
    assert weights.sum() == pytest.approx(0.5) and weights[drawn].sum() == pytest.approx(0.35)
    assert weights[twins].sum() / weights.sum() == pytest.approx(0.25)
    assert Evidence((), ("shapes",)).weights(photos).tolist() == [1.0] * len(photos)
    alike = Evidence((), ("shapes",), degraded=0.25)
    assert alike.weights(alike.views(photos[:2])).tolist() == [0.75, 0.25, 0.75, 0.25]
    with pytest.raises(DataError, match="which part of a camera roll colors stands for"):
        Evidence((), (), roll=ROLL[:1]).weights([photo for photo in photos if photo.collection == "colors"])


def test_a_labels_file_with_a_prior_is_read(tmp_path: Path, data: Path) -> None:
    text = """
captioned = ["shapes"]
single = ["colors"]
exclusive = [["red", "disc"]]
degraded = 0.3
[columns]
colors = "split"
[[roll]]
shows = "all"
share = 1.0
sets = ["shapes", "colors"]
[[label]]
name = "red"
group = "g"
prompts = ["red"]
[[label]]
name = "disc"
group = "g"
implies = ["red"]
prompts = ["disc"]
"""
    (tmp_path / "labels.toml").write_text(text)
    evidence = read_evidence(tmp_path / "labels.toml")
    assert evidence.exclusive == (("red", "disc"),) and evidence.labels[1].implies == ("red",)
    assert evidence.collections == {"shapes", "colors"}
    classes = {photo.classes for photo in read_known_photos(data, evidence) if photo.collection == "colors"}
    assert classes == {("train",), ("test",)}
    for wrong, message in [
        (text.replace("share = 1.0", "share = 0.9"), "add up to 1"),
        (text.replace("degraded = 0.3", "degraded = 1.0"), r"degraded must lie in \[0, 1\)"),
        (text.replace("degraded = 0.3", "degraded = 'much'"), "not a labels file"),
        (text.replace('shows = "all"', ""), "not a labels file"),
    ]:
        (tmp_path / "labels.toml").write_text(wrong)
        with pytest.raises(DataError, match=message):
            read_evidence(tmp_path / "labels.toml")

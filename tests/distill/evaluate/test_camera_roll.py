"""Tags on photos whose labels are all known, by a model that sees nothing but a photo's mean color."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.data.tables import DataError
from distill.evaluate.camera_roll import evaluate_camera_roll, read_labeled
from distill.evaluate.queries import ALL, query_overlap
from distill.evaluate.tables import grids
from mobileclip.preprocess import PixelRecipe
from mobileclip.vectors import Floats, unit_rows
from mobileclip.zeroshot import Label, LabelSet

COLORS = {"rose": (200, 20, 20), "leaf": (20, 180, 20), "sea": (20, 20, 200)}


class MeanColor:
    """Embeds a photo as its mean color, a text as the color that it names."""

    recipe = PixelRecipe(size=8, resize="squash", interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    labels = LabelSet(
        [
            Label("rose", "people", ("rose",), 0.8, 20.0, least=0.6),
            Label("leaf", "nature", ("leaf",), 0.8, 20.0),
            Label("sea", "nature", ("sea",), 0.8, 20.0, search_only=True),
        ]
    )
    label_vectors: Floats = unit_rows(np.array(list(COLORS.values()), np.float32))

    def encode_pixels(self, pixels: Floats) -> Floats:
        """Return the mean color, as a unit vector."""
        return unit_rows(pixels.mean(axis=(2, 3)) + 1e-3)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return the color of the first known word."""
        return unit_rows(
            np.array([next(v for n, v in COLORS.items() if n in text.lower()) for text in texts], np.float32)
        )


@pytest.fixture
def album(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number, color in enumerate([*COLORS.values(), (200, 20, 20), (120, 120, 120)]):
        Image.new("RGB", (40, 30), color).save(tmp_path / f"photos/{number}.png")
    rows = ["0.png,rose,", "1.png,leaf|tree,sea", "2.png,sea,", "3.png,,", "4.png,,rose", "gone.png,rose,"]
    (tmp_path / "labels.csv").write_text("file,label,unsure\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_labels_are_shown_not_shown_or_unsure(album: Path) -> None:
    table = read_labeled(album / "labels.csv", album / "photos", MeanColor.labels)
    assert table.truth.tolist() == [[1, 0, 0], [0, 1, -1], [0, 0, 1], [0, 0, 0], [-1, 0, 0], [1, 0, 0]]
    assert table.unknown == ["tree"] and table.paths[0] == album / "photos/0.png"


def test_figures_are_those_counted_by_hand(album: Path) -> None:
    result = evaluate_camera_roll(MeanColor(), album / "labels.csv", album / "photos")
    assert (result["n"], result["n_failed"], result["labels_unknown"]) == (5, 1, 1)
    # Given: rose on photos 0 and 3, leaf on 1. The sea is search only. Photo 3 shows nothing.
    assert result["precision"] == pytest.approx(2 / 3) and result["recall"] == pytest.approx(2 / 3)
    assert result["tags_per_photo"] == pytest.approx(3 / 5)
    # Photos 1, 2 and 3 have no people for sure; 3 gets a tag of people.
    assert result["people_without"] == pytest.approx(1 / 3)
    assert result["shown_at"]["0.9–1.0"]["n"] == 3 and result["shown_at"]["0.9–1.0"]["accuracy"] == pytest.approx(2 / 3)
    assert list(result["views"]) == ["as they are", "gray", "dark", "blurred", "sepia", "tiny", "turned"]
    assert (
        result["views"]["gray"]["tags_per_photo"] == 0 and result["views"]["turned"]["precision"] == result["precision"]
    )


def test_tags_of_labels_that_no_photo_shows_are_wrong(album: Path) -> None:
    """And figures of the same name in one result agree."""
    rows = ["0.png,rose,", "1.png,,", "2.png,sea,"]
    (album / "labels.csv").write_text("file,label,unsure\n" + "\n".join(rows) + "\n")
    result = evaluate_camera_roll(MeanColor(), album / "labels.csv", album / "photos")
    assert result["labels"] == 2 and result["precision"] == pytest.approx(1 / 2), "leaf is given to photo 1"
    for name in ("precision", "recall", "people_without", "tags_per_photo"):
        assert result[name] == result["views"]["as they are"][name]
        low, high = result["intervals"][name]
        assert low <= result[name] <= high


def test_a_page_shows_the_wrong_tags(album: Path, tmp_path: Path) -> None:
    evaluate_camera_roll(MeanColor(), album / "labels.csv", album / "photos", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<figure>") == 1 and "<b>rose</b>" in page and "no label" in page
    assert "data:image/jpeg;base64," in page and "http" not in page.replace("http-equiv", "")
    assert "1 labels that the model doesn't have" in page.replace("&#39;", "'") and "--card: #fff" in page
    assert "66.7 %" in page and "people in photos without" in page


def test_all_figures_appear_in_tables(album: Path) -> None:
    heads = [grid.head for grid in grids(evaluate_camera_roll(MeanColor(), album / "labels.csv", album / "photos"))]
    assert ("tags shown with a score of", "tags", "right") in heads
    assert ("photos", "precision", "recall", "people in photos without", "tags per photo") in heads


def test_what_can_t_be_measured_is_said(album: Path) -> None:
    class Bare(MeanColor):
        labels = LabelSet([])

    with pytest.raises(DataError, match="name a bundle"):
        evaluate_camera_roll(Bare(), album / "labels.csv", album / "photos")
    with pytest.raises(DataError, match="none of its photos can be read"):
        evaluate_camera_roll(MeanColor(), album / "labels.csv")
    (album / "empty.csv").write_text("file,label,unsure\n")
    with pytest.raises(DataError, match="has no rows"):
        evaluate_camera_roll(MeanColor(), album / "empty.csv")


def test_queries_in_common(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    photos = unit_rows(random.random((60, 3)).astype(np.float32))
    (tmp_path / "pairs.csv").write_text("kind,query,variant\ncase,rose,ROSE\ncase,a sea,A SEA\nother,rose,sea\n")
    result: dict[str, Any] = query_overlap(MeanColor(), tmp_path / "pairs.csv", photos)
    near = [set(np.argsort(-photos @ (np.array(COLORS[n]) / np.linalg.norm(COLORS[n])))[:10]) for n in ("rose", "sea")]
    different = len(near[0] & near[1]) / 10
    assert result["case"] == {"n": 2, "accuracy": 1.0, "interval": [1.0, 1.0]}
    assert result["other"]["accuracy"] == pytest.approx(different)
    assert result[ALL]["n"] == 3 and result[ALL]["accuracy"] == pytest.approx((2 + different) / 3)
    (tmp_path / "pairs.csv").write_text("kind,query,variant\n")
    with pytest.raises(DataError, match="has no rows"):
        query_overlap(MeanColor(), tmp_path / "pairs.csv", photos)


def test_the_shipped_tables_fit_the_shipped_labels() -> None:
    import csv
    import tomllib

    folder = Path(__file__).parents[3] / "distill/recipes/pocket"
    names = {label["name"] for label in tomllib.loads((folder / "labels.toml").read_text("utf-8"))["label"]}
    with (folder / "camera-roll.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) >= 500 and len({row["file"] for row in rows}) == len(rows)
    for row in rows:
        shown, unsure = (set(filter(None, row[column].split("|"))) for column in ("label", "unsure"))
        assert shown | unsure <= names and not shown & unsure, row["file"]
    with (folder / "query-pairs.csv").open(encoding="utf-8") as stream:
        pairs = [(row["query"], row["variant"]) for row in csv.DictReader(stream)]
    assert len(pairs) == 300 and all(query != variant for query, variant in pairs)

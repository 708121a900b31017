"""One class is one class: in several data sets, in every kind of source, however its name is spelled."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.config import PhotoSource
from distill.data.sources import list_photos, readable_name
from distill.losses import info_nce
from distill.training.run import prepare
from distill.training.trainer import Trainer
from tests.distill.mixed import jpeg, recipe, write_tar

SPELLINGS = {
    "first": ("Ice_Hockey", "dog", "cat"),
    "second": ("ice hockey", "Dog", "CAT"),
    "corrections": ("ICE-HOCKEY", "dog", "puss"),
    "folders": ("ice-hockey", "DOG", "cat"),
    "tars": ("ice_hockey", "dog", "Cat"),
}
"""How five data sets spell the same three classes; `corrections` renames one in its recipe table."""
PER_CLASS = 4
ALONE = {"contrastive": 1.0, "affinity": 0.0, "feature": 0.0}
SOURCES: dict[str, dict[str, Any]] = {
    "first": {"kind": "labels", "file": "first/labels.csv"},
    "second": {"kind": "labels", "file": "second/labels.csv", "templates": ["a {}", "{}"]},
    "corrections": {"kind": "labels", "file": "corrections/labels.jsonl", "names": {"puss": "cat"}},
    "folders": {"kind": "folders", "file": "folders"},
    "tars": {"kind": "webdataset", "file": "tars"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five data sets of the same three classes."""
    root = tmp_path_factory.mktemp("classes")
    for name, classes in SPELLINGS.items():
        (root / name).mkdir()
        rows = [
            (f"{label}-{i}.jpg", label, jpeg(100 * i + n)) for n, label in enumerate(classes) for i in range(PER_CLASS)
        ]
        if name == "folders":
            for file, label, photo in rows:
                (root / name / label).mkdir(exist_ok=True)
                (root / name / label / file).write_bytes(photo)
            continue
        if name == "tars":
            members = [
                (f"{i:03}.{s}", d) for i, row in enumerate(rows) for s, d in (("jpg", row[2]), ("cls", row[1].encode()))
            ]
            write_tar(root / "tars/0.tar", members)
            continue
        for file, _, photo in rows:
            (root / name / file).write_bytes(photo)
        if name == "corrections":
            lines = [json.dumps({"file": file, "label": label, "rejected": ""}) for file, label, _ in rows]
            (root / name / "labels.jsonl").write_text("\n".join(lines) + "\n")
        else:
            (root / name / "labels.csv").write_text(
                "file,label\n" + "".join(f"{file},{label}\n" for file, label, _ in rows)
            )
    return root


def trainer(sources: dict[str, dict[str, Any]], model: Path, data: Path, out: Path, **settings: Any) -> Trainer:
    plan = recipe(out, sources, open_clip=[], loss=ALONE, **{"optim.extra_texts": 0, **settings})
    return prepare(plan, model, data, out, lambda *_: None, workers=0).trainer


@pytest.mark.parametrize(
    "names",
    [("first", "second"), ("first", "folders"), ("corrections", "first"), ("second", "tars"), tuple(SPELLINGS)],
    ids="-".join,
)
def test_photos_of_one_class_are_positives_of_each_other_across_data_sets(
    names: tuple[str, ...], data: Path, mixed_model: Path, tmp_path: Path
) -> None:
    made = trainer({name: SOURCES[name] for name in names}, mixed_model, data, tmp_path, **{"optim.batch": 6})
    stage = made.recipe.stages[0]
    batches = list(made.feed.batches(0, stage, 0))
    groups = torch.cat([batch.groups for batch in batches])
    assert len(groups) == len(names) * 3 * PER_CLASS // 6 * 6
    assert len(groups.unique()) == 3
    for batch in batches:
        # The loss of a model that knows exactly the classes is the entropy of the targets: no negative is wrong.
        _, number = batch.groups.unique(return_inverse=True)
        vectors = torch.eye(3)[number]
        loss = info_nce(vectors, vectors, torch.tensor(100.0), batch.groups)
        share = (batch.groups[:, None] == batch.groups[None, :]).sum(dim=1).float()
        assert float(loss) == pytest.approx(float(share.log().mean()), abs=1e-5)


def test_spellings_of_a_name_are_one_phrase() -> None:
    """macOS hands out decomposed names of folders; a table has what was typed."""
    cafe, decomposed = "Stra\u00dfencaf\u00e9", unicodedata.normalize("NFD", "Stra\u00dfencaf\u00e9")
    assert cafe != decomposed and readable_name(cafe) == readable_name(decomposed) == "stra\u00dfencaf\u00e9"
    assert {readable_name(name) for name in ("hot_dog", "Hot  dog", " hot-dog ", "hot\u00a0dog")} == {"hot dog"}
    assert readable_name("crane_1", {"crane_1": "crane  bird"}) == "crane bird"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_photos_with_the_same_labels_are_positives_in_any_order(kind: str, tmp_path: Path) -> None:
    """And in one row or in several."""
    rows = [("a.jpg", "dog|cat"), ("b.jpg", "Cat|DOG"), ("c.jpg", "dog"), ("d.jpg", "cat"), ("d.jpg", "dog|cat")]
    if kind == "csv":
        (tmp_path / "l.csv").write_text("file,label\n" + "".join(f"{file},{label}\n" for file, label in rows))
    else:
        lines = [json.dumps({"file": file, "label": label.split("|")}) for file, label in rows]
        (tmp_path / "l.jsonl").write_text("\n".join(lines) + "\n")
    found = list_photos(PhotoSource("p", "labels", f"l.{kind}", templates=("a {}",)), tmp_path).photos
    assert [photo.texts[0] for photo in found] == ["a dog and cat", "a cat and dog", "a dog", "a cat and dog"]
    groups = [photo.group for photo in found]
    assert groups[0] == groups[1] == groups[3] != groups[2]

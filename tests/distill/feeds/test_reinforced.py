"""Batches of reinforced data: what `pocketclip reinforce` stores, and DataCompDR's own tars."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill.data.augment import DECODE_MARGIN, Augmentation, apply, from_datacompdr
from distill.data.tables import DataError
from distill.data.tars import PhotoRef, read_datacompdr, read_index
from distill.feeds.feed import Feed
from distill.feeds.reinforced import ReinforcedSamples
from distill.feeds.steps import group_number
from distill.reinforce.run import Reinforcer
from distill.reinforce.shards import SIDECAR, Shard, Sidecar
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.feeds.common import REINFORCED, STAGE, TEXTS, reinforced_feed, reinforced_feed_of, same
from tests.distill.mixed import SOURCES, TinyTeacher, encoded, jpeg, npz, recipe, write_tar


def records(home: Path) -> dict[int, tuple[dict[str, Any], Shard, int]]:
    """Each photo's line, shard and row by its group's number; labeled ones, whose groups are shared, left out."""
    found = {}
    for note in Sidecar.load(home / "made").shards:
        shard = Shard(home / "made", note.name)
        for row in range(note.photos):
            line = shard.line(row)
            if not line["key"].startswith("labeled/"):
                found[group_number(line["group"])] = (line, shard, row)
    return found


def test_batches_are_what_the_recipe_asks_for(feed: Feed) -> None:
    batches = list(feed.batches(0, STAGE, 0))
    assert len(batches) == feed.steps(0, STAGE) == 56 // 8
    for batch in batches:
        assert batch.pixels.shape == (8, 3, 48, 48) and batch.pixels.dtype == torch.float32
        assert batch.tokens.shape == (12, 16) and batch.tokens.dtype == torch.int64 and batch.tried == 8
        assert [teacher.image.shape for teacher in batch.teachers] == [(8, 24), (8, 16)]
        assert [teacher.text.shape for teacher in batch.teachers] == [(12, 24), (12, 16)]
        assert [teacher.scale for teacher in batch.teachers] == [30.0, 31.0] and feed.widths == (24, 16)
        for side in (side for embeddings in (*batch.teachers, *batch.reference) for side in embeddings[:2]):
            assert torch.allclose(side.norm(dim=1), torch.ones(len(side)))
        own, further = ({bytes(row.numpy()) for row in part} for part in (batch.tokens[:8], batch.tokens[8:]))
        assert len(further) == 4 and not own & further
    seen = Counter(int(group) for batch in batches for group in batch.groups)
    assert sum(seen.values()) == 56 and len(seen) == 28 + 3 + 16


def test_photo_view_and_embeddings_of_a_row_belong_together(
    feed: Feed, home: Path, config: ModelConfig, tokenizer: Tokenizer
) -> None:
    """Made again from the files with Pillow: pixels of one of the stored views, that view's vectors, that text's."""
    known, checked, synthetic = records(home), 0, 0
    pixels = dataclasses.replace(config.pixels, size=48)
    for batch in feed.batches(0, STAGE, 0):
        for i, group in enumerate(batch.groups.tolist()):
            if group not in known:
                continue
            line, shard, row = known[group]
            place = PhotoRef(home / line["photo"], tuple(line["place"]) if "place" in line else None)
            picture = place.open(DECODE_MARGIN * 48)
            views = [Augmentation.decode(shard.row("augmentations", row, k).numpy()) for k in range(3)]
            replayed = [pixels.normalize_uint8(np.asarray(apply(picture, view, 48))[None])[0] for view in views]
            (view,) = [k for k in range(3) if np.array_equal(replayed[k], batch.pixels[i].numpy())]
            all_texts = line["captions"] + line["synthetic"]
            tokens = batch.tokens[i].numpy()
            texts = [k for k, text in enumerate(all_texts) if np.array_equal(tokenizer([text])[0], tokens)]
            for t in range(2):
                assert torch.equal(batch.teachers[t].image[i], shard.vector(f"image.{t}", row, view))
                rows = [shard.vector(f"text.{t}", line["text"] + text) for text in texts]
                assert any(torch.equal(batch.teachers[t].text[i], vector) for vector in rows)
            synthetic += texts[0] >= len(line["captions"])
            checked += 1
    assert checked == 44 and 5 < synthetic < 25, "half of those that have synthetic captions"


def test_a_stage_without_photos(home: Path, config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Texts without photos, and one of each photo's."""
    batch = next(iter(reinforced_feed(home, config, tokenizer).batches(0, TEXTS, 0)))
    assert batch.pixels.shape == (0, 3, 1, 1) and len(batch.tokens) == 12 and len(batch.groups) == 0
    assert [teacher.image.shape for teacher in batch.teachers] == [(0, 24), (0, 16)] and len(
        batch.teachers[0].text
    ) == 12
    plan = recipe(tmp_path, SOURCES, texts=[{"name": "words", "kind": "lines", "file": "words.txt"}])
    Reinforcer(plan, home, tmp_path / "made", [TinyTeacher(0)], 0).run(lambda *_: None)
    source = {"all": {"kind": "reinforced", "file": str(tmp_path / "made")}}
    overrides = {"optim.batch": 30, "optim.extra_texts": 30}
    feed = reinforced_feed_of(recipe(tmp_path, source, **overrides), home, config, tokenizer)
    (batch,) = feed.batches(0, TEXTS, 0)
    texts = ["a small boat", "two cats", "something blue", "red"]
    assert feed.samples.text_count == 4 + 56 == len(batch.tokens)
    found = {bytes(row): k for k, row in enumerate(batch.tokens.numpy().astype(np.int32))}
    for row, vector in zip(tokenizer(texts), TinyTeacher(0).encode_texts(texts), strict=True):
        assert vector @ batch.teachers[0].text[found[bytes(row)]].numpy() > 0.99999


def test_a_reference_is_drawn_only_for_the_affinity_loss(home: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    batch = next(iter(reinforced_feed(home, config, tokenizer).batches(0, STAGE, 0)))
    assert [teacher.image.shape for teacher in batch.reference] == [(8, 24), (8, 16)]
    for odd in ({"loss.bank": 0}, {"loss.affinity": 0}):
        assert next(iter(reinforced_feed(home, config, tokenizer, **odd).batches(0, STAGE, 0))).reference == ()


@pytest.mark.parametrize(
    ("sources", "overrides", "message"),
    [
        ({**REINFORCED, "c": SOURCES["captioned"]}, {"open_clip": [{"model": "x"}]}, "photos.c: is not reinforced"),
        (REINFORCED, {"texts": [{"name": "w", "kind": "lines", "file": "words.txt"}]}, "belong in the recipe of"),
        ({"no": {"kind": "reinforced", "file": "none"}}, {}, "run `pocketclip reinforce`"),
    ],
)
def test_recipes_that_mix_sources_are_refused(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, sources: Any, overrides: Any, message: str
) -> None:
    with pytest.raises(PocketclipError, match=message):
        reinforced_feed_of(recipe(home, sources, **overrides), home, config, tokenizer)


def test_sources_of_different_teachers_are_refused(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    Reinforcer(recipe(tmp_path, SOURCES), home, tmp_path / "b", [TinyTeacher(2)], 0).run(lambda *_: None)
    sources = {**REINFORCED, "b": {"kind": "reinforced", "file": str(tmp_path / "b")}}
    with pytest.raises(ConfigError, match=r"photos\.b: not of the same teachers as photos\.all"):
        reinforced_feed_of(recipe(tmp_path, sources), home, config, tokenizer)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_damaged_later_gives_a_one_line_error(
    home: Path, config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(home, tmp_path / "data")
    feed = reinforced_feed(tmp_path / "data", config, tokenizer, workers)
    for path in (tmp_path / "data/made").glob("*.jsonl"):
        path.write_bytes(path.read_bytes() + b"{}\n")
    feed.recipe = dataclasses.replace(feed.recipe, loss=dataclasses.replace(feed.recipe.loss, bank=0))
    with pytest.raises(DataError, match="does not belong") as caught:
        list(feed.batches(0, STAGE, 0))
    assert "\n" not in str(caught.value)


def test_the_identity_depends_on_the_sidecar_and_the_shards(
    home: Path, data: Path, config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path / "data")
    before = reinforced_feed(home, config, tokenizer).identity
    assert reinforced_feed(tmp_path / "data", config, tokenizer).identity == before
    sidecar = tmp_path / "data/made" / SIDECAR
    fields = json.loads(sidecar.read_text())
    fields["teachers"][0]["logit_scale"] = 50.0
    sidecar.write_text(json.dumps(fields))
    assert reinforced_feed(tmp_path / "data", config, tokenizer).identity != before
    fields["shards"][0]["digest"] = "0"
    sidecar.write_text(json.dumps(fields))
    with pytest.raises(DataError, match="shard 00000 is not the one that"):
        reinforced_feed(tmp_path / "data", config, tokenizer)


@pytest.fixture(scope="module")
def datacompdr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars as DataCompDR lays them out, of two teachers with 16 and 8 dimensions; one sample in each is damaged."""
    folder, random = tmp_path_factory.mktemp("datacompdr"), np.random.default_rng(0)
    for tar in range(2):
        members: list[tuple[str, bytes]] = []
        for number in range(9):
            key, width = f"{tar}{number}", 70 + number
            boxes = [[[number, 2, 30, 40 + k], [[k, 0.0 if k == 0 else 0.09], [3, -30.4532]]] for k in range(2)]
            vectors = npz(
                image_emb=random.normal(size=(2, 24)).astype(np.float32),
                text_emb=random.normal(size=(3, 24)).astype(np.float32),
            )
            members += [
                (f"{key}.jpg", jpeg(number, (width, 60))),
                (f"{key}.txt", f"caption {number}".encode()),
                (f"{key}.json", encoded({"uid": key, "sha256": ""})),
                (f"{key}.syn.json", encoded({"syn_text": [f"one {number}", f"two {number}"]})),
                (f"{key}.paug.json", encoded({"param_aug": json.dumps(boxes)})),
                (f"{key}.npz", vectors if number != 4 else vectors[:100]),
            ]
        write_tar(folder / f"{tar:08}.tar", members)
    teachers = [{"identity": name, "dim": dim, "logit_scale": 100} for name, dim in (("a", 16), ("b", 8))]
    (folder / SIDECAR).write_text(json.dumps({"schema": 1, "layout": "datacompdr", "teachers": teachers}))
    return folder


def test_datacompdr_is_used_directly(datacompdr: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    source = {"dr": {"kind": "reinforced", "file": "."}}
    feed = reinforced_feed_of(recipe(datacompdr, source), datacompdr, config, tokenizer)
    assert feed.widths == (16, 8) and feed.steps(0, STAGE) == 18 // 8
    batches = list(feed.batches(0, STAGE, 0))
    assert same(batches, feed.batches(0, STAGE, 0)) and sum(batch.unread for batch in batches) in (1, 2)
    stored = {}
    for tar in sorted(datacompdr.glob("*.tar")):
        for sample in read_index(tar)[0]:
            if not sample.key.endswith("4"):
                stored[group_number(sample.key)] = (sample, read_datacompdr(sample))
    pixels = dataclasses.replace(config.pixels, size=48)
    for batch in batches:
        for i, group in enumerate(batch.groups.tolist()):
            sample, kept = stored[group]
            rows = torch.nn.functional.normalize(torch.from_numpy(kept.image[:, :16]), dim=1)
            (view,) = (rows == batch.teachers[0].image[i]).all(dim=1).nonzero().flatten().tolist()
            second = torch.nn.functional.normalize(torch.from_numpy(kept.image[view, 16:]), dim=0)
            assert torch.equal(batch.teachers[1].image[i], second)
            picture = sample.photo.open()
            seen = apply(picture, from_datacompdr(kept.augmentations[view], picture.size), 48)
            assert np.array_equal(pixels.normalize_uint8(np.asarray(seen)[None])[0], batch.pixels[i].numpy())


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        ([{"identity": "a", "dim": 99, "logit_scale": 100}], r"teachers of \[99\] dimensions, but embeddings of 24"),
        ([], "at least one teacher"),
    ],
)
def test_a_datacompdr_sidecar_that_does_not_match_is_refused(
    datacompdr: Path, tmp_path: Path, teachers: Any, message: str
) -> None:
    shutil.copytree(datacompdr, tmp_path / "dr")
    (tmp_path / "dr" / SIDECAR).write_text(json.dumps({"schema": 1, "layout": "datacompdr", "teachers": teachers}))
    with pytest.raises(DataError, match=message):
        ReinforcedSamples(recipe(tmp_path, {"dr": {"kind": "reinforced", "file": "dr"}}), tmp_path)


def test_tars_without_pictures_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.paug.json", b"{}"), ("a.npz", b"")])
    fields = {"schema": 1, "layout": "datacompdr", "teachers": [{"identity": "a", "dim": 8, "logit_scale": 100}]}
    (tmp_path / SIDECAR).write_text(json.dumps(fields))
    with pytest.raises(DataError, match="join the tars with the pictures"):
        ReinforcedSamples(recipe(tmp_path, {"dr": {"kind": "reinforced", "file": "."}}), tmp_path)

"""Batches of reinforced data and beside a live teacher: the same for everyone who asks, each row with its own."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distill.batch import Batch
from distill.config import Recipe, Stage
from distill.data.augment import DECODE_MARGIN, Augmentation, apply, from_datacompdr
from distill.data.sources import DataError
from distill.data.tars import PhotoRef, read_datacompdr, read_index
from distill.feeds.online import OnlineFeed
from distill.feeds.reinforced import ReinforcedFeed, ReinforcedSamples
from distill.feeds.steps import group_number, shuffle_shards
from distill.reinforce.run import Reinforcer
from distill.reinforce.shards import SIDECAR, Shard, Sidecar
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.reinforce.conftest import SOURCES, TinyTeacher, encoded, jpeg, npz, recipe, write_tar

STAGE = Stage(epochs=2, px=48)
TEXTS = Stage(epochs=1, texts_only=True)
REINFORCED = {"all": {"kind": "reinforced", "file": "made"}}


@pytest.fixture(scope="module")
def home(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of its own, with everything reinforced in `made`."""
    home = tmp_path_factory.mktemp("home") / "data"
    shutil.copytree(data, home)
    teachers = [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    Reinforcer(recipe(home, SOURCES), home, home / "made", teachers, 0).run(lambda *_: None)
    return home


@pytest.fixture
def student(recipe_folder: Path) -> ModelConfig:
    return ModelConfig.load(str(recipe_folder / "tiny.toml"))


@pytest.fixture
def feed(home: Path, student: ModelConfig, tokenizer: Tokenizer) -> ReinforcedFeed:
    return made(home, student, tokenizer)


def made(home: Path, student: ModelConfig, tokenizer: Tokenizer, workers: int = 0, **overrides: Any) -> ReinforcedFeed:
    return ReinforcedFeed(recipe(home, REINFORCED, **overrides), home, student, tokenizer, workers)


def tensors(batch: Batch) -> list[torch.Tensor]:
    teachers = [part for one in (*batch.teachers, *batch.reference) for part in (one.image, one.text)]
    return [batch.pixels, batch.tokens, batch.groups, *teachers]


def same(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    assert pairs
    return all(torch.equal(a, b) for one, two in pairs for a, b in zip(tensors(one), tensors(two), strict=True))


def records(home: Path) -> dict[int, tuple[dict[str, Any], Shard, int]]:
    """Each photo's line, shard and row by its group's number; labelled ones, whose groups are shared, left out."""
    found = {}
    for note in Sidecar.load(home / "made").shards:
        shard = Shard(home / "made", note.name)
        for row in range(note.photos):
            line = shard.line(row)
            if not line["key"].startswith("labelled/"):
                found[group_number(line["group"])] = (line, shard, row)
    return found


def test_batches_are_what_the_recipe_asks_for(feed: ReinforcedFeed) -> None:
    batches = list(feed.batches(0, STAGE, 0))
    assert len(batches) == feed.steps(0, STAGE) == 56 // 8
    for batch in batches:
        assert batch.pixels.shape == (8, 3, 48, 48) and batch.pixels.dtype == torch.float32
        assert batch.tokens.shape == (12, 16) and batch.tokens.dtype == torch.int64 and batch.tried == 8
        assert [one.image.shape for one in batch.teachers] == [(8, 24), (8, 16)]
        assert [one.text.shape for one in batch.teachers] == [(12, 24), (12, 16)]
        assert [one.scale for one in batch.teachers] == [30.0, 31.0] and feed.widths == (24, 16)
        for one in (*batch.teachers, *batch.reference):
            assert torch.allclose(one.image.norm(dim=1), torch.ones(len(one.image)))
            assert torch.allclose(one.text.norm(dim=1), torch.ones(len(one.text)))
        own, further = ({bytes(row.numpy()) for row in part} for part in (batch.tokens[:8], batch.tokens[8:]))
        assert len(further) == 4 and not own & further
    seen = Counter(int(group) for batch in batches for group in batch.groups)
    assert sum(seen.values()) == 56 and len(seen) == 28 + 3 + 16


def test_each_row_has_the_photo_the_view_and_the_vectors_that_belong_together(
    feed: ReinforcedFeed, home: Path, student: ModelConfig, tokenizer: Tokenizer
) -> None:
    """Made again from the files with Pillow: pixels of one of the stored views, that view's vectors, that text's."""
    known, checked, synthetic = records(home), 0, 0
    pixels = dataclasses.replace(student.pixels, size=48)
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
            said = line["captions"] + line["synthetic"]
            texts = [k for k, text in enumerate(said) if np.array_equal(tokenizer([text])[0], batch.tokens[i].numpy())]
            for t in range(2):
                assert torch.equal(batch.teachers[t].image[i], shard.vector(f"image.{t}", row, view))
                rows = [shard.vector(f"text.{t}", line["text"] + text) for text in texts]
                assert any(torch.equal(batch.teachers[t].text[i], vector) for vector in rows)
            synthetic += texts[0] >= len(line["captions"])
            checked += 1
    assert checked == 44 and 5 < synthetic < 25, "half of those that have synthetic captions"


def test_workers_change_nothing(home: Path, student: ModelConfig, tokenizer: Tokenizer) -> None:
    alone, helped = (made(home, student, tokenizer, workers) for workers in (0, 2))
    assert same(alone.batches(1, STAGE, 0), helped.batches(1, STAGE, 0))


def test_going_on_is_starting_later(feed: ReinforcedFeed) -> None:
    assert same(list(feed.batches(1, STAGE, 0))[3:], feed.batches(1, STAGE, 3))


def test_every_epoch_draws_anew(feed: ReinforcedFeed) -> None:
    first, second = (list(feed.batches(epoch, STAGE, 0)) for epoch in range(2))
    vectors = [
        {int(group): row for batch in epoch for group, row in zip(batch.groups, batch.teachers[0].image, strict=True)}
        for epoch in (first, second)
    ]
    moved = [not torch.equal(vectors[0][group], vectors[1][group]) for group in vectors[0].keys() & vectors[1].keys()]
    assert 0.4 < np.mean(moved) < 0.95, "one of three views, drawn in each epoch"
    assert not torch.equal(first[0].groups, second[0].groups)


def test_shares_of_sources(home: Path, student: ModelConfig, tokenizer: Tokenizer) -> None:
    twice = {"all": {**REINFORCED["all"], "per_epoch": 2.25}}
    feed = ReinforcedFeed(recipe(home, twice), home, student, tokenizer, 0)
    groups = Counter(int(group) for batch in feed.batches(0, STAGE, 0) for group in batch.groups)
    assert feed.steps(0, STAGE) == round(2.25 * 56) // 8 == sum(groups.values()) // 8
    assert max(groups.values()) <= 3 * 4 and set(groups.values()) - {2, 3} <= {1, 8, 9, 10, 11, 12}


@pytest.mark.parametrize("sizes", [[5, 0, 7, 1], [3], [100, 100, 100]])
def test_shuffling_keeps_every_sample_and_reads_few_shards_at_once(sizes: list[int]) -> None:
    order = shuffle_shards(sizes, np.random.default_rng(0), window=50)
    assert sorted(order) == list(range(sum(sizes)))
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    for start in range(0, len(order), 50):
        assert len(set(shard_of[order[start : start + 50]])) <= 3
    assert sum(sizes) < 5 or not np.array_equal(order, np.arange(sum(sizes)))
    assert np.array_equal(order, shuffle_shards(sizes, np.random.default_rng(0), window=50))


def ranks(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    for module in ("steps", "reinforced", "online"):
        monkeypatch.setattr(f"distill.feeds.{module}.size", lambda: size)
    monkeypatch.setattr("distill.feeds.steps.rank", lambda: rank)


def test_ranks_divide_every_batch(feed: ReinforcedFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(feed.batches(0, STAGE, 0))
    for rank in range(2):
        ranks(monkeypatch, rank, 2)
        for batch, mine in zip(whole, feed.batches(0, STAGE, 0), strict=True):
            assert torch.equal(mine.pixels, batch.pixels[rank::2]) and torch.equal(mine.groups, batch.groups[rank::2])
            assert torch.equal(mine.tokens[:4], batch.tokens[:8][rank::2]) and len(mine.tokens) == 4 + 2
            assert torch.equal(mine.teachers[1].image, batch.teachers[1].image[rank::2])
            assert all(torch.equal(a.image, b.image) for a, b in zip(mine.reference, batch.reference, strict=True))


RANK = """
import os, sys
from pathlib import Path
import torch
from distill.feeds.reinforced import ReinforcedFeed
from distill.distributed import everyone, joined_processes
from mobileclip.tokenizer import Tokenizer
from mobileclip.towers import ModelConfig
from tests.distill.reinforce.conftest import recipe
from tests.distill.reinforce.test_feeds import REINFORCED, STAGE

home, model, merges, out = map(Path, sys.argv[1:5])
own = out / os.environ["RANK"]
own.mkdir()
with joined_processes("cpu"):
    tokenizer = Tokenizer.load(merges.read_bytes(), 16)
    feed = ReinforcedFeed(recipe(own, REINFORCED), home, ModelConfig.load(str(model)), tokenizer, 1)
    rows = [everyone(batch.teachers[0].image) for batch in feed.batches(0, STAGE, 2)]
    torch.save([torch.cat([row[0::4], row[1::4], row[2::4], row[3::4]]) for row in rows], own / "rows.pt")
"""


def test_two_processes_join_to_one_batch(feed: ReinforcedFeed, home: Path, recipe_folder: Path, tmp_path: Path) -> None:
    """Real ones, over gloo: the even rows come from the first, the odd ones from the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = map(str, (home, recipe_folder / "tiny.toml", recipe_folder / "merges.txt.gz", tmp_path))
    command, root = [sys.executable, "-c", RANK, *arguments], Path(__file__).parents[3]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, cwd=root, env={**os.environ, **world, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    whole = [batch.teachers[0].image for batch in feed.batches(0, STAGE, 2)]
    for rank in range(2):
        for joined, batch in zip(torch.load(tmp_path / str(rank) / "rows.pt", weights_only=True), whole, strict=True):
            assert torch.equal(joined, batch)


def test_a_photo_that_is_gone_is_left_out_or_replaced(
    home: Path, student: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path / "data")
    whole = list(made(tmp_path / "data", student, tokenizer).batches(0, STAGE, 0))
    lost = [f"captioned/ö/{number}.jpg" for number in (0, 11, 20)]
    for name in lost:
        (tmp_path / "data" / name).unlink()
    gone = {group_number(f"captioned/{name.removeprefix('captioned/')}") for name in lost}
    feed = made(tmp_path / "data", student, tokenizer)
    missing = 0
    for batch, torn in zip(whole, feed.batches(0, STAGE, 0), strict=True):
        kept = torch.tensor([int(group) not in gone for group in batch.groups])
        missing += torn.unread
        assert torn.unread == 8 - int(kept.sum()) and torch.equal(torn.pixels, batch.pixels[kept])
        assert torch.equal(torn.teachers[0].text[: len(torn.pixels)], batch.teachers[0].text[:8][kept])
    assert missing == 3
    for rank in range(2):
        ranks(monkeypatch, rank, 2)
        for batch, mine in zip(whole, feed.batches(0, STAGE, 0), strict=True):
            assert mine.pixels.shape == (4, 3, 48, 48) and len(mine.tokens) == 6
            assert set(mine.groups.tolist()) <= set(batch.groups.tolist()) - gone


def test_texts_alone(home: Path, student: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Texts without photos, and one of each photo's."""
    batch = next(iter(made(home, student, tokenizer).batches(0, TEXTS, 0)))
    assert batch.pixels.shape == (0, 3, 1, 1) and len(batch.tokens) == 12 and len(batch.groups) == 0
    assert [one.image.shape for one in batch.teachers] == [(0, 24), (0, 16)] and len(batch.teachers[0].text) == 12
    plan = recipe(tmp_path, SOURCES, texts=[{"name": "words", "kind": "lines", "file": "words.txt"}])
    Reinforcer(plan, home, tmp_path / "made", [TinyTeacher(0)], 0).run(lambda *_: None)
    source = {"all": {"kind": "reinforced", "file": str(tmp_path / "made")}}
    overrides = {"optim.batch": 30, "optim.extra_texts": 30}
    feed = ReinforcedFeed(recipe(tmp_path, source, **overrides), home, student, tokenizer, 0)
    (batch,) = feed.batches(0, TEXTS, 0)
    texts = ["a small boat", "two cats", "something blue", "red"]
    assert feed.text_count == 4 + 56 == len(batch.tokens)
    found = {bytes(row): k for k, row in enumerate(batch.tokens.numpy().astype(np.int32))}
    for row, vector in zip(tokenizer(texts), TinyTeacher(0).encode_texts(texts), strict=True):
        assert vector @ batch.teachers[0].text[found[bytes(row)]].numpy() > 0.99999


def test_a_reference_is_drawn_only_for_the_affinity_loss(
    home: Path, student: ModelConfig, tokenizer: Tokenizer
) -> None:
    batch = next(iter(made(home, student, tokenizer).batches(0, STAGE, 0)))
    assert [one.image.shape for one in batch.reference] == [(8, 24), (8, 16)]
    for odd in ({"loss.bank": 0}, {"loss.affinity": 0}):
        assert next(iter(made(home, student, tokenizer, **odd).batches(0, STAGE, 0))).reference == ()


@pytest.mark.parametrize(
    ("sources", "overrides", "said"),
    [
        ({**REINFORCED, "c": SOURCES["captioned"]}, {"open_clip": [{"model": "x"}]}, "photos.c: is not reinforced"),
        (REINFORCED, {"texts": [{"name": "w", "kind": "lines", "file": "words.txt"}]}, "belong in the recipe of"),
        ({"no": {"kind": "reinforced", "file": "none"}}, {}, "run `pocketclip reinforce`"),
    ],
)
def test_recipes_that_cannot_be_fed_are_refused(
    home: Path, student: ModelConfig, tokenizer: Tokenizer, sources: Any, overrides: Any, said: str
) -> None:
    with pytest.raises(PocketclipError, match=said):
        ReinforcedFeed(recipe(home, sources, **overrides), home, student, tokenizer, 0)


def test_sources_of_different_teachers_are_refused(
    home: Path, student: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    Reinforcer(recipe(tmp_path, SOURCES), home, tmp_path / "b", [TinyTeacher(2)], 0).run(lambda *_: None)
    sources = {**REINFORCED, "b": {"kind": "reinforced", "file": str(tmp_path / "b")}}
    with pytest.raises(ConfigError, match=r"photos\.b: not of the same teachers as photos\.all"):
        ReinforcedFeed(recipe(tmp_path, sources), home, student, tokenizer, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_damaged_later_is_one_clear_line(
    home: Path, student: ModelConfig, tokenizer: Tokenizer, tmp_path: Path, workers: int
) -> None:
    shutil.copytree(home, tmp_path / "data")
    feed = made(tmp_path / "data", student, tokenizer, workers)
    for path in (tmp_path / "data/made").glob("*.jsonl"):
        path.write_bytes(path.read_bytes() + b"{}\n")
    feed.recipe = dataclasses.replace(feed.recipe, loss=dataclasses.replace(feed.recipe.loss, bank=0))
    with pytest.raises(DataError, match="does not belong") as caught:
        list(feed.batches(0, STAGE, 0))
    assert "\n" not in str(caught.value)


def test_the_identity_is_that_of_the_shards(
    home: Path, data: Path, student: ModelConfig, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path / "data")
    before = made(home, student, tokenizer).identity
    assert made(tmp_path / "data", student, tokenizer).identity == before
    sidecar = tmp_path / "data/made" / SIDECAR
    fields = json.loads(sidecar.read_text())
    fields["teachers"][0]["logit_scale"] = 50.0
    sidecar.write_text(json.dumps(fields))
    assert made(tmp_path / "data", student, tokenizer).identity != before
    fields["shards"][0]["digest"] = "0"
    sidecar.write_text(json.dumps(fields))
    with pytest.raises(DataError, match="shard 00000 is not the one that"):
        made(tmp_path / "data", student, tokenizer)


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


def test_datacompdr_is_trained_on_as_it_is(datacompdr: Path, student: ModelConfig, tokenizer: Tokenizer) -> None:
    source = {"dr": {"kind": "reinforced", "file": "."}}
    feed = ReinforcedFeed(recipe(datacompdr, source), datacompdr, student, tokenizer, 0)
    assert feed.widths == (16, 8) and feed.steps(0, STAGE) == 18 // 8
    batches = list(feed.batches(0, STAGE, 0))
    assert same(batches, feed.batches(0, STAGE, 0)) and sum(batch.unread for batch in batches) in (1, 2)
    stored = {}
    for tar in sorted(datacompdr.glob("*.tar")):
        for sample in read_index(tar)[0]:
            if not sample.key.endswith("4"):
                stored[group_number(sample.key)] = (sample, read_datacompdr(sample))
    pixels = dataclasses.replace(student.pixels, size=48)
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
    ("teachers", "said"),
    [
        ([{"identity": "a", "dim": 99, "logit_scale": 100}], r"teachers of \[99\] dimensions, but embeddings of 24"),
        ([], "at least one teacher"),
    ],
)
def test_a_datacompdr_sidecar_that_does_not_fit_is_refused(
    datacompdr: Path, tmp_path: Path, teachers: Any, said: str
) -> None:
    shutil.copytree(datacompdr, tmp_path / "dr")
    (tmp_path / "dr" / SIDECAR).write_text(json.dumps({"schema": 1, "layout": "datacompdr", "teachers": teachers}))
    with pytest.raises(DataError, match=said):
        ReinforcedSamples(recipe(tmp_path, {"dr": {"kind": "reinforced", "file": "dr"}}).photos, tmp_path)


def test_tars_without_pictures_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("a.paug.json", b"{}"), ("a.npz", b"")])
    fields = {"schema": 1, "layout": "datacompdr", "teachers": [{"identity": "a", "dim": 8, "logit_scale": 100}]}
    (tmp_path / SIDECAR).write_text(json.dumps(fields))
    with pytest.raises(DataError, match="join the tars with the pictures"):
        ReinforcedSamples(recipe(tmp_path, {"dr": {"kind": "reinforced", "file": "."}}).photos, tmp_path)


def online(home: Path, student: ModelConfig, tokenizer: Tokenizer, workers: int = 0, **overrides: Any) -> OnlineFeed:
    teachers = [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    plan: Recipe = recipe(home, SOURCES, teach="online", **overrides)
    return OnlineFeed(plan, home, student, tokenizer, teachers, workers)


def test_a_live_teacher_sees_the_student_s_crop_in_its_own_pixels(
    home: Path, student: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Image.Image, Augmentation, int]] = []

    def noted(picture: Image.Image, augmentation: Augmentation, px: int) -> Image.Image:
        seen.append((picture, augmentation, px))
        return apply(picture, augmentation, px)

    monkeypatch.setattr("distill.feeds.steps.apply", noted)
    feed = online(home, student, tokenizer)
    assert feed.steps(0, STAGE) == 58 // 8 and feed.widths == (24, 16)
    unread = 0
    for batch in feed.batches(0, STAGE, 0):
        assert len(seen) == len(batch.pixels) and batch.reference == () and len(batch.tokens) == len(batch.pixels) + 4
        unread += batch.unread
        for t, teacher in enumerate(feed.teachers):
            views = [apply(picture, augmentation, teacher.px) for picture, augmentation, _ in seen]
            expected = torch.nn.functional.normalize(torch.from_numpy(teacher.encode_pictures(views)), dim=1)
            assert torch.allclose(batch.teachers[t].image, expected, atol=1e-6)
        seen.clear()
    assert 1 <= unread <= 2


def test_online_batches_are_the_same_for_everyone(home: Path, student: ModelConfig, tokenizer: Tokenizer) -> None:
    alone, helped = (online(home, student, tokenizer, workers) for workers in (0, 2))
    assert same(alone.batches(1, STAGE, 0), helped.batches(1, STAGE, 0))
    assert same(list(alone.batches(0, STAGE, 0))[2:], alone.batches(0, STAGE, 2))
    assert same(alone.batches(0, TEXTS, 0), helped.batches(0, TEXTS, 0))
    assert not torch.equal(next(iter(alone.batches(0, STAGE, 0))).pixels, next(iter(alone.batches(1, STAGE, 0))).pixels)


def test_cached_vectors_of_tars_are_refused_with_advice(home: Path) -> None:
    from distill.data.corpus import Corpus

    with pytest.raises(DataError, match='set teach = "online", or run `pocketclip reinforce`'):
        Corpus.read(recipe(home, SOURCES), home)


def test_a_batch_that_does_not_divide_is_refused(
    home: Path, student: ModelConfig, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks(monkeypatch, 0, 3)
    for make in (made, online):
        with pytest.raises(ConfigError, match="8 is not a multiple of 3 processes"):
            make(home, student, tokenizer)

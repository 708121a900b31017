"""Stored embeddings are reproducible, whichever process makes a shard and whenever one is killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distill.data.augment import DECODE_MARGIN, Augmentation, apply
from distill.data.sources import list_photos
from distill.data.tables import DataError
from distill.data.tars import PhotoRef
from distill.feeds.reinforced import PocketclipFolder
from distill.reinforce.run import Reinforcer, assemble_teachers
from distill.reinforce.shards import Shard, Sidecar, compress
from mobileclip.errors import ConfigError, PocketclipError
from mobileclip.files import atomic_write
from tests.distill.mixed import SOURCES, TinyTeacher, recipe
from tests.distill.reinforce.common import TEXTS, no_report, reinforced


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything reinforced by two teachers, in float16."""
    return reinforced(data, tmp_path_factory.mktemp("made") / "out", [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)])


def test_the_sidecar_lists_teachers_and_shards(folder: Path) -> None:
    sidecar = Sidecar.load(folder)
    assert sidecar.complete and sidecar.normalised and sidecar.policy.dtype == "float16"
    assert [(t.identity, t.dim, t.logit_scale, t.px) for t in sidecar.teachers] == [
        ("tiny 0", 24, 30.0, 40),
        ("tiny 1", 16, 31.0, 28),
    ]
    photos, unread, texts = Counter(), Counter(), Counter()
    for entry in sidecar.shards:
        photos[entry.source] += entry.photos
        unread[entry.source] += entry.unread
        texts[entry.source] += entry.texts
    assert +photos == {"captioned": 28, "labeled": 12, "tars": 16} and +texts == {"words": 4}
    assert +unread == {"captioned": 2}
    assert [entry.source for entry in sidecar.shards] == ["captioned"] * 3 + ["labeled"] * 2 + ["tars"] * 2 + ["words"]


def test_photos_that_cannot_be_read_are_recorded_with_their_reason(folder: Path) -> None:
    unread = {line["photo"]: line["unread"] for line in lines(folder) if "unread" in line}
    assert unread == {"captioned/ö/3.jpg": "not an image", "captioned/ö/5.jpg": "missing"}
    assert not any("text" in line for line in lines(folder) if "unread" in line)


def test_captions_and_synthetic_captions_stay_with_their_photo(folder: Path, data: Path) -> None:
    rows = [json.loads(line) for line in (data / "captioned/captions.jsonl").open()]
    for line in lines(folder):
        if line.get("key", "").startswith("captioned/") and "unread" not in line:
            mine = [row for row in rows if f"captioned/{row['file']}" == line["photo"]]
            assert line["captions"] == list(dict.fromkeys(row["caption"] for row in mine))
            assert line["synthetic"] == list(dict.fromkeys(text for row in mine for text in row["synthetic"]))
    labeled = [line for line in lines(folder) if line["key"].startswith("labeled/")]
    assert {line["group"] for line in labeled} == {"cat", "dog", "boat"} and labeled[0]["captions"] == [
        "a cat",
        "cat",
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_stored_embeddings_are_the_teacher_s_to_the_last_bit(data: Path, tmp_path: Path, dtype: str) -> None:
    """Computed again with only JSON, Pillow and the teacher, without code of the writer."""
    teachers = [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    folder = reinforced(data, tmp_path / "out", teachers, **{"reinforcement.dtype": dtype})
    seen = Counter()
    for entry in Sidecar.load(folder).shards:
        shard = Shard(folder, entry.name)
        for row in range(entry.photos):
            line = shard.line(row)
            place = PhotoRef(data / line["photo"], tuple(line["place"]) if "place" in line else None)
            views = [Augmentation.decode(shard.row("augmentations", row, k).numpy()) for k in range(3)]
            picture = place.open(DECODE_MARGIN * 40)
            texts = line["captions"] + line["synthetic"]
            for t, teacher in enumerate(teachers):
                online = teacher.encode_pictures([apply(picture, view, teacher.px) for view in views])
                text_rows = teacher.encode_texts(texts)
                same(online, dtype, [stored(shard, f"image.{t}", row, k) for k in range(3)])
                same(text_rows, dtype, [stored(shard, f"text.{t}", line["text"] + i) for i in range(len(texts))])
            seen[entry.source] += 1
            assert len({tuple(view.encode().tolist()) for view in views}) == 3
    assert seen == {"captioned": 28, "labeled": 12, "tars": 16}


def stored(shard: Shard, name: str, *place: int) -> dict[str, torch.Tensor]:
    endings = ("", ".scale") if f"{name}.scale" in shard.names else ("",)
    return {ending: shard.row(name + ending, *place) for ending in endings}


def same(online: np.ndarray, dtype: str, rows: list[dict[str, torch.Tensor]]) -> None:
    rounded = compress(torch.from_numpy(online), dtype)
    for number, row in enumerate(rows):
        assert row.keys() == rounded.keys()
        for ending, value in row.items():
            assert torch.equal(value, rounded[ending][number])


def test_a_teacher_encodes_one_photo_at_a_time(data: Path, tmp_path: Path) -> None:
    """In a batch of another size, the last bits of an embedding differ."""
    teacher = TinyTeacher(0)
    reinforced(data, tmp_path / "out", [teacher])
    assert set(teacher.calls) == {3}


def test_texts_without_photos_have_their_own_shard(folder: Path) -> None:
    shard, teacher = Shard(folder, Sidecar.load(folder).shards[-1].name), TinyTeacher(0)
    texts = [shard.line(row)["captions"][0] for row in range(len(shard))]
    assert texts == ["a small boat", "two cats", "something blue", "red"]
    expected = compress(torch.from_numpy(teacher.encode_texts(texts)), "float16")[""]
    assert all(torch.equal(shard.row("text.0", shard.line(row)["text"]), expected[row]) for row in range(4))


def test_the_key_and_the_seed_determine_augmentations(folder: Path, data: Path, tmp_path: Path) -> None:
    """Not the shard, the worker or the order: other sizes of shards give the same augmentations."""

    def drawn(folder: Path) -> dict[str, list[float]]:
        found = {}
        for entry in Sidecar.load(folder).shards:
            shard = Shard(folder, entry.name)
            for row in range(entry.photos):
                found[shard.line(row)["key"]] = shard.tensors.get_slice("augmentations")[row].flatten().tolist()
        return found

    other = reinforced(data, tmp_path / "o/out", [TinyTeacher(0)], workers=2, **{"reinforcement.shard": 7})
    assert drawn(other) == drawn(folder)
    seeded = reinforced(data, tmp_path / "s/out", [TinyTeacher(0)], seed=1)
    assert drawn(seeded).keys() == drawn(folder).keys() and drawn(seeded) != drawn(folder)
    assert len({tuple(numbers) for numbers in drawn(folder).values()}) == 56


def test_a_second_run_does_nothing(folder: Path, data: Path) -> None:
    before, teachers = contents(folder), [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    reinforced(data, folder, teachers)
    assert contents(folder) == before and not teachers[0].calls


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ({"reinforcement.augmentations": 4}, "policy"),
        ({"seed": 3}, "seed"),
        ({"reinforcement.dtype": "int8"}, "policy"),
    ],
)
def test_another_reinforcement_in_the_same_folder_is_refused(
    folder: Path, data: Path, overrides: dict[str, Any], what: str
) -> None:
    plan = recipe(folder.parent, SOURCES, **TEXTS, **overrides)
    with pytest.raises(DataError, match=f"made with other {what}; use another --out"):
        Reinforcer(plan, data, folder, [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)], 0)


def test_other_teachers_or_captions_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,caption\nx.jpg,one\n")
    sources = {"c": {"kind": "captions", "file": "c.csv"}}
    Reinforcer(recipe(tmp_path, sources), tmp_path, tmp_path / "out", [TinyTeacher(0)], 0)
    with pytest.raises(DataError, match="other teachers"):
        Reinforcer(recipe(tmp_path, sources), tmp_path, tmp_path / "out", [TinyTeacher(1)], 0)
    (tmp_path / "c.csv").write_text("file,caption\nx.jpg,two\n")
    with pytest.raises(DataError, match="other basis"):
        Reinforcer(recipe(tmp_path, sources), tmp_path, tmp_path / "out", [TinyTeacher(0)], 0)


def test_unreadable_photos_make_an_empty_shard(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,caption\nx.jpg,one\n")
    plan = recipe(tmp_path, {"c": {"kind": "captions", "file": "c.csv"}})
    assert Reinforcer(plan, tmp_path, tmp_path / "out", [TinyTeacher(0)], 0).run(no_report) == 0
    assert Sidecar.load(tmp_path / "out").shards[0].unread == 1


def test_two_sources_with_the_same_name_are_refused(data: Path, tmp_path: Path) -> None:
    plan = recipe(tmp_path, SOURCES)
    plan = dataclasses.replace(plan, photos=(plan.photos[0], dataclasses.replace(plan.photos[1], name="captioned")))
    with pytest.raises(DataError, match="two sources are named captioned"):
        Reinforcer(plan, data, tmp_path / "out", [TinyTeacher(0)], 0)


WORK = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from distill.reinforce.run import Reinforcer
from tests.distill.mixed import SOURCES, TinyTeacher, recipe
from tests.distill.reinforce.common import TEXTS

class Slow(TinyTeacher):
    def encode_pictures(self, pictures):
        time.sleep(float(sys.argv[3]))
        print(".", flush=True)
        return super().encode_pictures(pictures)

data, out = Path(sys.argv[1]), Path(sys.argv[2])
plan = recipe(Path(sys.argv[4]), SOURCES, **TEXTS)
first = Slow(0)
reinforcer = Reinforcer(plan, data, out, [first, TinyTeacher(1, dim=16, px=28)], int(sys.argv[5]))
print("missing", reinforcer.run(lambda *_: None))
print("made", sum(first.calls) // 3)
"""


def start(data: Path, out: Path, seconds: float, own: Path, workers: int = 0) -> subprocess.Popen[str]:
    own.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", WORK, str(data), str(out), str(seconds), str(own), str(workers)]
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_two_processes_share_the_work(folder: Path, data: Path, tmp_path: Path) -> None:
    both = [start(data, tmp_path / "out", 0.03, tmp_path / f"{number}") for number in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    counts = [int(text.split("made")[1]) for text in outputs]
    assert sum(counts) == 56, "no photo was encoded twice"
    assert min(counts) > 0, "both took part"
    assert contents(tmp_path / "out") == contents(folder)


def test_a_kill_loses_at_most_one_shard(folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed = start(data, out, 0.02, tmp_path / "a", workers=1)
    assert killed.stdout is not None
    for _ in range(14):  # in the middle of a shard
        killed.stdout.readline()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = {path.name for path in out.glob("*.safetensors")}
    assert done and not Sidecar.load(out).complete
    with pytest.raises(PocketclipError, match="some shards are missing"):
        PocketclipFolder(out, data)
    deadline = time.monotonic() + 30
    while True:  # a dead process's own workers may hold its lock until they notice
        process = start(data, out, 0, tmp_path / "b")
        output = process.communicate(timeout=120)[0]
        if "missing 0" in output or time.monotonic() > deadline:
            break
    assert contents(out) == contents(folder)
    assert not list(out.glob("*.part"))


def test_a_shard_that_another_process_makes_is_skipped(data: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    out = tmp_path / "out"
    reinforcer = Reinforcer(recipe(tmp_path, SOURCES, **TEXTS), data, out, [TinyTeacher(0)], 0)
    with FileLock(out / ".00001.lock"):
        assert reinforcer.run(no_report) == 1
    assert not Sidecar.load(out).complete and reinforcer.run(no_report) == 0
    assert Sidecar.load(out).complete


def test_what_a_killed_process_was_writing_is_removed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reinforcer = Reinforcer(recipe(tmp_path, SOURCES), data, out, [TinyTeacher(0)], 0)
    with atomic_write(out / "00000.jsonl") as torn, atomic_write(out / "00001.safetensors") as torn_too:
        torn.touch()
        torn_too.touch()
    (out / "00001.safetensors").unlink()
    torn.write_bytes(b"torn")
    torn_too.write_bytes(b"torn")
    assert reinforcer.run(no_report) == 0 and not list(out.glob("*.part"))


def test_a_full_disk_gives_a_one_line_error(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reinforcer = Reinforcer(recipe(tmp_path, SOURCES), data, tmp_path / "out", [TinyTeacher(0)], 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mobileclip.files.os.fsync", full)
    with pytest.raises(PocketclipError, match="No space left on device"):
        reinforcer.run(no_report)
    assert not list((tmp_path / "out").glob("*.part"))
    monkeypatch.undo()
    assert reinforcer.run(no_report) == 0


def test_photos_are_stored_relative_to_the_data(folder: Path, data: Path) -> None:
    for line in lines(folder):
        if "photo" in line and "unread" not in line:
            assert not Path(line["photo"]).is_absolute() and (data / line["photo"]).is_file()


def test_reinforced_data_is_not_reinforced_again(data: Path, tmp_path: Path) -> None:
    plan = recipe(tmp_path, {"r": {"kind": "reinforced", "file": "x"}})
    with pytest.raises((DataError, ConfigError), match="reinforced already"):
        Reinforcer(plan, data, tmp_path / "out", [TinyTeacher(0)], 0)


def test_rows_belong_to_their_photos(folder: Path, data: Path) -> None:
    """The embedding of a view is closest to the row stored for its own photo."""
    teacher, entry = TinyTeacher(0), Sidecar.load(folder).shards[3]
    shard = Shard(folder, entry.name)
    for row in range(entry.photos):
        view = Augmentation.decode(shard.row("augmentations", row, 0).numpy())
        again = teacher.encode_pictures([apply(Image.open(data / shard.line(row)["photo"]), view, 40)])[0]
        scores = [float(again @ shard.vector("image.0", other, 0).numpy()) for other in range(entry.photos)]
        assert int(np.argmax(scores)) == row


def test_an_aligned_pair_is_fitted_to_tars_too(data: Path, encoders: Path, mixed_model: Path, tmp_path: Path) -> None:
    aligned = {"sentences": f"{encoders}/sentences", "embed_dim": 32, "hidden": 48, "epochs": 2, "batch": 8}
    backbone = {"trunk": "test_efficientnet", "weights": f"{encoders}/trunk.pth", "px": 64}
    aligned |= {"posterior_weight": 0.0, "backbones": [backbone]}
    plan = recipe(tmp_path, {"tars": SOURCES["tars"]}, aligned=aligned, open_clip=[])
    (teacher,) = assemble_teachers(plan, mixed_model, data, tmp_path / "teachers", no_report)
    photos = [sample.photo for sample in list_photos(plan.photos[0], data).photos]
    vectors = teacher.encode_images(photos)
    assert vectors.shape == (16, 32) and len(np.unique(vectors.round(5), axis=0)) == 16
    assert np.allclose(vectors[3], teacher.encode_pictures([photos[3].open()])[0], atol=1e-5)

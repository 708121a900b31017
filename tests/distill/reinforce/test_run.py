"""Stored vectors: those that are computed again, whoever made which shard, and whatever died in between."""

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
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distill.config import PhotoSource
from distill.data.augment import DECODE_MARGIN, Augmentation, apply
from distill.data.sources import DataError, read_photos
from distill.data.tars import PhotoRef
from distill.feeds.reinforced import PocketclipFolder
from distill.reinforce.run import Reinforcer
from distill.reinforce.shards import SIDECAR, Shard, Sidecar, compress, expand
from mobileclip.errors import ConfigError, PocketclipError
from tests.distill.reinforce.conftest import SOURCES, TinyTeacher, recipe

TEXTS = {"texts": [{"name": "words", "kind": "lines", "file": "words.txt"}]}


def nothing(*_: object) -> None:
    """Report to nobody."""


def made(data: Path, out: Path, teachers: list[TinyTeacher], workers: int = 0, **overrides: Any) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    plan = recipe(out.parent, SOURCES, **{**TEXTS, **overrides})
    assert Reinforcer(plan, data, out, teachers, workers).run(nothing) == 0
    return out


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything reinforced by two teachers, in float16."""
    return made(data, tmp_path_factory.mktemp("made") / "out", [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)])


def test_the_sidecar_says_what_is_there(folder: Path) -> None:
    sidecar = Sidecar.load(folder)
    assert sidecar.complete and sidecar.normalised and sidecar.policy.dtype == "float16"
    assert [(t.identity, t.dim, t.logit_scale, t.px) for t in sidecar.teachers] == [
        ("tiny 0", 24, 30.0, 40),
        ("tiny 1", 16, 31.0, 28),
    ]
    photos, unread, texts = Counter(), Counter(), Counter()
    for note in sidecar.shards:
        photos[note.source] += note.photos
        unread[note.source] += note.unread
        texts[note.source] += note.texts
    assert +photos == {"captioned": 28, "labelled": 12, "tars": 16} and +texts == {"words": 4}
    assert +unread == {"captioned": 2}
    assert [note.source for note in sidecar.shards] == ["captioned"] * 3 + ["labelled"] * 2 + ["tars"] * 2 + ["words"]


def test_photos_that_cannot_be_read_are_recorded_with_their_reason(folder: Path) -> None:
    unread = {line["photo"]: line["unread"] for line in lines(folder) if "unread" in line}
    assert unread == {"captioned/ö/3.jpg": "not an image", "captioned/ö/5.jpg": "missing"}
    assert not any("text" in line for line in lines(folder) if "unread" in line)


def test_captions_and_synthetic_ones_stay_with_their_photo(folder: Path, data: Path) -> None:
    rows = [json.loads(line) for line in (data / "captioned/captions.jsonl").open()]
    for line in lines(folder):
        if line.get("key", "").startswith("captioned/") and "unread" not in line:
            mine = [row for row in rows if f"captioned/{row['file']}" == line["photo"]]
            assert line["captions"] == list(dict.fromkeys(row["caption"] for row in mine))
            assert line["synthetic"] == list(dict.fromkeys(text for row in mine for text in row["synthetic"]))
    labelled = [line for line in lines(folder) if line["key"].startswith("labelled/")]
    assert {line["group"] for line in labelled} == {"cat", "dog", "boat"} and labelled[0]["captions"] == [
        "a cat",
        "cat",
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_what_is_stored_is_what_the_teacher_says_to_the_last_bit(data: Path, tmp_path: Path, dtype: str) -> None:
    """Read back with nothing but JSON, Pillow and the teacher itself: no vector is taken from the writer."""
    teachers = [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    folder = made(data, tmp_path / "out", teachers, **{"reinforcement.dtype": dtype})
    seen = Counter()
    for note in Sidecar.load(folder).shards:
        shard = Shard(folder, note.name)
        for row in range(note.photos):
            line = shard.line(row)
            place = PhotoRef(data / line["photo"], tuple(line["place"]) if "place" in line else None)
            views = [Augmentation.decode(shard.row("augmentations", row, k).numpy()) for k in range(3)]
            picture = place.open(DECODE_MARGIN * 40)
            said = line["captions"] + line["synthetic"]
            for t, teacher in enumerate(teachers):
                online = teacher.encode_pictures([apply(picture, view, teacher.px) for view in views])
                words = teacher.encode_texts(said)
                same(online, dtype, [stored(shard, f"image.{t}", row, k) for k in range(3)])
                same(words, dtype, [stored(shard, f"text.{t}", line["text"] + i) for i in range(len(said))])
            seen[note.source] += 1
            assert len({tuple(view.encode().tolist()) for view in views}) == 3
    assert seen == {"captioned": 28, "labelled": 12, "tars": 16}


def stored(shard: Shard, name: str, *place: int) -> dict[str, torch.Tensor]:
    endings = ("", ".scale") if f"{name}.scale" in shard.names else ("",)
    return {ending: shard.row(name + ending, *place) for ending in endings}


def same(online: np.ndarray, dtype: str, rows: list[dict[str, torch.Tensor]]) -> None:
    rounded = compress(torch.from_numpy(online), dtype)
    for number, row in enumerate(rows):
        assert row.keys() == rounded.keys()
        for ending, value in row.items():
            assert torch.equal(value, rounded[ending][number])


def test_a_teacher_is_asked_for_one_photo_at_a_time(data: Path, tmp_path: Path) -> None:
    """In a batch of another size the last bits of a vector are others."""
    teacher = TinyTeacher(0)
    made(data, tmp_path / "out", [teacher])
    assert set(teacher.calls) == {3}


def test_texts_without_photos_are_kept_apart(folder: Path) -> None:
    shard, teacher = Shard(folder, Sidecar.load(folder).shards[-1].name), TinyTeacher(0)
    said = [shard.line(row)["captions"][0] for row in range(len(shard))]
    assert said == ["a small boat", "two cats", "something blue", "red"]
    expected = compress(torch.from_numpy(teacher.encode_texts(said)), "float16")[""]
    assert all(torch.equal(shard.row("text.0", shard.line(row)["text"]), expected[row]) for row in range(4))


def test_augmentations_follow_from_the_key_and_the_seed(folder: Path, data: Path, tmp_path: Path) -> None:
    """Not from the shard, the worker or the order: another cutting into shards gives the very same."""

    def drawn(folder: Path) -> dict[str, list[float]]:
        found = {}
        for note in Sidecar.load(folder).shards:
            shard = Shard(folder, note.name)
            for row in range(note.photos):
                found[shard.line(row)["key"]] = shard.tensors.get_slice("augmentations")[row].flatten().tolist()
        return found

    other = made(data, tmp_path / "o/out", [TinyTeacher(0)], workers=2, **{"reinforcement.shard": 7})
    assert drawn(other) == drawn(folder)
    seeded = made(data, tmp_path / "s/out", [TinyTeacher(0)], seed=1)
    assert drawn(seeded).keys() == drawn(folder).keys() and drawn(seeded) != drawn(folder)
    assert len({tuple(numbers) for numbers in drawn(folder).values()}) == 56


def test_a_second_run_does_nothing(folder: Path, data: Path) -> None:
    before, teachers = contents(folder), [TinyTeacher(0), TinyTeacher(1, dim=16, px=28)]
    made(data, folder, teachers)
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


def test_photos_none_of_which_can_be_read_make_an_empty_shard(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("file,caption\nx.jpg,one\n")
    plan = recipe(tmp_path, {"c": {"kind": "captions", "file": "c.csv"}})
    assert Reinforcer(plan, tmp_path, tmp_path / "out", [TinyTeacher(0)], 0).run(nothing) == 0
    assert Sidecar.load(tmp_path / "out").shards[0].unread == 1


def test_two_sources_of_one_name_are_refused(data: Path, tmp_path: Path) -> None:
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
from tests.distill.reinforce.conftest import SOURCES, TinyTeacher, recipe
from tests.distill.reinforce.test_run import TEXTS

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
    said = [process.communicate(timeout=120)[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    counts = [int(text.split("made")[1]) for text in said]
    assert sum(counts) == 56, "no photo was encoded twice"
    assert min(counts) > 0, "both took part"
    assert contents(tmp_path / "out") == contents(folder)


def test_a_kill_loses_no_more_than_a_shard(folder: Path, data: Path, tmp_path: Path) -> None:
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
        said = process.communicate(timeout=120)[0]
        if "missing 0" in said or time.monotonic() > deadline:
            break
    assert contents(out) == contents(folder)
    assert not list(out.glob("*.part"))


def test_a_shard_that_another_process_holds_is_left_to_it(data: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    out = tmp_path / "out"
    reinforcer = Reinforcer(recipe(tmp_path, SOURCES, **TEXTS), data, out, [TinyTeacher(0)], 0)
    with FileLock(out / ".00001.lock"):
        assert reinforcer.run(nothing) == 1
    assert not Sidecar.load(out).complete and reinforcer.run(nothing) == 0
    assert Sidecar.load(out).complete


def test_a_full_disk_is_one_clear_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reinforcer = Reinforcer(recipe(tmp_path, SOURCES), data, tmp_path / "out", [TinyTeacher(0)], 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("distill.files.os.fsync", full)
    with pytest.raises(PocketclipError, match="No space left on device"):
        reinforcer.run(nothing)
    assert not list((tmp_path / "out").glob("*.part"))
    monkeypatch.undo()
    assert reinforcer.run(nothing) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "not of schema 1"),
        (b'{"schema": 2, "layout": "pocketclip", "teachers": []}', "not of schema 1"),
        (b'{"schema": 1, "layout": "pocketclip", "teachers": []}', "at least one teacher"),
        (b'{"schema": 1, "layout": "other", "teachers": []}', "none of pocketclip, datacompdr"),
        (b'{"schema": 1, "layout": "pocketclip", "teachers": [{"identity": "x"}]}', "dim is missing"),
        (b'{"schema": 1, "layout": "pocketclip", "teachers": [], "new": 1}', "unknown setting new"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_one_clear_line(tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / SIDECAR).write_bytes(text)
    with pytest.raises(PocketclipError, match=said) as caught:
        Sidecar.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_sidecar_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `pocketclip reinforce`, or for DataCompDR tars"):
        Sidecar.load(tmp_path)


def test_a_damaged_shard_is_one_clear_line(data: Path, tmp_path: Path) -> None:
    out = made(data, tmp_path / "out", [TinyTeacher(0)])
    (out / "00000.jsonl").write_bytes((out / "00000.jsonl").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"does not belong to the \.jsonl next to it"):
        Shard(out, "00000")
    (out / "00001.safetensors").write_bytes((out / "00001.safetensors").read_bytes()[:50])
    with pytest.raises(DataError, match="cannot be read"):
        Shard(out, "00001")
    (out / "00002.jsonl").unlink()
    with pytest.raises(DataError, match="No such file"):
        Shard(out, "00002")


VECTORS = st.lists(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=5)


@given(VECTORS)
def test_int8_is_off_by_half_a_step_at_most(rows: list[list[float]]) -> None:
    vectors = torch.tensor(rows)
    packed = compress(vectors, "int8")
    assert packed[""].dtype == torch.int8 and packed[".scale"].shape == (len(rows), 1)
    error = (packed[""].float() * packed[".scale"] - vectors).abs()
    assert (error <= vectors.abs().amax(dim=1, keepdim=True) / 254 * 1.001 + 1e-30).all()


@pytest.mark.parametrize(("dtype", "cosine"), [("float16", 0.999999), ("bfloat16", 0.99999), ("int8", 0.9998)])
def test_stored_vectors_are_unit_vectors_close_to_their_own(dtype: Any, cosine: float) -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(50, 512), dim=-1)
    packed = compress(vectors, dtype)
    back = expand(packed[""], packed.get(".scale"))
    assert torch.allclose(back.norm(dim=-1), torch.ones(50)) and (back * vectors).sum(dim=-1).min() > cosine


def test_photos_are_named_relative_to_the_data(folder: Path, data: Path) -> None:
    for line in lines(folder):
        if "photo" in line and "unread" not in line:
            assert not Path(line["photo"]).is_absolute() and (data / line["photo"]).is_file()


def test_reinforced_data_are_not_reinforced_again(data: Path, tmp_path: Path) -> None:
    plan = recipe(tmp_path, {"r": {"kind": "reinforced", "file": "x"}})
    with pytest.raises((DataError, ConfigError), match="reinforced already"):
        Reinforcer(plan, data, tmp_path / "out", [TinyTeacher(0)], 0)


def test_rows_and_photos_do_not_come_out_of_step(folder: Path, data: Path) -> None:
    """A view's vector is nearest to the one stored beside its own photo's line, not to a neighbour's."""
    teacher, note = TinyTeacher(0), Sidecar.load(folder).shards[3]
    shard = Shard(folder, note.name)
    for row in range(note.photos):
        view = Augmentation.decode(shard.row("augmentations", row, 0).numpy())
        again = teacher.encode_pictures([apply(Image.open(data / shard.line(row)["photo"]), view, 40)])[0]
        scores = [float(again @ shard.vector("image.0", other, 0).numpy()) for other in range(note.photos)]
        assert int(np.argmax(scores)) == row


def test_synthetic_captions_in_every_kind_of_table(tmp_path: Path) -> None:
    """A text, a JSON list of texts, something that only looks like a list, nothing, null."""
    said = ["one", '["two", " three ", ""]', "[no list", ""]
    rows = "".join(f'x.jpg\tc\t"{text.replace(chr(34), chr(34) * 2)}"\n' for text in said)
    (tmp_path / "c.tsv").write_text("file\tcaption\tsynthetic\n" + rows)
    lists = [{"synthetic": ["two", "three"]}, {"synthetic": "[no list"}, {"synthetic": None}, {}]
    lines = [{"file": "x.jpg", "caption": "c", **fields} for fields in ({"synthetic": "one"}, *lists)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("c.tsv", "c.jsonl"):
        (sample,) = read_photos(PhotoSource("c", "captions", name), tmp_path)
        assert sample.texts == ("c",) and sample.synthetic == ("one", "two", "three", "[no list")

"""WebDataset tars: damage to a sample doesn't affect others, and nothing in a tar is executed."""

import gzip
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distill.config import PhotoSource
from distill.data.sources import captioned, list_photos, read_tar
from distill.data.tables import DataError
from distill.data.tars import SampleError, TarSample, find_tars, read_datacompdr, read_index
from mobileclip.errors import PhotoError
from tests.distill.mixed import encoded, jpeg, npz, write_tar

SOURCE = PhotoSource("s", "webdataset", ".", templates=("a photo of {}",), names={"boat": "small boat"})


def good(key: str, number: int) -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", jpeg(number)), (f"{key}.txt", f"photo {number}".encode())]


def captions(tar: Path) -> dict[str, tuple[str, ...] | str]:
    """Return each sample's captions, or why it has none."""
    found: dict[str, tuple[str, ...] | str] = {}
    for sample in read_index(tar)[0]:
        try:
            found[sample.key] = captioned(sample, SOURCE, sample.tar.parent).captions
        except SampleError as error:
            found[sample.key] = str(error)
    return found


def test_the_same_samples_as_webdataset(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(5):
            writer.write(
                {"__key__": f"set/{number:03}", "jpg": jpeg(number), "txt": f"n {number}", "json": {"uid": number}}
            )
    theirs = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    ours, omissions = read_index(tmp_path / "a.tar")
    assert not omissions and [sample.key for sample in ours] == [sample["__key__"] for sample in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert {name: mine.read(name) for name in ("jpg", "txt", "json")} == {
            n: other[n] for n in ("jpg", "txt", "json")
        }


def test_captions_come_from_text_or_json(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "a.tar",
        [
            ("1.jpg", b"x"),
            ("1.txt", " grüße 🏖 \n".encode()),
            ("2.png", b"x"),
            ("2.json", encoded({"caption": "one", "width": 3})),
            ("3.webp", b"x"),
            ("3.json", encoded({"texts": ["a", " ", "b"]})),
            ("4.JPG", b"x"),
            ("4.txt", b"two words"),
            ("4.syn.json", encoded({"syn_text": ["s1", "s2"], "syn_text_v2": ["s3"], "other": [1]})),
            ("./p/5.jpg", b"x"),
            ("./p/5.txt", b"below"),
        ],
    )
    assert captions(tar) == {
        "1": ("grüße 🏖",),
        "2": ("one",),
        "3": ("a", "b"),
        "4": ("two words",),
        "./p/5": ("below",),
    }
    four = next(sample for sample in read_index(tar)[0] if sample.key == "4")
    assert (
        captioned(four, SOURCE, four.tar.parent).synthetic == ("s1", "s2", "s3")
        and captioned(four, SOURCE, four.tar.parent).key == "s/a/4"
    )


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("b.txt", b"no picture")], "no picture"),
        ([("b.jpg", b"x")], "no caption"),
        ([("b.jpg", b"x"), ("b.txt", b"  ")], "no caption"),
        ([("b.jpg", b"x"), ("b.txt", b"\xff\xfe")], "not UTF-8"),
        ([("b.jpg", b"x"), ("b.json", b"{")], "not JSON"),
        ([("b.jpg", b"x"), ("b.json", b"[1]")], "not a JSON object"),
        ([("b.jpg", b"x"), ("b.json", encoded({"caption": 5}))], "not a text"),
        ([("b.jpg", b"x"), ("b.txt", b"t"), ("b.syn.json", encoded({"syn_text": [None]}))], "not a text"),
        ([("b.jpg", b"x"), ("b.json", b"[" * 100_000)], "not JSON"),
    ],
)
def test_an_incomplete_sample_gives_a_reason_and_leaves_the_others(
    tmp_path: Path, members: list[tuple[str, bytes]], reason: str
) -> None:
    found = captions(write_tar(tmp_path / "a.tar", [*good("a", 1), *members, *good("c", 2)]))
    assert found["a"] == ("photo 1",) and found["c"] == ("photo 2",)
    assert reason in str(found["b"])


def test_a_damaged_picture_is_a_photo_error(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "a.tar", [("a.jpg", jpeg(0)[:-200]), ("a.txt", b"t"), ("b.jpg", b"text"), ("b.txt", b"t")]
    )
    for sample, reason in zip(read_index(tar)[0], ("truncated", "not an image"), strict=True):
        with pytest.raises(PhotoError) as caught:
            captioned(sample, SOURCE, sample.tar.parent).photo.open()
        assert caught.value.reason == reason


def test_a_photo_is_drafted_but_never_too_small(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [("a.jpg", jpeg(0, (800, 640))), ("a.txt", b"t")])
    photo = read_index(tar)[0][0].photo
    assert photo.open().size == (800, 640) and photo.open(min_side=300).size == (400, 320)


@pytest.mark.parametrize("cut", [700, 2_000, 5_000, 9_000])
def test_a_truncated_tar_gives_the_samples_before_its_end(tmp_path: Path, cut: int) -> None:
    whole = write_tar(tmp_path / "whole.tar", [pair for number in range(4) for pair in good(f"{number}", number)])
    expected = captions(whole)
    torn = tmp_path / "torn.tar"
    torn.write_bytes(whole.read_bytes()[:cut])
    samples, omissions = read_index(torn)
    assert omissions and len(samples) < 4
    for key, found in captions(torn).items():
        assert found == expected[key] or "no " in str(found)
    assert list(captions(torn)) == list(expected)[: len(samples)]


def test_a_damaged_header_ends_a_tar_and_is_listed(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [pair for number in range(4) for pair in good(f"{number}", number)])
    data = bytearray(tar.read_bytes())
    at = data.index(b"2.jpg")
    data[at : at + 300] = b"\xa5" * 300
    tar.write_bytes(data)
    samples, omissions = read_index(tar)
    assert [sample.key for sample in samples] == ["0", "1"] and "damaged after 1.txt" in omissions[-1].reason


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_tar_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    tar = tmp_path_factory.getbasetemp() / "any.tar"
    tar.write_bytes(data)
    samples, omissions = read_index(tar)
    assert samples or omissions


def test_a_second_member_with_the_same_name_is_listed(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [*good("a", 1), ("a.txt", b"another"), *good("b", 2)])
    assert captions(tar) == {"a": ("photo 1",), "b": ("photo 2",)}
    assert read_index(tar)[1] == [("a.txt", "a second member of this name")]


def test_keys_of_two_tars_do_not_mix(tmp_path: Path) -> None:
    """The last sample of a truncated tar has the same key as the first of the next."""
    first = write_tar(tmp_path / "s/0.tar", [*good("x", 1)])
    write_tar(tmp_path / "s/1.tar", [*good("x", 2)])
    first.write_bytes(first.read_bytes()[: first.read_bytes().index(b"x.txt")])
    found = [captions(tar) for tar in find_tars(tmp_path / "s")]
    assert found == [{"x": "no caption"}, {"x": ("photo 2",)}]


def test_different_names_that_are_not_utf8_stay_different(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [*good("k1", 1), *good("k2", 2)])
    tar.write_bytes(_with_names(tar.read_bytes(), {b"k1.": b"\xe4\xff.", b"k2.": b"\xe4\xfe."}))
    samples, _ = read_index(tar)
    keys = [captioned(sample, SOURCE, sample.tar.parent).key for sample in samples]
    assert len(set(keys)) == 2 and json.loads(json.dumps(keys)) == keys


def _with_names(data: bytes, renamed: dict[bytes, bytes]) -> bytes:
    """Rename members of a tar and correct the checksum in their headers."""
    blocks = bytearray(data)
    for start in range(0, len(blocks), 512):
        for old, new in renamed.items():
            if blocks[start : start + len(old)] == old and blocks[start + 257 : start + 262] == b"ustar":
                blocks[start : start + len(old)] = new
                blocks[start + 148 : start + 156] = b" " * 8
                blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks)


def test_tars_are_found_by_file_folder_or_pattern(tmp_path: Path) -> None:
    paths = [write_tar(tmp_path / f"{number}.tar", good("a", number)) for number in range(3)]
    assert find_tars(tmp_path) == paths and find_tars(tmp_path / "[01].tar") == paths[:2]
    assert find_tars(paths[2]) == paths[2:]
    with pytest.raises(DataError, match=r"no \.tar found"):
        find_tars(tmp_path / "none")
    (tmp_path / "3.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"3\.tar\.gz: a compressed tar"):
        find_tars(tmp_path)


class Harm:
    """Unpickling this touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def reinforced(views: int = 2, width: int = 6, **members: bytes) -> list[tuple[str, bytes]]:
    """Return a sample in the layout of DataCompDR, with members replaced or, if empty, left out."""
    random = np.random.default_rng(0)
    boxes = [[[1, 2, 30, 40], [[1, 0.09], [3, -30.4532]]]] * views
    made = {
        "jpg": jpeg(1),
        "txt": b"a caption",
        "url.txt": b"http://example.org",
        "json": encoded({"uid": "u", "sha256": "0"}),
        "syn.json": encoded({"syn_text": ["one", "two"]}),
        "paug.json": encoded({"param_aug": boxes}),
        "npz": npz(
            image_emb=random.normal(size=(views, width)).astype(np.float32),
            text_emb=random.normal(size=(3, width)).astype(np.float32),
        ),
    }
    made |= {name.replace("_", "."): data for name, data in members.items()}
    return [(f"u.{name}", data) for name, data in made.items() if data]


def only_sample(tmp_path: Path, members: list[tuple[str, bytes]]) -> TarSample:
    (sample,), _ = read_index(write_tar(tmp_path / "dr.tar", members))
    return sample


def test_datacompdr_is_read(tmp_path: Path) -> None:
    stored = read_datacompdr(only_sample(tmp_path, reinforced()))
    assert stored.texts == ("a caption", "one", "two") and stored.captions == 1
    assert stored.image.shape == (2, 6) and stored.text.shape == (3, 6) and stored.image.dtype == np.float32
    assert stored.augmentations[0] == [[1, 2, 30, 40], [[1, 0.09], [3, -30.4532]]]


def test_datacompdr_in_its_other_layouts(tmp_path: Path) -> None:
    """Parameters as a JSON string (apple/DataCompDR-1B), separate embeddings of synthetic captions (DFNDR), pth.gz."""
    arrays = {"image_emb": np.ones((2, 6), np.float16), "text_emb": np.ones((1, 6)), "syn_text_emb": np.zeros((2, 6))}
    text = json.dumps([[[0, 0, 9, 9], None]] * 2)
    stored = read_datacompdr(
        only_sample(tmp_path, reinforced(npz=npz(**arrays), paug_json=encoded({"param_aug": text})))
    )
    assert stored.text.tolist() == [[1.0] * 6, [0.0] * 6, [0.0] * 6] and stored.augmentations[1] == [[0, 0, 9, 9], None]
    stream = io.BytesIO()
    torch.save({"image_emb": torch.ones(2, 6, dtype=torch.bfloat16), "text_emb": torch.ones(3, 6)}, stream)
    packed = gzip.compress(stream.getvalue())
    assert read_datacompdr(only_sample(tmp_path, reinforced(npz=b"", pth_gz=packed))).image.tolist() == [[1.0] * 6] * 2


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"npz": b""}, "no pth.gz"),
        ({"npz": b"PK\x03\x04 torn"}, "embeddings"),
        ({"npz": npz(image_emb=np.ones((1, 6)), text_emb=np.ones((3, 6)))}, "2 augmentations and 3 texts"),
        ({"npz": npz(image_emb=np.ones((2, 6)), text_emb=np.ones((2, 6)))}, "2 augmentations and 3 texts"),
        ({"npz": npz(image_emb=np.ones((2, 6), int), text_emb=np.ones((3, 6)))}, "floating-point"),
        ({"npz": npz(image_emb=np.ones((2, 6)))}, "no image_emb and text_emb"),
        ({"paug_json": b""}, "no paug.json"),
        ({"paug_json": encoded({"param_aug": "[["})}, "not JSON"),
        ({"paug_json": encoded({"param_aug": {}})}, "no param_aug"),
        ({"txt": b""}, "no caption"),
        ({"npz": b"", "pth_gz": b"no gzip"}, "embeddings"),
        ({"npz": b"", "pth_gz": gzip.compress(b"no tensors")}, "embeddings"),
    ],
)
def test_invalid_datacompdr_gives_a_reason(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    with pytest.raises(SampleError, match=reason):
        read_datacompdr(only_sample(tmp_path, reinforced(**members)))


def test_nothing_in_a_tar_is_executed(tmp_path: Path) -> None:
    """Pickles under all names that webdataset's decoders would open, and inside the arrays."""
    touched = tmp_path / "touched"
    harm = pickle.dumps(Harm(touched), protocol=2)
    stream = io.BytesIO()
    torch.save(Harm(touched), stream)
    objects = io.BytesIO()
    np.savez(objects, image_emb=np.array([Harm(touched)], object), text_emb=np.ones((3, 6)))
    extra = [(f"u.{name}", harm) for name in ("pkl", "pyd", "pickle", "pth", "pt", "cls", "npy", "ten", "pkl.gz")]
    samples = {
        "npz": reinforced(npz=objects.getvalue()) + extra,
        "pth.gz": reinforced(npz=b"", pth_gz=gzip.compress(stream.getvalue())),
        "pickle in pth.gz": reinforced(npz=b"", pth_gz=gzip.compress(harm)),
        "pickle in npz": reinforced(npz=harm),
    }
    for members in samples.values():
        sample = only_sample(tmp_path, members)
        assert captioned(sample, SOURCE, sample.tar.parent).captions == ("a caption",)
        with pytest.raises(SampleError, match="embeddings"):
            read_datacompdr(sample)
    assert not touched.exists()
    pickle.loads(harm)
    assert touched.exists(), "the test would notice"


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.data.tars._LARGEST_ARRAY", 2**20)
    zeros = gzip.compress(bytes(2**22))
    large = npz(image_emb=np.zeros((2, 2**18)), text_emb=np.zeros((3, 2**18)))
    for members in ({"npz": b"", "pth_gz": zeros}, {"npz": large}):
        with pytest.raises(SampleError, match="too large"):
            read_datacompdr(only_sample(tmp_path, reinforced(**members)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["json", "syn.json", "paug.json"]), st.sampled_from(["caption", "syn_text", "param_aug"]))
def test_any_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: Any, member: str, name: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = json.dumps({name: value}).encode("utf-8", "surrogatepass")
    sample = only_sample(
        folder, [("u.jpg", b"x"), (f"u.{member}", text), *([("u.txt", b"t")] if member != "json" else [])]
    )
    for read in (lambda: captioned(sample, SOURCE, sample.tar.parent), lambda: read_datacompdr(sample)):
        try:
            read()
        except SampleError as error:
            assert str(error)


def test_pictures_larger_than_allowed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    sample = only_sample(tmp_path, good("a", 1))
    with pytest.raises(PhotoError, match="too large"):
        sample.photo.open()


@pytest.mark.parametrize("above", [False, True])
def test_a_cls_member_is_a_label(tmp_path: Path, above: bool) -> None:
    """A number of CLIP_benchmark's `classnames.txt`, or a name; a caption comes first."""
    cases = {"0": b"0", "1": b" 1\n", "2": b"boat", "3": b"7", "4": b"", "5": b"\xff"}
    members = [
        (f"{key}.{suffix}", data) for key, cls in cases.items() for suffix, data in (("jpg", b"x"), ("cls", cls))
    ]
    members += [("7.jpg", b"x"), ("7.cls", b"1"), ("7.txt", b"a caption")]
    members += [("8.jpg", b"x"), ("8.cls", b"1"), ("8.json", encoded({"caption": "in json"}))]
    members += [("9.jpg", b"x"), ("9.cls", b"1"), ("9.json", encoded({"width": 3}))]
    tar = write_tar(tmp_path / "test/0.tar", members)
    (tmp_path / ("." if above else "test") / "classnames.txt").write_text("Hot_dog\ncat\n")
    found = captions(tar)
    assert found["0"] == ("a photo of hot dog",) and found["1"] == found["9"] == ("a photo of cat",)
    assert found["2"] == ("a photo of small boat",)
    assert found["3"] == "cls: a number beyond the 2 names in classnames.txt"
    assert (found["4"], found["5"]) == ("cls: empty", "cls: not UTF-8")
    assert (found["7"], found["8"]) == (("a caption",), ("in json",))
    groups = {s.key: captioned(s, SOURCE, s.tar.parent).group for s in read_index(tar)[0] if s.key in "179"}
    assert groups == {"1": "cat", "9": "cat", "7": "s/0/7"}


def test_unusable_samples_are_left_out_with_a_reason(tmp_path: Path) -> None:
    members = [*good("a", 1), ("b.txt", b"no picture"), ("c.jpg", b"x"), ("d.png", b"x"), ("d.cls", b"dog")]
    samples, omissions = read_tar(
        write_tar(tmp_path / "a.tar", [*members, ("e.jpg", b"x"), ("e.txt", b" ")]), SOURCE, tmp_path
    )
    assert [(sample.key, sample.group) for sample in samples] == [("s/a/a", "s/a/a"), ("s/a/d", "dog")]
    assert omissions == [("b", "no picture"), ("c", "no caption"), ("e", "no caption")]


def test_numbered_classes_without_names_are_one_line(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [*good("a", 1), ("d.png", b"x"), ("d.cls", b"1")])
    with pytest.raises(DataError, match=r"a\.tar: d: class 1 has no name; put classnames.txt next to the tars"):
        read_tar(tar, SOURCE, tmp_path)


def test_tars_of_the_same_name_in_two_folders_have_different_keys(tmp_path: Path) -> None:
    """Otherwise their photos would count as the same. The keys don't depend on where the data folder is."""
    keys = []
    for place in ("here", "there"):
        for folder in ("train", "val"):
            write_tar(tmp_path / place / folder / "000.tar", good("x", 1))
        source = PhotoSource("s", "webdataset", "{train,val}/*.tar")
        keys.append([photo.key for photo in list_photos(source, tmp_path / place).photos])
    assert keys[0] == keys[1] == ["s/train/000/x", "s/val/000/x"]

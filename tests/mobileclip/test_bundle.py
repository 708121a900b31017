import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobileclip
import mobileclip.bundle
from mobileclip.bundle import Bundle, find_bundle, named_bundles, write_bundle
from mobileclip.errors import BundleError, ConfigError
from mobileclip.manifest import SCHEMA, Manifest


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(folder: Path, inside: str = "") -> Path:
    path = folder.with_suffix(f".{len(inside)}.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, inside + file.name)
    return path


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def error_of(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_written_bundle_is_read_back(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "bundles" / "tiny")
    assert sorted(p.name for p in folder.iterdir()) == sorted([*tiny.files, "manifest.json"])
    assert [p.name for p in folder.parent.iterdir()] == ["tiny"]
    bundle = Bundle(folder)
    assert bundle.manifest.name == "tiny"
    assert bundle.manifest.pixels.size == 8
    for name, data in tiny.files.items():
        assert bundle.read(name) == data and bundle.manifest.files[name].bytes == len(data)
    answers = bundle.known_answers()
    assert answers.pixels.shape == (3, 8, 8, 3) and answers.tokens.shape == (3, 12)
    assert bundle.label_vectors(2).shape == (2, 4)


def test_a_zip_is_a_bundle_with_or_without_its_folder(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "tiny")
    for inside in ("", "tiny/"):
        bundle = Bundle(zipped(folder, inside))
        assert bundle.read("text.onnx") == tiny.files["text.onnx"]


def test_unlisted_files_do_not_matter(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "tiny")
    (folder / "README.md").write_text("a model card")
    with pytest.raises(BundleError, match="does not list"):
        Bundle(folder).read("README.md")


def test_missing_bundle_and_missing_parts(tiny: Any, tmp_path: Path) -> None:
    assert "no such model bundle" in error_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "manifest.json is missing" in error_of(tmp_path / "empty")
    folder = tiny.write(tmp_path / "tiny")
    (folder / "image.onnx").unlink()
    assert "image.onnx is missing" in error_of(folder)
    assert "image.onnx is missing" in error_of(zipped(folder))
    (folder / "image.onnx").mkdir()
    assert "image.onnx is missing" in error_of(folder)


@pytest.mark.parametrize("change", ["flip", "shorter", "longer"])
def test_an_altered_file_is_an_error(tiny: Any, tmp_path: Path, change: str) -> None:
    folder = tiny.write(tmp_path / "tiny")
    for name in tiny.files:
        data = tiny.files[name]
        altered = {"flip": data[:-1] + bytes([data[-1] ^ 1]), "shorter": data[:-1], "longer": data + b"!"}[change]
        (folder / name).write_bytes(altered)
        assert f"{name} was altered or damaged" in error_of(folder)
        assert f"{name} was altered or damaged" in error_of(zipped(folder))
        (folder / name).write_bytes(data)
    Bundle(folder)


def test_a_file_altered_after_opening_is_an_error(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "tiny")
    bundle = Bundle(folder)
    (folder / "text.onnx").write_bytes(b"something else")
    with pytest.raises(BundleError, match="altered"):
        bundle.read("text.onnx")


def test_a_newer_schema_asks_for_an_update(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "tiny")
    # Everything else may look different in a newer bundle.
    (folder / "manifest.json").write_text(json.dumps({"schema": SCHEMA + 1, "towers": []}))
    message = error_of(folder)
    assert "made by a newer pocketclip" in message and "update" in message


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"schema": "1"}', '{"schema": true}', "[" * 100_000, "\xff"])
def test_anything_but_a_manifest_is_an_error(tiny: Any, tmp_path: Path, text: str) -> None:
    folder = tiny.write(tmp_path / "tiny")
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    message = error_of(folder)
    assert "manifest.json" in message and ("not JSON" in message or "no schema" in message)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": None}, "name"),
        ({"licence": 3}, "licence"),
        ({"embed_dim": 0}, "embed_dim"),
        ({"embed_dim": 4.0}, "embed_dim"),
        ({"logit_scale": float("nan")}, "logit_scale"),
        ({"logit_scale": "50"}, "logit_scale"),
        ({"tokenizer": []}, "tokenizer"),
        ({"tokenizer": {"file": "merges.txt.gz", "context_length": 12}}, "vocab_size"),
        ({"tokenizer": {"file": "merges.txt.gz", "context_length": 12, "vocab_size": 5}}, "vocab_size"),
        ({"tokenizer": {"file": "none.gz", "context_length": 12, "vocab_size": 518}}, "none.gz"),
        ({"tokenizer": {"file": "merges.txt.gz", "context_length": 12, "vocab_size": 518, "causal": 1}}, "causal"),
        ({"towers": {}}, "towers"),
        ({"towers": {"onnx": {"image": "image.onnx"}}}, "towers: onnx: text is missing"),
        ({"towers": {"onnx": {"image": "image.onnx", "text": "../text.onnx"}}}, "../text.onnx"),
        ({"pixels": {}}, "pixels: size is missing"),
        ({"pixels": 3}, "pixels: a table is needed"),
        ({"labels": "other.toml"}, "other.toml"),
        ({"files": None}, "files"),
        ({"files": {"image.onnx": {"sha256": "abc", "bytes": 3}}}, "sha256"),
        ({"files": {"image.onnx": {"sha256": "0" * 64, "bytes": -3}}}, "sha256"),
    ],
)
def test_a_wrong_field_of_the_manifest_is_named(tiny: Any, tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    folder = tiny.write(tmp_path / "tiny")
    rewrite(folder, **changes)
    assert named in error_of(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "a/../../b",
        "C:evil",
        "a\\b",
        "",
        ".",
        "..",
        ".hidden",
        "a//b",
        "nul\0",
        "manifest.json",
        "a b",
    ],
)
def test_hostile_file_names_are_refused(tiny: Any, tmp_path: Path, name: str) -> None:
    folder = tiny.write(tmp_path / "tiny")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    rewrite(folder, files={**manifest["files"], name: {"sha256": "0" * 64, "bytes": 1}})
    assert "not an acceptable file name" in error_of(folder)
    with pytest.raises(BundleError, match="not an acceptable file name"):
        write_bundle(tmp_path / "other", Manifest.from_dict(tiny.fields), {**tiny.files, name: b""})
    assert not (tmp_path / "other").exists()


def test_anything_but_a_bundle_in_a_zip_is_an_error(tmp_path: Path, tiny: Any) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 not really")
    assert "neither a folder nor a .zip" in error_of(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("other.txt", "hello")
    assert "manifest.json is missing" in error_of(tmp_path / "b.zip")
    whole = zipped(tiny.write(tmp_path / "tiny"))
    damaged = bytearray(whole.read_bytes())
    damaged[60:90] = b"!" * 30
    whole.write_bytes(damaged)
    error_of(whole)


def test_a_zip_bomb_is_not_unpacked(tiny: Any, tmp_path: Path) -> None:
    path = zipped(tiny.write(tmp_path / "tiny"))
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, b"\0" * 300_000_000 if name == "image.onnx" else data)
    read: list[int] = []
    original = zipfile.ZipExtFile.read

    def counting(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        data = original(self, n)
        read.append(len(data))
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "read", counting)
        assert "altered" in error_of(path)
    assert max(read) < 1_000_000


def test_pickles_are_never_read(tiny: Any, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], object), allow_pickle=True)
    tiny.files["label_vectors.npy"] = stream.getvalue()
    tiny.files["known_answers.npz"] = tiny.answers(pixels=np.array([Trap()], object))
    bundle = Bundle(tiny.write(tmp_path / "tiny"))
    with pytest.raises(BundleError, match="label_vectors"):
        bundle.label_vectors(2)
    with pytest.raises(BundleError, match="known_answers"):
        bundle.known_answers()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"pixels": np.zeros((3, 9, 9, 3), np.uint8)},
        {"pixels": np.zeros((3, 8, 8, 3), np.float32)},
        {"tokens": np.zeros((3, 12), np.int64)},
        {"tokens": np.zeros((0, 12), np.int32), "text_vectors": np.zeros((0, 4), np.float32)},
        {"image_vectors": np.zeros((3, 5), np.float32)},
        {"text_vectors": np.zeros((2, 4), np.float32)},
    ],
)
def test_known_answers_with_wrong_shapes_are_an_error(tiny: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    tiny.files["known_answers.npz"] = tiny.answers(**changes)
    with pytest.raises(BundleError, match="shapes"):
        Bundle(tiny.write(tmp_path / "tiny")).known_answers()


def test_wrong_label_vectors_are_an_error(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="3 labels"):
        Bundle(tiny.write(tmp_path / "tiny")).label_vectors(3)
    for data in (b"nonsense", tiny.files["known_answers.npz"], tiny.files["label_vectors.npy"][:-4]):
        tiny.files["label_vectors.npy"] = data
        with pytest.raises(BundleError, match="label_vectors"):
            Bundle(tiny.write(tmp_path / "tiny")).label_vectors(2)


def test_writing_replaces_the_whole_bundle(tiny: Any, tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "tiny")
    (folder / "left-over").touch()
    tiny.fields["version"] = "2"
    assert Bundle(tiny.write(folder)).manifest.version == "2"
    assert not (folder / "left-over").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("broken", ["fields", "disk"])
def test_a_failed_write_leaves_the_old_bundle(tiny: Any, tmp_path: Path, broken: str, monkeypatch: Any) -> None:
    folder = tiny.write(tmp_path / "tiny")
    if broken == "fields":
        del tiny.fields["licence"]
    else:

        def disk_is_full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(mobileclip.bundle, "write_bytes", disk_is_full)
    with pytest.raises((ConfigError, OSError)):
        tiny.write(folder)
    assert Bundle(folder).manifest.version == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


def test_a_bundle_may_have_no_labels(tiny: Any, tmp_path: Path) -> None:
    tiny.files["labels.toml"] = b""
    tiny.files["label_vectors.npy"] = saved(np.empty((0, 4), np.float32))
    model = mobileclip.load(tiny.write(tmp_path / "tiny"), threads=1)
    assert len(model.labels) == 0 and model.label_vectors.shape == (0, 4)
    assert model.labels.decide(model.encode_texts("dog") @ model.label_vectors.T) == []


def test_pulled_bundles_are_found_by_name(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobileclip.bundle, "_BUNDLES", tmp_path / "embedded")
    monkeypatch.setenv("POCKETCLIP_HOME", str(tmp_path / "home"))
    assert named_bundles() == {}
    embedded = tiny.write(tmp_path / "embedded" / "small")
    tiny.write(tmp_path / "home" / "models" / "small")
    pulled = tiny.write(tmp_path / "home" / "models" / "pulled")
    (tmp_path / "home" / "models" / "half").mkdir()
    tiny.write(tmp_path / "pulled")
    monkeypatch.chdir(tmp_path)
    assert find_bundle("small") == embedded and find_bundle("pulled") == pulled
    assert find_bundle("./pulled") == Path("pulled")
    assert named_bundles() == {"small": embedded, "pulled": pulled}
    with pytest.raises(BundleError, match="available: small, pulled"):
        find_bundle("half")


def test_names_and_paths_find_a_bundle(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobileclip.bundle, "_BUNDLES", tmp_path / "embedded")
    embedded = tiny.write(tmp_path / "embedded" / "small")
    own = tiny.write(tmp_path / "own")
    assert find_bundle("small") == embedded
    assert find_bundle(own) == own and find_bundle(str(own)) == own
    monkeypatch.chdir(tmp_path)
    assert find_bundle("own") == Path("own")
    for wrong in ("none", "../embedded/none", "", "nul\0"):
        if wrong == "":
            continue
        with pytest.raises(BundleError, match="available: small"):
            find_bundle(wrong)

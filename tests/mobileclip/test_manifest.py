"""The manifest as dataclasses, and tables ⇄ dataclasses."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileclip.errors import ConfigError, EngineError
from mobileclip.manifest import EngineTowers, FeatureMap, FileEntry, Manifest, TokenizerSpec, TowerVariant
from mobileclip.preprocess import PixelRecipe
from mobileclip.tables import build, to_table

BUNDLES = Path(__file__).parents[2] / "mobileclip" / "bundles"


@pytest.mark.parametrize("name", ["pocket", "pocket-litert"])
def test_shipped_manifests_are_written_back_byte_for_byte(name: str) -> None:
    data = (BUNDLES / name / "manifest.json").read_bytes()
    assert Manifest.from_json(data).to_json() == data


def manifest(**changes: Any) -> Manifest:
    entries = {name: FileEntry("0" * 64, 3) for name in ("m.gz", "a.onnx", "b.onnx", "l.toml", "v.npy", "k.npz")}
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": "1",
        "license": "MIT",
        "provenance": "a test",
        "embed_dim": 4,
        "logit_scale": 50.0,
        "pixels": PixelRecipe(8, "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "tokenizer": TokenizerSpec("m.gz", 12, 518),
        "towers": {"onnx": EngineTowers(precision="fp32", image="a.onnx", text="b.onnx")},
        "labels": "l.toml",
        "label_vectors": "v.npy",
        "known_answers": "k.npz",
        "files": entries,
    }
    return Manifest(**{**fields, **changes})


texts = st.text(min_size=1)
names = st.sampled_from(["m.gz", "a.onnx", "b.onnx", "l.toml", "v.npy", "k.npz"])
variants = st.builds(
    TowerVariant,
    image=names,
    text=names,
    labels=st.none() | names,
    known_answers=st.none() | names,
    local=st.none() | st.builds(FeatureMap, output=texts, head=names),
)
towers = st.builds(
    lambda own, precision, others: EngineTowers(**{**vars(own), "precision": precision}, variants=others),
    variants,
    texts,
    st.dictionaries(texts, variants, max_size=3),
)


@given(
    name=texts,
    license=texts,
    research_only=st.booleans(),
    revision=st.text(),
    logit_scale=st.floats(min_value=1e-3, max_value=1e6),
    tokenizer=st.builds(TokenizerSpec, st.just("m.gz"), st.integers(2, 99), st.integers(514, 99999), st.booleans()),
    towers=st.dictionaries(texts, towers, min_size=1, max_size=3),
    figures=st.dictionaries(texts, st.integers() | st.lists(st.floats(0, 1)) | st.text()),
)
def test_a_written_manifest_is_read_back(**fields: Any) -> None:
    written = manifest(**fields)
    assert Manifest.from_json(written.to_json()) == written


def test_unknown_fields_of_a_manifest_are_ignored() -> None:
    table = json.loads(manifest().to_json())
    table["color"] = {"of": "a newer version"}
    table["towers"]["onnx"]["speed"] = 3
    assert Manifest.from_json(json.dumps(table).encode()) == manifest()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": ""}, "name"),
        ({"license": ""}, "licence"),
        ({"embed_dim": 0}, "embed_dim"),
        ({"logit_scale": 0.0}, "logit_scale"),
        ({"logit_scale": float("inf")}, "logit_scale"),
        ({"towers": {}}, "towers"),
        ({"files": {"../up": FileEntry("0" * 64, 1)}}, "'../up' is not an acceptable file name"),
    ],
)
def test_a_manifest_that_no_reader_would_accept_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        manifest(**changes)


def test_used_files_must_be_listed() -> None:
    listed = manifest()
    listed.check_files()
    for name in listed.files:
        with pytest.raises(ConfigError, match=f"'{name}' is used but not listed"):
            replace(
                listed, files={other: entry for other, entry in listed.files.items() if other != name}
            ).check_files()


def test_a_variant_is_chosen_by_precision() -> None:
    other = TowerVariant(image="b.onnx", text="a.onnx")
    own = EngineTowers(precision="fp32", image="a.onnx", text="b.onnx", variants={"int8": other})
    found = manifest(towers={"onnx": own})
    assert found.variant("onnx") is found.variant("onnx", "fp32") is own
    assert found.variant("onnx", "int8") == replace(other, precision="int8")
    with pytest.raises(EngineError, match="no int4 towers for the engine 'onnx', only fp32, int8"):
        found.variant("onnx", "int4")
    with pytest.raises(EngineError, match="no towers for the engine 'coreml', only for onnx"):
        found.variant("coreml")


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...]
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("sizes must not be empty")


@dataclass(frozen=True)
class Outer:
    rate: float
    inner: Inner
    more: dict[str, Inner] = field(default_factory=dict)
    license: str = field(default="", metadata={"key": "licence"})
    count: int | None = None


def test_a_table_becomes_a_dataclass_and_back() -> None:
    table = {"rate": 1, "inner": {"sizes": [1, 2]}, "more": {"x": {"sizes": [3], "kind": "b"}}, "licence": "MIT"}
    outer = build(Outer, table, "")
    assert outer == Outer(1.0, Inner((1, 2)), {"x": Inner((3,), "b")}, "MIT")
    assert to_table(outer) == table and build(Outer, to_table(outer), "") == outer


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "top: a table is needed"),
        ({"inner": {"sizes": [1]}}, "top: rate is missing"),
        ({"rate": "1", "inner": {"sizes": [1]}}, "top: rate: '1' is not of type float"),
        ({"rate": True, "inner": {"sizes": [1]}}, "top: rate: True is not of type float"),
        ({"rate": 1.0, "inner": {"sizes": []}}, "top: inner: sizes must not be empty"),
        ({"rate": 1.0, "inner": {"sizes": 3}}, "top: inner: sizes: a list is needed"),
        ({"rate": 1.0, "inner": {"sizes": [1], "kind": "c"}}, "top: inner: kind: 'c' is not one of a, b"),
        ({"rate": 1.0, "inner": {"sizes": [1]}, "more": {"x": {"sizes": [1.5]}}}, "top: more: x: sizes: 1.5 is not of"),
        ({"rate": 1.0, "inner": {"sizes": [1]}, "license": "MIT"}, "top: unknown setting license; known are rate"),
    ],
)
def test_the_error_names_the_wrong_key(table: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, table, "top")
    assert str(caught.value).startswith(message)

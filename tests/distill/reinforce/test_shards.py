"""Shards and their sidecar."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.data.tables import DataError
from distill.reinforce.shards import SIDECAR, Shard, Sidecar, compress, expand
from mobileclip.errors import PocketclipError
from tests.distill.mixed import TinyTeacher
from tests.distill.reinforce.common import reinforced


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "not of schema 1"),
        (b'{"schema": 2, "layout": "pocketclip", "teachers": []}', "not of schema 1"),
        (b'{"schema": 1, "layout": "pocketclip", "teachers": []}', "at least one teacher"),
        (b'{"schema": 1, "layout": "other", "teachers": []}', "not one of pocketclip, datacompdr"),
        (b'{"schema": 1, "layout": "pocketclip", "teachers": [{"identity": "x"}]}', "dim is missing"),
        (b'{"schema": 1, "layout": "pocketclip", "teachers": [], "new": 1}', "unknown setting new"),
    ],
)
def test_an_invalid_sidecar_gives_a_one_line_error(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / SIDECAR).write_bytes(text)
    with pytest.raises(PocketclipError, match=message) as caught:
        Sidecar.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_error_for_a_missing_sidecar_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `pocketclip reinforce`, or for DataCompDR tars"):
        Sidecar.load(tmp_path)


def test_a_damaged_shard_gives_a_one_line_error(data: Path, tmp_path: Path) -> None:
    out = reinforced(data, tmp_path / "out", [TinyTeacher(0)])
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
def test_int8_is_off_by_at_most_half_a_step(rows: list[list[float]]) -> None:
    vectors = torch.tensor(rows)
    stored = compress(vectors, "int8")
    assert stored[""].dtype == torch.int8 and stored[".scale"].shape == (len(rows), 1)
    error = (stored[""].float() * stored[".scale"] - vectors).abs()
    assert (error <= vectors.abs().amax(dim=1, keepdim=True) / 254 * 1.001 + 1e-30).all()


@pytest.mark.parametrize(("dtype", "cosine"), [("float16", 0.999999), ("bfloat16", 0.99999), ("int8", 0.9998)])
def test_stored_embeddings_stay_close_and_have_unit_length(dtype: Any, cosine: float) -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(50, 512), dim=-1)
    stored = compress(vectors, dtype)
    back = expand(stored[""], stored.get(".scale"))
    assert torch.allclose(back.norm(dim=-1), torch.ones(50)) and (back * vectors).sum(dim=-1).min() > cosine

"""Vectors computed once, and again only where what they are of has changed."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distill.teachers import VectorCache
from distill.teachers.cache import MOST, _chunks


def test_teacher_vectors_are_computed_once(tmp_path: Path) -> None:
    class Counting:
        identity = "counting"
        seen = 0

        def encode_texts(self, texts: list[str]) -> np.ndarray:
            self.seen += len(texts)
            return np.array([[len(text), int(text.split()[1])] for text in texts], np.float32)

    encoder, texts = Counting(), [f"text {i} " + "x" * (i % 7) for i in range(20_000)]
    first = VectorCache(tmp_path).texts(encoder, texts)
    assert encoder.seen == 20_000 and np.array_equal(first[:, 1], np.arange(20_000))
    assert np.array_equal(VectorCache(tmp_path).texts(encoder, texts), first) and encoder.seen == 20_000
    # A source more in the middle, and one less: their neighbors are computed again, and no others.
    for changed, new in (
        ([*texts[:9000], *(f"more {i}" for i in range(20_000, 20_100)), *texts[9000:]], 100),
        ([*texts[:5000], *texts[7000:]], 0),
        ([*texts, "last 5"], 1),
    ):
        encoder.seen = 0
        vectors = VectorCache(tmp_path).texts(encoder, changed)
        assert vectors[:, 1].tolist() == [int(text.split()[1]) for text in changed]
        assert new <= encoder.seen <= 3 * MOST


@given(st.lists(st.text(max_size=5)))
def test_chunks_leave_nothing_out(keys: list[str]) -> None:
    chunks = list(_chunks(keys))
    assert [key for chunk in chunks for key in keys[chunk]] == keys
    assert all(0 < chunk.stop - chunk.start <= MOST for chunk in chunks)
